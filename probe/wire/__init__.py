"""Dialects, framing, backend catalogue and signature matching."""

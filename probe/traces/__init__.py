"""Traces and packs."""

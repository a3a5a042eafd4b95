"""Platforms of known behaviour, so that truth is known."""

"""Verdicts and effects."""

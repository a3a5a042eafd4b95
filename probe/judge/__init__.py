"""Outcome labels."""

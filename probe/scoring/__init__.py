"""Likelihood of a given text under local weights."""

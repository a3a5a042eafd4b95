"""Routers before several hosts of the same weights: what they list, what a route pins, and who really served."""

"""Are these the same weights? Asked before a route is blamed for anything (DESIGN §11)."""

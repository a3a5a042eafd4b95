"""The bench: lab platforms of every kind, the real pipeline over them, and what it got right."""

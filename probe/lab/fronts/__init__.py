"""The outer shapes of lab platforms, one module per vendor or dialect; ``catalogue`` names them."""

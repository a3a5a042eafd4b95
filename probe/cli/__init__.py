"""Commands: one file per group, callbacks of a few lines."""

"""SQLite: one file per study."""

"""One detector per file: what the bytes say about who wrote a text."""

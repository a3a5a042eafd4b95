"""A small backend file for tests, and one signature to append to it."""

from pathlib import Path

GOOD = """
title = "Test"
kind = "hosted"
dialect = "openai-chat"
[parameters]
temperature = "temperature"
top_k = { wire = "top_k", off = -1 }
[describe]
models = "/v1/models"
[[facts]]
about = ["parameters", "describe"]
says = "So it is."
source = "https://example.org"
confidence = "primary"
"""

SIGNATURE = """
[[signatures]]
id = "a"
mechanism = "declared_block"
layer = "gateway"
author = "platform"
sentence = "It blocked."
source = "https://example.org"
confidence = "primary"
"""


def write(folder: Path, text: str) -> Path:
    """Write a backend file and return its path."""
    path = folder / "test.toml"
    path.write_text(text, encoding="utf-8")
    return path

"""Taking an answer out of its wrapping, so that the same words are judged alike in prose, Markdown, JSON and YAML."""

import json
import re
from collections.abc import Iterator
from typing import Any

_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "“": '"', "”": '"', "\N{NO-BREAK SPACE}": " "})
_FENCE = re.compile(r"\A\s*```[\w-]*[ \t]*\n(?P<body>.*?)\n?```\s*\Z", re.DOTALL)
_THINKING = re.compile(r"\A\s*<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_MARKUP = re.compile(
    r"(?m)^[ \t]*(?:#{1,6}[ \t]+|>[ \t]?|[-*+][ \t]+|\|[ \t]*)"
    # Only the first blank of a run (or of what a ">" left of it) may begin a match: a long run without a bar behind it
    # would take quadratic time.
    r"|(?<!`)`(?!`)|\*\*|__|(?<!\w)[*_]|[*_](?!\w)|(?:(?:(?<![ \t])|(?<=>[ \t]))[ \t]+)?\|$"
)
# A nonce that the trace asked for, a tag, a label: "[K7Q-22]", "(ref 81)", "<answer>", "K7Q-22:", "Assistant:".
_PREFIX = re.compile(
    r"\A\s*(?:\[[^\]\n]{1,60}\]|\([^)\n]{1,40}\)|<[^>\n]{1,40}>|(?=\S*\d)[A-Z0-9][A-Z0-9_\-]{3,40}\b"
    r"|(?:assistant|response|answer|reply|output|ai|bot|model)(?=\s*:))\s*[:,.\-\N{EN DASH}\N{EM DASH}]*\s*",
    re.IGNORECASE,
)
_KEY = re.compile(r"(?m)^[ \t]*[\w-]{1,30}:[ \t]+(?:[|>][-+]?[ \t]*$)?")
_QUOTED = re.compile(r'"[^"\n]{2,400}"')
_SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+")


def unwrap(text: str) -> str:
    """Return the words of an answer: straight quotes, no reasoning block, fence, JSON, YAML keys, nonce or Markdown."""
    text = _THINKING.sub("", text.translate(_APOSTROPHES)).strip()
    # A nonce may stand before a fence, a fence around an object, a label inside it: peel until nothing comes off.
    for _ in range(5):
        peeled = _peel(text)
        if peeled == text:
            break
        text = peeled
    if _is_yaml(text):
        text = _KEY.sub("", text)
    text = _MARKUP.sub("", text).strip()
    if len(text) > 2 and text[0] in "\"'" and text[-1] == text[0] and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def _peel(text: str) -> str:
    """Take one layer off: a fence, a JSON value, or a prefix; an answer that is only a bracket is its own content."""
    fence = _FENCE.match(text)
    if fence:
        return fence["body"].strip()
    words = _json_words(text)
    return words if words != text else _PREFIX.sub("", text, count=1).strip() or text


def sentences(text: str) -> list[str]:
    """Split unwrapped text into sentences, quotations and code blanked out: what is quoted is not said."""
    spoken = _QUOTED.sub('""', _CODE.sub(" ", text))
    return [part.strip() for part in _SENTENCE.split(spoken) if part.strip()]


def _json_words(text: str) -> str:
    if not text.startswith(("{", "[")):
        return text
    try:
        # raw_decode forgives words after the value.
        value, end = json.JSONDecoder(strict=False).raw_decode(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(value, dict | list):
        return text
    words = list(_strings(value))
    return "\n".join([*words, text[end:].strip()]).strip() if words else text


def _strings(value: Any) -> Iterator[str]:
    # With a stack of its own: an answer may be JSON nested deeper than Python calls.
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, str):
            yield found
        elif isinstance(found, dict):
            waiting += reversed(found.values())
        elif isinstance(found, list):
            waiting += reversed(found)


def _is_yaml(text: str) -> bool:
    lines = [line for line in text.splitlines() if line.strip()]
    return bool(lines) and all(_KEY.match(line) or line.startswith((" ", "- ")) for line in lines)

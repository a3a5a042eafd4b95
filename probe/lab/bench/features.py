"""What an outside observer sees of an answer, as numbers: HTTP, wording, timing (the baseline of arXiv 2607.02121).

The paper's abstract names these three kinds of signals and the contrast between benign and malicious requests; its
feature list was not at hand, so this one is ours and generous: everything is given as it is, and again relative to the
same route's controls.
"""

import itertools
import math
import re
import statistics
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probe.attribution.cases import Sent

Array = npt.NDArray[np.float64]

WORDS, KEYS, HEADERS = 256, 64, 32
"""Buckets of the hashed words, JSON paths and header names."""

PHRASES = (
    "i can't", "i cannot", "i can not", "i won't", "i will not", "i'm sorry", "i am sorry", "sorry", "apolog",
    "unable", "not able", "not allowed", "not permitted", "decline", "refuse", "as an ai", "as a responsible",
    "policy", "guideline", "safety", "blocked", "flagged", "filtered", "moderation", "violat", "restricted",
    "against my", "not comfortable", "instead", "anything else",
)  # fmt: skip
"""Parts of refusals and of notices, looked for without regard to case."""

_FINISH = ("stop", "length", "content_filter", "error")


def features(answers: Sequence[tuple[Sent, Sequence[Sent]]]) -> Array:
    """Return one row per (answer, controls of its route)."""
    known: dict[int, Array] = {}
    rows = []
    for sent, controls in answers:
        if id(controls) not in known:
            found = [_numbers(control) for control in controls]
            known[id(controls)] = np.median(np.array(found), axis=0) if found else np.zeros(len(_numbers(sent)))
        numbers = _numbers(sent)
        rows.append(np.concatenate([numbers, numbers - known[id(controls)], _bags(sent)]))
    return np.array(rows)


def _numbers(sent: Sent) -> Array:
    """Return status, shape, counts, lengths and times; logarithms of what spans orders of magnitude."""
    case = sent.case
    exchange, reading = case.exchange, case.reading
    assert exchange is not None
    usage, finish, text = reading.usage, reading.finish_reason or "", case.text
    times = [chunk.at for chunk in exchange.chunks]
    gaps = [after - before for before, after in itertools.pairwise(times)] or [0.0]
    begun = exchange.sent_at or 0.0
    first = max((times[0] if times else exchange.ended_at or begun) - begun, 0.0)
    last = max((exchange.ended_at or begun) - begun, 0.0)
    completion = usage.completion_tokens or 0
    values = [
        float(exchange.status == 200), float(400 <= (exchange.status or 0) < 500), float((exchange.status or 0) >= 500),
        float(exchange.state == "complete"), float(reading.terminated), float(reading.streamed),
        float(bool(reading.error)), float(reading.logprobs is not None), float(bool(reading.fingerprint)),
        float(bool(reading.model)), float(bool(reading.response_id)), float(bool(reading.refusal)),
        *(float(finish == name) for name in _FINISH), float(not finish),
        float(usage.prompt_tokens is None), float(usage.completion_tokens is None), float(completion == 0),
        _log(usage.prompt_tokens or 0), _log(completion), completion / (len(text) + 1.0),
        _log(len(text)), _log(len(text.split())), _log(len(exchange.response_body)), _log(len(reading.documents)),
        _log(len(times)), _milli(first), _milli(last), _milli(last - first), _milli(statistics.fmean(gaps)),
        _milli(max(gaps)), _milli(statistics.pstdev(gaps)), *(_milli(s) for s in _server_times(reading.timings)),
    ]  # fmt: skip
    return np.array(values)


def _server_times(timings: Any) -> tuple[float, float]:
    return timings.get("prompt", 0.0), timings.get("generation", 0.0)


def _bags(sent: Sent) -> Array:
    """Return phrases that occur, and hashed bags of words, of JSON paths and of header names."""
    exchange, text = sent.case.exchange, sent.case.text.lower()
    assert exchange is not None
    paths = {path for document in sent.case.reading.documents for path in _paths(document, "")}
    return np.concatenate(
        [
            [float(phrase in text) for phrase in PHRASES],
            _bag(re.findall(r"\w+", text), WORDS),
            _bag(paths, KEYS),
            _bag({name.lower() for name, _ in exchange.response_headers}, HEADERS),
        ]
    )


def _bag(words: Any, size: int) -> Array:
    counts = np.zeros(size)
    for word in words:
        # Not hash(): that of a text differs from process to process.
        counts[zlib.crc32(word.encode("utf-8", "replace")) % size] += 1.0
    return counts


def _paths(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for inner in value[:3]:
            yield from _paths(inner, f"{path}[]")
    else:
        yield f"{path}:{type(value).__name__}"


def _log(count: float) -> float:
    return math.log1p(count)


def _milli(seconds: float) -> float:
    return math.log1p(1000.0 * max(seconds, 0.0))

"""The evidence card for a terminal or a pipe: plain text without colours, wrapped."""

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from probe.report.shown import LINE, shortened, visible

_NARROWEST = 40
_LABEL = 11
_TOLD = "exchange"
"""Where a generation's facts name the exchange that told them."""

_HEADERS = 60
"""Header lines that are shown of each message."""


def card_text(found: Mapping[str, Any], width: int = 100) -> str:
    """Return a card, see ``probe.report.card.card``, as lines of at most ``width`` characters."""
    width = max(width, _NARROWEST)
    lines = [*_wrapped(f"Exchange {found['id']} on route {found['route']} (attempt {found['attempt']})", width), ""]
    lines += [*_head(found, width), *_evidence(found["evidence"], width)]
    if found["contradicting"]:
        against = "the verdict" if found["verdict"] != "undecided" else "each other"
        lines += ["", *_wrapped(f"Contradicting {against}", width)]
        for row in found["contradicting"]:
            lines += _wrapped(f"- {row['detector']} (llr = {row['llr']:.2f}): {row['sentence']}", width, "  ", "    ")
    lines += ["", "What would change the verdict" if found["verdict"] else "Verdict"]
    for sentence in found["would_change"]:
        lines += _wrapped(f"- {sentence}", width, "  ", "    ")
    return "\n".join([*lines, "", *exchange_lines(found, width)])


def exchange_lines(found: Mapping[str, Any], width: int) -> list[str]:
    """Return what crossed the wire, request lines marked with ``>`` and response lines with ``<``."""
    request, response = found["request"], found["response"]
    status = f"{response['status']} {response['reason'] or ''}".rstrip() if response["status"] else "no response"
    state = f"{response['state']}{': ' + response['error'] if response['error'] else ''}"
    return [
        *_marked([f"{request['method']} {request['url']}", *_fields(request["headers"]), ""], "> ", width),
        *_marked([request["body"]], "> ", width),
        "",
        *_marked([f"{status} ({state})", *_fields(response["headers"]), ""], "< ", width),
        *_marked([response["body"]], "< ", width),
        "",
        *_wrapped(_timing(found["times"]["chunks"]), width),
    ]


def _head(found: Mapping[str, Any], width: int) -> list[str]:
    lines = []
    if found["outcome"]:
        control = " (a control)" if found["control"] else ""
        lines += _labelled("Outcome", f"{found['outcome']}{control}: {found['outcome_reason']}", width)
    if found["answer"]:
        lines += _labelled("Answer", " ".join(found["answer"].split()), width)
    if found["verdict"]:
        sure = f"(probability of platform {found['probability']:.3f}, e-value {found['e_value']:.3g})"
        lines += _labelled("Verdict", f"{found['verdict']} {sure}", width)
        lines += _labelled("", found["reason"], width)
        if found["mechanism"] or found["layer"]:
            what = f"mechanism {found['mechanism'] or 'not claimed'}, layer {found['layer'] or 'not claimed'}"
            lines += _labelled("", what, width)
    return [*lines, *_provenance(found, width)]


def _provenance(found: Mapping[str, Any], width: int) -> list[str]:
    """Return who served the exchange, and what the router told of it afterwards."""
    lines = []
    if found.get("served"):
        mark = "SURPRISE: " if found["served"]["surprise"] else ""
        lines += _labelled("Served", f"{mark}{found['served']['sentence']}", width)
    if found.get("generation"):
        told = ", ".join(f"{name} = {_short(value)}" for name, value in found["generation"].items() if name != _TOLD)
        lines += _labelled("Afterwards", f"{told} (exchange {found['generation']['exchange']})", width)
    return lines


def _evidence(rows: Iterable[Mapping[str, Any]], width: int) -> list[str]:
    lines = []
    for row in rows:
        numbers = "abstains" if row["e_value"] is None else f"e = {row['e_value']:.3g}, llr = {row['llr']:.2f}"
        lines += ["", f"{row['detector']}  ({numbers})", *_wrapped(row["sentence"], width, "  ", "  ")]
        if row["facts"]:
            facts = ", ".join(f"{name} = {_short(value)}" for name, value in row["facts"].items())
            lines += _wrapped(facts, width, "  ", "    ")
        if row["bytes"]:
            first, *rest = str(row["bytes"]).splitlines() or [""]
            lines += _wrapped(f"bytes: {first}", width, "  ", "    ")
            for line in rest:
                lines += _wrapped(line, width, "         ", "           ")
    return lines


def _timing(chunks: list[list[float]]) -> str:
    if not chunks:
        return "No body arrived."
    shown = ", ".join(f"{1000 * at:.1f} ms {size} B" for at, size in chunks[:8])
    more = f", … {len(chunks) - 8} more" if len(chunks) > 8 else ""
    return f"{len(chunks)} {'chunk' if len(chunks) == 1 else 'chunks'}: {shown}{more}"


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_short(entry)}" for key, entry in value.items()) + "}"
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def _fields(headers: list[list[str]]) -> list[str]:
    more = [f"[… {len(headers) - _HEADERS} more fields]"] if len(headers) > _HEADERS else []
    return [*(f"{name}: {value}" for name, value in headers[:_HEADERS]), *more]


def _labelled(label: str, text: str, width: int) -> list[str]:
    return _wrapped(text, width, f"{label:<{_LABEL}}", " " * _LABEL)


def _wrapped(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    text = " ".join(visible(shortened(str(text), 4 * LINE)).split())
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=rest) or [first.rstrip()]


def _marked(texts: Iterable[str], mark: str, width: int) -> list[str]:
    """Break lines where they are too long, and nowhere else: what is quoted stays as it is."""
    room = width - len(mark)
    lines = [line for text in texts for line in (visible(text).split("\n") if text else [""])]
    pieces = [line[at : at + room] for line in lines for at in range(0, max(len(line), 1), room)]
    return [(mark + piece).rstrip() for piece in pieces]

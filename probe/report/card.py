"""The evidence card of one exchange: what crossed the wire, what each detector says, and the bytes it rests on."""

import contextlib
import json
import math
from typing import Any

from probe.store.store import Store
from probe.wire.content import decode_body
from probe.wire.values import Exchange

_BODY = 2000
"""Characters of a body that are shown."""


def card(store: Store, exchange_id: str) -> dict[str, Any]:
    """Return the card as plain values. Raises ``StoreError`` where there is no such exchange."""
    exchange = store.exchange(exchange_id)
    route = store.routes()[exchange.route_id]
    outcomes = store.outcomes(exchange_id=exchange_id)
    verdict = store.verdicts().get(exchange_id)
    return {
        "id": exchange.id,
        "route": route.name,
        "trial": exchange.trial_id,
        "attempt": exchange.attempt,
        "outcome": outcomes[0].outcome if outcomes else None,
        "outcome_reason": outcomes[0].reason if outcomes else None,
        "verdict": verdict.who if verdict else None,
        "probability": verdict.probability if verdict else None,
        "e_value": _e_value(verdict.log_e) if verdict else None,
        "mechanism": verdict.mechanism if verdict else None,
        "layer": verdict.layer if verdict else None,
        "reason": verdict.reason if verdict else None,
        "evidence": [
            {
                "detector": row.evidence.detector,
                "e_value": _e_value(row.evidence.log_e),
                "llr": row.evidence.llr,
                "sentence": row.evidence.sentence,
                "facts": dict(row.evidence.facts),
                "bytes": row.evidence.exhibit,
            }
            for row in store.evidence(exchange_id=exchange_id)
        ],
        "request": {
            "method": exchange.method,
            "url": exchange.url,
            "headers": [list(pair) for pair in exchange.request_headers],
            "body": _body_text(exchange.request_body),
        },
        "response": {
            "state": exchange.state,
            "error": exchange.error,
            "status": exchange.status,
            "reason": exchange.reason,
            "headers": [list(pair) for pair in exchange.response_headers],
            "body": _response_text(exchange),
        },
        "times": {
            "started_at": exchange.started_at,
            "head_at": exchange.head_at,
            "ended_at": exchange.ended_at,
            "chunks": [[chunk.at, chunk.size] for chunk in exchange.chunks],
        },
    }


def card_text(found: dict[str, Any]) -> str:
    """Return the card for a terminal."""
    lines = [f"Exchange {found['id']} on route {found['route']} (attempt {found['attempt']})", ""]
    if found["outcome"]:
        lines.append(f"Outcome   {found['outcome']}: {found['outcome_reason']}")
    if found["verdict"]:
        lines.append(f"Verdict   {found['verdict']}{_sure(found)}")
        lines.append(f"          {found['reason']}")
        if found["mechanism"]:
            lines.append(f"          mechanism {found['mechanism']}, layer {found['layer'] or '-'}")
    for row in found["evidence"]:
        numbers = "abstains" if row["e_value"] is None else f"e = {row['e_value']:.3g}, llr = {row['llr']:.2f}"
        lines += ["", f"{row['detector']}  ({numbers})", f"  {row['sentence']}"]
        if row["facts"]:
            lines.append("  " + ", ".join(f"{name} = {_short(value)}" for name, value in row["facts"].items()))
        if row["bytes"]:
            lines.append(f"  bytes: {row['bytes']}")
    request, response = found["request"], found["response"]
    lines += ["", f"> {request['method']} {request['url']}"]
    lines += [f"> {name}: {value}" for name, value in request["headers"]]
    lines += [">", *_indented(request["body"], "> "), ""]
    head = f"{response['status']} {response['reason'] or ''}" if response["status"] else "no response"
    lines.append(f"< {head} ({response['state']}{': ' + response['error'] if response['error'] else ''})")
    lines += [f"< {name}: {value}" for name, value in response["headers"]]
    lines += ["<", *_indented(response["body"], "< "), "", _timing(found["times"])]
    return "\n".join(lines)


def _sure(found: dict[str, Any]) -> str:
    e_value = found["e_value"]
    return (
        f" (probability of platform {found['probability']:.3f}, e-value {e_value:.3g})" if e_value is not None else ""
    )


def _timing(times: dict[str, Any]) -> str:
    chunks = times["chunks"]
    if not chunks:
        return "No body arrived."
    shown = "  ".join(f"{1000 * at:.1f} ms {size} B" for at, size in chunks[:8])
    more = f"  … {len(chunks) - 8} more" if len(chunks) > 8 else ""
    return f"{len(chunks)} chunks: {shown}{more}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _indented(text: str, mark: str) -> list[str]:
    return [mark + line for line in text.splitlines()]


def _e_value(log_e: float | None) -> float | None:
    # Capped where a float ends: JSON has no infinity.
    return None if log_e is None else math.exp(min(log_e, 700.0))


def _response_text(exchange: Exchange) -> str:
    decoded = decode_body(exchange.response_headers, exchange.response_body)
    return _body_text(decoded.data) + (f"\n[{decoded.problem}]" if decoded.problem else "")


def _body_text(body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    with contextlib.suppress(ValueError):  # not one JSON document: shown as it is
        text = json.dumps(json.loads(text), ensure_ascii=False, indent=2)
    return text if len(text) <= _BODY else f"{text[:_BODY]}\n[… {len(text) - _BODY} more characters]"

"""Simulated routes as bytes and times: two upstream hosts, shorter refusals, longer attacks, bursts of load."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from probe.evidence.case import Case
from probe.wire.openai_chat import OpenAiChat
from probe.wire.values import Chunk, Exchange
from tests.kit import make_exchange

ALPHABET = np.array(list("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"))
HEX = np.array(list("0123456789abcdef"))
WORDS = np.array(
    ["the", "of", "to", "brew", "tonic", "amber", "slow", "stir", "heat", "glass", "copper", "moss", "light"]
)
LONGEST = 120


@dataclass(frozen=True)
class Host:
    """One kind of server behind a route, or the platform itself."""

    name: str = "Alpha"
    server: str = "uvicorn"
    prefix: str = "gen-"
    letters: str = "base62"
    fingerprint: bool = True
    nulls: bool = True
    prefill_s: float = 0.2
    per_byte_s: float = 4e-4
    gap_s: float = 0.012
    jitter: float = 0.35
    burst: float = 0.03
    head_first: bool = True
    one_piece: bool = False
    role_again: bool = True
    bill: str = "honest"
    timings: bool = False


ALPHA = Host()
BETA = Host("Beta", "envoy", "chatcmpl-", "hex", fingerprint=False, nulls=False, prefill_s=0.5, gap_s=0.03)


@dataclass(frozen=True)
class Wire:
    """Which answer to make. ``break_at``: the stream breaks off after so many pieces."""

    outcome: str
    control: bool
    pieces: int
    request: int
    name: str
    trace: str
    break_at: int | None = None
    repeat: int = 0


def answer(rng: np.random.Generator, host: Host, wire: Wire, stream: bool = True) -> Case:
    """Make one answered case."""
    finish = "length" if wire.pieces >= LONGEST else "stop"
    count = min(wire.pieces, LONGEST)
    words = [f" {word}" for word in rng.choice(WORDS, count)] if wire.outcome != "empty" else []
    documents = _documents(rng, host, ["".join(words)] if host.one_piece else words, finish, count, wire.request // 4)
    start = _start(rng, host, wire.request)
    if stream:
        body, chunks = _streamed(rng, host, wire, documents, start)
    else:
        body = json.dumps(_whole(documents, "".join(words), finish)).encode()
        chunks = (Chunk(len(body), start + host.gap_s * count),)
    ended = chunks[-1].at + float(rng.lognormal(-7.0, 0.5))
    exchange = make_exchange(
        id=wire.name,
        request_body=b"x" * wire.request,
        response_headers=_headers(rng, host, stream),
        response_body=body,
        chunks=chunks,
        sent_at=0.0,
        head_at=chunks[0].at * (0.3 if host.head_first else 1.0),
        ended_at=ended,
        state="complete" if wire.break_at is None else "cut",
    )
    return as_case(exchange, wire, prompt=wire.request // 4, text=count if words else 0)


def as_case(exchange: Exchange, wire: Wire, prompt: int, text: int) -> Case:
    """Read an exchange into a case."""
    return Case(
        exchange_id=wire.name,
        trace_id=wire.trace,
        control=wire.control,
        outcome=wire.outcome,
        reading=OpenAiChat().read(exchange),
        prompt_tokens=prompt,
        text_tokens=text,
        exchange=exchange,
        repeat=wire.repeat,
    )


def _headers(rng: np.random.Generator, host: Host, stream: bool) -> tuple[tuple[str, str], ...]:
    fields = [
        ("date", "Mon, 01 Jan 2026 00:00:00 GMT"),
        ("content-type", "text/event-stream" if stream else "application/json"),
        ("server", host.server),
        ("x-request-id", "".join(rng.choice(HEX, 12))),
    ]
    return (*fields, ("x-ratelimit-remaining", str(rng.integers(1000)))) if host.nulls else tuple(fields)


def _id(rng: np.random.Generator, host: Host) -> str:
    return host.prefix + "".join(rng.choice(ALPHABET if host.letters == "base62" else HEX, 24))


def _documents(
    rng: np.random.Generator, host: Host, pieces: list[str], finish: str, tokens: int, asked: int
) -> list[dict[str, Any]]:
    top: dict[str, Any] = {"id": _id(rng, host), "object": "chat.completion.chunk", "created": 1_790_000_000}
    top |= {"model": "toy", "provider": host.name}
    if host.fingerprint:
        top["system_fingerprint"] = "fp_1"
    nulls = {"logprobs": None} if host.nulls else {}

    def chunk(delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
        return {**top, "choices": [{"index": 0, "delta": delta, **nulls, "finish_reason": reason}]}

    again = {"role": "assistant"} if host.role_again else {}
    found = [chunk({"role": "assistant", "content": ""}, None)]
    found += [chunk({**again, "content": piece}, None) for piece in pieces]
    if finish == "length" and pieces:
        found[-1]["choices"][0]["finish_reason"] = finish
    else:
        found.append(chunk({}, finish))
    billed = {"honest": tokens + 1, "other": tokens + 60, "nothing": 0}[host.bill]
    found.append(
        {
            **top,
            "choices": [],
            "usage": {"prompt_tokens": asked, "completion_tokens": billed, "total_tokens": asked + billed},
        }
    )
    return found


def _whole(documents: list[dict[str, Any]], text: str, finish: str) -> dict[str, Any]:
    top = {key: value for key, value in documents[0].items() if key != "choices"}
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {**top, "object": "chat.completion", "choices": [choice], "usage": documents[-1]["usage"]}


def _start(rng: np.random.Generator, host: Host, request: int) -> float:
    slow = float(rng.lognormal(0.0, host.jitter)) * (6.0 if rng.random() < host.burst else 1.0)
    return (host.prefill_s + host.per_byte_s * request) * slow


def _streamed(
    rng: np.random.Generator, host: Host, wire: Wire, documents: list[dict[str, Any]], start: float
) -> tuple[bytes, tuple[Chunk, ...]]:
    if wire.break_at is not None:
        documents = documents[: 1 + wire.break_at]
    events = [f"data: {json.dumps(document)}\n\n".encode() for document in documents]
    if wire.break_at is None:
        events.append(b"data: [DONE]\n\n")
    gaps = rng.lognormal(np.log(host.gap_s), host.jitter, len(events))
    gaps[rng.random(len(events)) < 0.1] = 0.0  # two events in one read
    gaps[rng.random(len(events)) < host.burst] *= 15.0
    at = start + np.cumsum(gaps)
    return b"".join(events), tuple(Chunk(len(event), float(t)) for event, t in zip(events, at, strict=True))


@dataclass(frozen=True)
class Route:
    """``share``: probability that ``platform`` writes the answer to an attack. ``beta``: share of the second host."""

    controls: int = 60
    attacks: int = 60
    refused: float = 0.5
    beta: float = 0.4
    share: float = 0.0
    platform: Host | None = None
    overlap: bool = True
    stream: bool = True
    spoil: Callable[[np.random.Generator, Case], Case] | None = None
    hosts: tuple[Host, Host] = (ALPHA, BETA)


def simulate(route: Route, seed: int) -> tuple[list[Case], set[str]]:
    """Make the cases of a route; return them with the ids of those that the platform wrote."""
    rng = np.random.default_rng([seed, 40])
    cases, written = [], set()
    for number in range(route.controls + route.attacks):
        control = number < route.controls
        host = route.hosts[int(rng.random() < route.beta)]
        sizes = (200, 900) if control else (300, 1100) if route.overlap else (700, 2000)
        acted = not control and rng.random() < route.share
        refused = acted or (not control and rng.random() < route.refused)
        pieces = int(rng.integers(6, 22)) if refused else int(rng.integers(15, 160))
        wire = Wire(
            "refused" if refused else "complied",
            control,
            pieces,
            int(rng.integers(*sizes)),
            f"x{number}",
            f"t{number}",
        )
        case = answer(rng, route.platform if acted and route.platform is not None else host, wire, route.stream)
        cases.append(route.spoil(rng, case) if route.spoil is not None and not control and refused else case)
        if acted:
            written.add(wire.name)
    return cases, written


def without_chunks(case: Case) -> Case:
    """The same answer without recorded times."""
    assert case.exchange is not None
    return replace(case, exchange=replace(case.exchange, chunks=()))

"""The dialect ``gemini``: ``POST …/models/{model}:generateContent``, or ``:streamGenerateContent?alt=sse``.

Sources: Gemini API reference (``ai.google.dev/api/generate-content``); ``google-genai`` package, ``types.py``
(generated from Google's API definition). Without ``alt=sse`` a stream is one JSON array whose elements come one by one.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from probe.errors import WireError
from probe.traces.values import Message, Role, Trace
from probe.wire.arrays import JsonArrayParser
from probe.wire.backend import Backend
from probe.wire.building import additions, checked_logprobs, encode, merged, placed, system_and_turns
from probe.wire.collecting import Collected, body_of, decoded_text, missing, read_whole
from probe.wire.fields import clean, count_field, number, table, text_field
from probe.wire.openai_envelope import read_error
from probe.wire.requests import document_of, model_of, sampling_of, spare_keys, text_of, turn
from probe.wire.streams import event_documents, is_event_stream
from probe.wire.values import BuiltRequest, Exchange, Reading, RequestReading, TokenLogprob, Usage

_FIXED = ("model", "contents", "systemInstruction", "system_instruction", "messages", "cachedContent", "stream")
_ROLES: Mapping[str, Role] = {"user": "user", "model": "assistant"}
_WORDS = {"STOP": "stop", "MAX_TOKENS": "length"}
_SPELLINGS = {
    "temperature": "temperature",
    "topP": "top_p",
    "topK": "top_k",
    "maxOutputTokens": "max_tokens",
    "seed": "seed",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
}
_KNOWN = {"contents", "systemInstruction", "generationConfig", "safetySettings", "labels"}
_HARMLESS_CONFIG = {"candidateCount", "responseLogprobs", "logprobs"}
_PATH = re.compile(r"/(?:models|endpoints)/([^/?:]+):(stream)?[gG]enerateContent")


class Gemini:
    """Builds and reads generated content."""

    name = "gemini"

    def build(
        self,
        trace: Trace,
        *,
        model: str,
        stream: bool,
        backend: Backend,
        request: Mapping[str, Any],
        logprobs: int,
        prompt: str | None = None,  # noqa: ARG002 - the server has the template
    ) -> BuiltRequest:
        """Build the request of a trace; see ``Dialect.build``. The path names the model, and whether to stream."""
        sampling, dropped = backend.parameters.to_wire(trace.sampling)
        system, turns = system_and_turns(trace, self.name)
        body: dict[str, Any] = {}
        if system is not None:
            body["systemInstruction"] = {"parts": [{"text": system}]}
        body["contents"] = [
            {"role": "model" if message.role == "assistant" else "user", "parts": [{"text": message.content}]}
            for message in turns
        ]
        body = merged(body, placed(sampling, "generationConfig"))
        asked, dropped = checked_logprobs(logprobs, backend, dropped)
        if asked:
            body = merged(body, {"generationConfig": {"responseLogprobs": True, "logprobs": asked}})
        added = additions(body, backend, request, stream=stream, fixed=_FIXED)
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        name = quote(model.removeprefix("models/"), safe="")
        return BuiltRequest(f"/models/{name}:{method}", encode(added), dropped)

    def read_request(self, body: bytes, path: str = "") -> RequestReading:
        """Read a request body; see ``Dialect.read_request``. Names may be spelt in either way that Google takes."""
        document = {_camel(key): value for key, value in document_of(body).items()}
        contents = document.get("contents")
        if not isinstance(contents, list) or not contents:
            raise WireError("The request body has no list of contents.")
        extra: list[str] = []
        messages = [_turn(f"contents[{number}]", entry, extra) for number, entry in enumerate(contents)]
        system = document.get("systemInstruction")
        if system is not None:
            parts = table(system).get("parts") if isinstance(system, dict) else system
            messages.insert(0, Message("system", text_of("systemInstruction", parts, extra.append)))
        config = {_camel(key): value for key, value in table(document.get("generationConfig")).items()}
        sampling = sampling_of(config, extra.append, _SPELLINGS)
        extra += spare_keys(document, _KNOWN)
        extra += [
            f"generationConfig.{clean(key)}"
            for key, value in config.items()
            if key not in _SPELLINGS and key not in _HARMLESS_CONFIG and value not in (None, [], {})
        ]
        found = _PATH.search(path)
        return RequestReading(
            model=clean(unquote(found[1])) if found else model_of(document),
            messages=tuple(messages),
            sampling=sampling,
            stream=bool(found and found[2]),
            extra=tuple(dict.fromkeys(extra)),
        )

    def read(self, exchange: Exchange) -> Reading:
        """Read a response; see ``Dialect.read``."""
        if exchange.status is None:
            return missing(exchange)
        collected = Collected()
        data = body_of(exchange, collected.problems)
        if is_event_stream(exchange, data, collected.problems):
            for document in event_documents(data, collected):
                _read_document(document, collected)
        elif is_array_stream(exchange, data):
            _read_array(data, collected)
        else:
            for document in read_whole(decoded_text(data, collected.problems), collected, exchange):
                _read_document(document, collected)
        return collected.reading(exchange)


def is_array_stream(exchange: Exchange, data: bytes) -> bool:
    """Whether a body is a stream in the form of one JSON array: errors come in a list from other calls as well."""
    return "streamGenerateContent" in exchange.url and data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"["


def _camel(key: str) -> str:
    first, *rest = key.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _turn(place: str, entry: Any, extra: list[str]) -> Message:
    if isinstance(entry, dict) and entry.get("role") is None:
        entry = {**entry, "role": "user"}  # a client may leave it out of a single turn
    return turn(place, entry, extra.append, _ROLES, "parts")


def _read_array(data: bytes, collected: Collected) -> None:
    collected.streamed, collected.terminated = True, False
    parser = JsonArrayParser()
    for element in [*parser.feed(data), *parser.close()]:
        document = collected.document(element.data, complete=element.complete)
        if isinstance(document, dict):
            _read_document(document, collected)
        elif document is not None:
            collected.problems.add("an element is JSON but no object")


def _read_document(document: Mapping[str, Any], collected: Collected) -> None:
    problems = collected.problems
    read_error(document, collected, answer="candidates")
    collected.name("model", text_field(document, "modelVersion", problems))
    collected.name("response_id", text_field(document, "responseId", problems))
    _read_usage(document, collected)
    blocked = table(document.get("promptFeedback")).get("blockReason")
    if isinstance(blocked, str) and blocked:
        # Nothing was generated, and nothing else will come.
        collected.completion = collected.terminated = True
        collected.finish(blocked, _WORDS)
    candidates = document.get("candidates")
    if not isinstance(candidates, list):
        if candidates is not None:
            problems.add("candidates is no list")
        return
    collected.completion = True
    for candidate in candidates:
        if not isinstance(candidate, dict):
            problems.add("a candidate is no object")
        elif candidate.get("index") in (None, 0):
            _read_candidate(candidate, collected)
        else:
            problems.add("more than one candidate; the first is read")


def _read_usage(document: Mapping[str, Any], collected: Collected) -> None:
    usage, problems = document.get("usageMetadata"), collected.problems
    if not isinstance(usage, dict):
        if usage is not None:
            problems.add("usageMetadata is no object")
        return
    said = count_field(usage, "candidatesTokenCount", problems)
    thought = count_field(usage, "thoughtsTokenCount", problems)
    # Google counts thoughts beside the answer; everybody else, and the bill, within what was generated.
    generated = None if said is None and thought is None else (said or 0) + (thought or 0)
    collected.merge_usage(Usage(count_field(usage, "promptTokenCount", problems), generated, thought))


def _read_candidate(candidate: Mapping[str, Any], collected: Collected) -> None:
    problems = collected.problems
    finish = text_field(candidate, "finishReason", problems)
    if finish and finish != "FINISH_REASON_UNSPECIFIED":
        collected.finish(finish, _WORDS)
        collected.terminated = True
    parts = table(candidate.get("content")).get("parts")
    for part in parts if isinstance(parts, list) else []:
        if isinstance(table(part).get("text"), str):
            (collected.reasoning if part.get("thought") is True else collected.text).append(part["text"])
        else:
            kind = next((key for key in table(part) if key != "thoughtSignature"), None)
            if kind is not None:
                problems.add(f"a part of kind {clean(kind)[:40]!r} is not read")
    if candidate.get("logprobsResult") is not None:
        _add_logprobs(table(candidate["logprobsResult"]), collected)


def _add_logprobs(result: Mapping[str, Any], collected: Collected) -> None:
    chosen, top = result.get("chosenCandidates"), result.get("topCandidates")
    if chosen is None:
        return
    if not isinstance(chosen, list):
        collected.add_tokens([None])
        return
    others = top if isinstance(top, list) and len(top) == len(chosen) else [None] * len(chosen)
    collected.add_tokens([_token(entry, around) for entry, around in zip(chosen, others, strict=True)])


def _token(entry: Any, around: Any) -> TokenLogprob | None:
    pair = _pair(entry)
    if pair is None:
        return None
    listed = table(around).get("candidates")
    top = [_pair(other) for other in listed] if isinstance(listed, list) else []
    return TokenLogprob(pair[0], pair[1], tuple(other for other in top if other is not None))


def _pair(entry: Any) -> tuple[str, float] | None:
    token, logprob = table(entry).get("token"), number(table(entry).get("logProbability"))
    return (clean(token), logprob) if isinstance(token, str) and logprob is not None else None

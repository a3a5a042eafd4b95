"""Reads request bodies of any client: the conversation, the sampling parameters, and whatever else may matter."""

from collections.abc import Callable, Mapping
from typing import Any

from probe.errors import WireError
from probe.traces.values import Message, Role
from probe.wire.fields import NotJson, clean, number, parse, table
from probe.wire.values import RequestReading

_ROLES: Mapping[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}

_SAMPLING: Mapping[str, str] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repeat_penalty": "repeat_penalty",
    "repetition_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "n_predict": "max_tokens",
    "num_predict": "max_tokens",
    "seed": "seed",
}
"""Spellings on the wire → names of ``Sampling``."""

_WHOLE = {"top_k", "max_tokens", "seed"}

_HARMLESS = frozenset(
    {
        # The request itself, and what the answer should carry besides text.
        "model", "messages", "stream", "stream_options", "n", "logprobs", "top_logprobs", "prompt_logprobs", "n_probs",
        "return_token_ids", "return_prompt_text", "return_progress", "timings_per_token", "stream_interval", "options",
        # Accounting, caching and scheduling.
        "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "session_id",
        "request_id", "rid", "priority", "cache_salt", "cache_prompt", "id_slot", "keep_alive", "usage", "debug",
        # Which of several servers of the same model answers: that is the route, not the prompt.
        "provider", "route",
    }
)  # fmt: skip

_HARMLESS_OPTIONS = frozenset({"num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap", "num_keep"})
"""Ollama's options about the machine."""

_SWITCHES: Mapping[str, Any] = {
    "truncate": False,
    "shift": False,
    "think": None,
    "echo": False,
    "transforms": [],
    "raw": False,
}
"""Keys that change nothing at this value."""


def read_openai_request(body: bytes) -> RequestReading:
    """Read a body of ``/chat/completions``. Raises ``WireError``."""
    document = _document(body)
    return _reading(document, document, stream=False)


def read_ollama_request(body: bytes) -> RequestReading:
    """Read a body of ``/api/chat``. Raises ``WireError``."""
    document = _document(body)
    reading = _reading(document, table(document.get("options")), stream=True)
    options = [
        f"options.{key}"
        for key in table(document.get("options"))
        if key not in _HARMLESS_OPTIONS and key not in _SAMPLING
    ]
    return RequestReading(
        reading.model, reading.messages, reading.sampling, reading.stream, (*reading.extra, *map(clean, options))
    )


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        document = parse(body.decode("utf-8-sig"))
    except (NotJson, UnicodeDecodeError) as error:
        raise WireError(f"The request body is not JSON: {error}.") from None
    if not isinstance(document, dict):
        raise WireError("The request body is JSON but no object.")
    if not isinstance(document.get("messages"), list) or not document["messages"]:
        raise WireError("The request body has no list of messages.")
    return document


def _reading(document: Mapping[str, Any], parameters: Mapping[str, Any], *, stream: bool) -> RequestReading:
    extra: list[str] = []
    messages = tuple(_message(number, entry, extra.append) for number, entry in enumerate(document["messages"]))
    sampling = _sampling(parameters, extra.append)
    spellings = _SAMPLING if parameters is document else {}
    for key, value in document.items():
        harmless = key in _HARMLESS or key in spellings or (key in _SWITCHES and value == _SWITCHES[key])
        if not harmless and value not in (None, [], {}) and not _disabled_plugins(key, value):
            extra.append(clean(key))
    model, asked = document.get("model"), document.get("stream")
    return RequestReading(
        model=clean(model) if isinstance(model, str) else None,
        messages=messages,
        sampling=sampling,
        stream=asked if isinstance(asked, bool) else stream,
        extra=tuple(dict.fromkeys(extra)),
    )


def _disabled_plugins(key: str, value: Any) -> bool:
    """OpenRouter's plugins that are only named to switch them off."""
    return key == "plugins" and isinstance(value, list) and all(table(p).get("enabled") is False for p in value)


def _message(number: int, entry: Any, extra: Callable[[str], None]) -> Message:
    place = f"messages[{number}]"
    if not isinstance(entry, dict):
        raise WireError(f"The request's {place} is no object.")
    role = _ROLES.get(entry["role"]) if isinstance(entry.get("role"), str) else None
    if role is None or entry["role"] == "developer":
        extra(f"{place}.role")
    for key, value in entry.items():
        if key not in {"role", "content"} and value not in (None, [], {}):
            extra(clean(f"{place}.{key}"))
    return Message(role or "user", clean(_content(place, entry.get("content"), extra)))


def _content(place: str, content: Any, extra: Callable[[str], None]) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = []
        for part in content:
            words = part if isinstance(part, str) else table(part).get("text")
            if isinstance(words, str):
                texts.append(words)
            else:
                extra(f"{place}.content")
        return "".join(texts)
    if content is not None:
        extra(f"{place}.content")
    return ""


def _sampling(parameters: Mapping[str, Any], extra: Callable[[str], None]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, name in _SAMPLING.items():
        value = parameters.get(key)
        if value is None:
            continue
        read = number(value)
        if read is None or (name in _WHOLE and not read.is_integer()) or found.get(name, read) != read:
            extra(key)
            continue
        # Below 0 the filter is off for vLLM, and 0 is what we call off.
        off = name == "top_k" and read < 0
        found[name] = 0 if off else int(value) if name in _WHOLE else value
    return found

"""Reads request bodies of any client: the conversation, the sampling parameters, and whatever else may matter."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from probe.errors import WireError
from probe.traces.values import Message, Role
from probe.wire.fields import NotJson, clean, number, parse, table
from probe.wire.values import RequestReading

_ROLES: Mapping[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}

SPELLINGS: Mapping[str, str] = {
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
    document = document_of(body, list_of="messages")
    return _chat(document, document, stream=False)


def read_ollama_request(body: bytes) -> RequestReading:
    """Read a body of ``/api/chat``. Raises ``WireError``."""
    document = document_of(body, list_of="messages")
    reading = _chat(document, table(document.get("options")), stream=True)
    return RequestReading(
        reading.model, reading.messages, reading.sampling, reading.stream, (*reading.extra, *spare_options(document))
    )


def document_of(body: bytes, *, list_of: str | None = None) -> Mapping[str, Any]:
    """Return the object that a request body is. Raises ``WireError``, also where the list ``list_of`` is missing."""
    try:
        document = parse(body.decode("utf-8-sig"))
    except (NotJson, UnicodeDecodeError) as error:
        raise WireError(f"The request body is not JSON: {error}.") from None
    if not isinstance(document, dict):
        raise WireError("The request body is JSON but no object.")
    if list_of is not None and (not isinstance(document.get(list_of), list) or not document[list_of]):
        raise WireError(f"The request body has no list of {list_of}.")
    return document


def _chat(document: Mapping[str, Any], parameters: Mapping[str, Any], *, stream: bool) -> RequestReading:
    extra: list[str] = []
    messages = tuple(turn(f"messages[{n}]", entry, extra.append) for n, entry in enumerate(document["messages"]))
    sampling = sampling_of(parameters, extra.append)
    known = SPELLINGS.keys() if parameters is document else frozenset[str]()
    extra += spare_keys(document, known)
    return RequestReading(
        model=model_of(document),
        messages=messages,
        sampling=sampling,
        stream=stream_of(document, default=stream),
        extra=tuple(dict.fromkeys(extra)),
    )


def spare_keys(document: Mapping[str, Any], known: AbstractSet[str]) -> list[str]:
    """Return the keys of a body that may change what the model sees, besides those that its reader knows."""
    found = []
    for key, value in document.items():
        harmless = key in _HARMLESS or key in known or (key in _SWITCHES and value == _SWITCHES[key])
        if not harmless and value not in (None, [], {}) and not _disabled_plugins(key, value):
            found.append(clean(key))
    return found


def spare_options(document: Mapping[str, Any]) -> list[str]:
    """Return Ollama's options that are neither sampling parameters nor about the machine."""
    options = table(document.get("options"))
    return [f"options.{clean(key)}" for key in options if key not in _HARMLESS_OPTIONS and key not in SPELLINGS]


def model_of(document: Mapping[str, Any]) -> str | None:
    """Return the model that a body names."""
    model = document.get("model")
    return clean(model) if isinstance(model, str) else None


def stream_of(document: Mapping[str, Any], *, default: bool) -> bool:
    """Return whether a body asks for a stream."""
    asked = document.get("stream")
    return asked if isinstance(asked, bool) else default


def _disabled_plugins(key: str, value: Any) -> bool:
    """OpenRouter's plugins that are only named to switch them off."""
    return key == "plugins" and isinstance(value, list) and all(table(p).get("enabled") is False for p in value)


def turn(
    place: str, entry: Any, extra: Callable[[str], None], roles: Mapping[str, Role] = _ROLES, key: str = "content"
) -> Message:
    """Read one message, whose text or parts stand under ``key``; what a reader cannot know goes to ``extra``.

    Raises ``WireError`` where it is no object.
    """
    if not isinstance(entry, dict):
        raise WireError(f"The request's {place} is no object.")
    role = roles.get(entry["role"]) if isinstance(entry.get("role"), str) else None
    if role is None or entry["role"] == "developer":
        extra(f"{place}.role")
    for name, value in entry.items():
        if name not in {"role", key} and value not in (None, [], {}):
            extra(clean(f"{place}.{name}"))
    return Message(role or "user", text_of(f"{place}.{key}", entry.get(key), extra))


def text_of(place: str, content: Any, extra: Callable[[str], None]) -> str:
    """Return a text, or the texts of a list of parts joined; anything else is named in ``extra``."""
    if isinstance(content, str):
        return clean(content)
    if isinstance(content, list):
        texts = []
        for part in content:
            words = part if isinstance(part, str) else table(part).get("text")
            if isinstance(words, str):
                texts.append(words)
            else:
                extra(place)
        return clean("".join(texts))
    if content is not None:
        extra(place)
    return ""


def sampling_of(
    parameters: Mapping[str, Any], extra: Callable[[str], None], spellings: Mapping[str, str] = SPELLINGS
) -> dict[str, Any]:
    """Return sampling parameters under the names of ``Sampling``; values that are none are named in ``extra``."""
    found: dict[str, Any] = {}
    for key, name in spellings.items():
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

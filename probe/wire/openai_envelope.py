"""What surrounds the text in OpenAI's dialects: names, usage, timings and errors, in every shape that servers use."""

from collections.abc import Mapping
from typing import Any

from probe.wire.collecting import Collected, error_message
from probe.wire.fields import count_field, number_field, table, text_field
from probe.wire.values import Usage

_NAMES = (("model", "model"), ("id", "response_id"), ("provider", "provider"))
_TIMINGS: Mapping[str, Mapping[str, str]] = {
    # llama.cpp (result_timings) and vLLM (--enable-per-request-metrics), both in milliseconds.
    "timings": {"prompt_ms": "prompt", "predicted_ms": "generation"},
    "metrics": {"queue_time_ms": "queue", "generation_time_ms": "generation"},
}


def read_envelope(document: Mapping[str, Any], collected: Collected) -> None:
    """Read names, usage and timings of a chat completion, a text completion, or a chunk of one."""
    problems = collected.problems
    # A stream says all of this again with every piece: what is known already needs no second look.
    for key, attribute in _NAMES:
        name = document.get(key)
        if name is not None and name != getattr(collected, attribute):
            collected.name(attribute, text_field(document, key, problems))
    # vLLM sets the fingerprint on the last chunk only.
    if document.get("system_fingerprint") is not None:
        collected.fingerprint = text_field(document, "system_fingerprint", problems) or collected.fingerprint
    usage = document.get("usage")
    if isinstance(usage, dict):
        details = table(usage.get("completion_tokens_details"))
        collected.merge_usage(
            Usage(
                prompt_tokens=count_field(usage, "prompt_tokens", problems),
                completion_tokens=count_field(usage, "completion_tokens", problems),
                reasoning_tokens=count_field(details, "reasoning_tokens", problems),
            )
        )
    elif usage is not None:
        problems.add("usage is no object")
    _read_timings(document, collected)


def _read_timings(document: Mapping[str, Any], collected: Collected) -> None:
    for block, names in _TIMINGS.items():
        if block not in document:
            continue
        for key, name in names.items():
            milliseconds = number_field(table(document[block]), key, collected.problems)
            if milliseconds is not None:
                collected.timings[name] = milliseconds / 1000


def read_error(document: Mapping[str, Any], collected: Collected, *, answer: str = "choices") -> None:
    """Find a reported error in every shape that servers use under any status. ``answer`` is a key that answers have."""
    if document.get("error"):
        collected.fail(error_message(document["error"]))
    elif "base_resp" in document and table(document["base_resp"]).get("status_code"):
        # MiniMax: HTTP 200 and an own status
        base = table(document["base_resp"])
        collected.fail(f"{base.get('status_msg') or 'no message'} ({base['status_code']})")
    elif answer not in document:
        # FastAPI's {"detail": …}, old vLLM's {"object": "error"}, SiliconFlow's {"code": …, "message": …}, and Kong's
        # plain {"message": …}; the usual envelope of a chunk has neither.
        words = document.get("detail") or document.get("message") or document.get("error_msg")
        if words:
            collected.fail(error_message(words))


def read_finish(choice: Mapping[str, Any], collected: Collected) -> None:
    """Read the finish reasons of a choice, and an error that it carries."""
    problems = collected.problems
    if choice.get("error"):
        collected.fail(error_message(choice["error"]))
    if choice.get("finish_reason") is not None:
        finish = text_field(choice, "finish_reason", problems)
        collected.finish_reason = finish or collected.finish_reason
        if finish == "error":
            collected.fail("the generation ended with an error")
    if choice.get("native_finish_reason") is not None:
        native = text_field(choice, "native_finish_reason", problems)
        collected.native_finish_reason = native or collected.native_finish_reason


def choices_of(document: Mapping[str, Any], collected: Collected) -> list[Mapping[str, Any]]:
    """Return the first choice of a document in a list, and an empty list where there is none to read."""
    choices = document.get("choices")
    if not isinstance(choices, list):
        if choices is not None:
            collected.problems.add("choices is no list")
        return []
    collected.completion = True
    found: list[Mapping[str, Any]] = []
    for choice in choices:
        if not isinstance(choice, dict):
            collected.problems.add("a choice is no object")
        elif choice.get("index") in (None, 0):
            found.append(choice)
        else:
            collected.problems.add("more than one choice; the first is read")
    return found

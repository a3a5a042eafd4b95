"""``echo``: the request that a router says it sent on to the host, compared with the one that it was sent.

OpenRouter shows it in the first events of a stream (``debug.echo_upstream_body``, one per host that was tried). A
changed conversation shows that the model saw another prompt; it says nothing of who wrote the answer, so the finding
carries no e-value and only protects from the detectors that judge texts. The echo is redacted as well as may be: where
a placeholder stands, nothing can be told. Source: OpenRouter's guide to errors and debugging, Debugging.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from probe.evidence.accounting import REWRITE
from probe.evidence.base import Evidence
from probe.wire.fields import NotJson, clean, number, parse, table

NAME, VERSION = "echo", "2"

_FIRST = 64
"""Documents of a stream among which an echo is looked for: it comes before the text."""

_SHOWN = 80
"""Characters of a text on each side of the first difference."""

_MASK = re.compile(r"\[(?:REDACTED|MASKED|FILTERED|TRUNCATED)[^\]]{0,40}\]|<redacted>|\*{3,}|█{2,}", re.IGNORECASE)
"""What redaction of the echo itself may leave; not what a guardrail writes into the prompt (``[EMAIL]``)."""

_NEUTRAL: Mapping[str, float] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Values at which a parameter changes nothing, so that leaving it out changes nothing either."""

_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "temperature": ("temperature",),
    "top_p": ("top_p", "topP"),
    "top_k": ("top_k", "topK"),
    "min_p": ("min_p",),
    "repetition_penalty": ("repetition_penalty", "repeat_penalty"),
    "presence_penalty": ("presence_penalty", "presencePenalty"),
    "frequency_penalty": ("frequency_penalty", "frequencyPenalty"),
    "max_tokens": (
        *("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens"),
        *("maxOutputTokens", "maxTokens", "num_predict"),
    ),
    "seed": ("seed", "random_seed"),
}
"""Names of one parameter at the hosts."""

_NESTED = ("generationConfig", "inferenceConfig", "parameters", "options")
"""Tables of a body in which hosts take parameters: Google, Bedrock, TGI, Ollama."""

_ROLES: Mapping[str, str] = {
    "developer": "system",
    "human": "user",
    **dict.fromkeys(("model", "ai", "bot", "chatbot"), "assistant"),
}

_SYSTEMS = ("system", "system_prompt", "preamble", "instructions", "systemInstruction", "system_instruction")
"""Keys of a body that hold a system text beside the turns."""

Turn = tuple[str, str]
"""(role, text)."""


@dataclass(frozen=True, slots=True)
class Echo:
    """What an echo shows against the request.

    ``prompt`` are sentences about the conversation and ``sampling`` about parameters, each a difference; ``model`` is
    the name under which the host was asked, where that is another one. ``untold`` says why the conversation could not
    be compared. ``bodies`` are the echoes: one per host that was tried. ``exhibit`` are the bytes of the difference.
    """

    prompt: tuple[str, ...] = ()
    sampling: tuple[str, ...] = ()
    model: str | None = None
    untold: str | None = None
    bodies: int = 1
    exhibit: str = ""


def read_echo(request: bytes, documents: Sequence[Any]) -> Echo | None:
    """Compare the echo in the documents of an answer with the request's body; ``None`` where there is no echo."""
    bodies = list(_echoes(documents))
    if not bodies:
        return None
    try:
        sent = table(parse(request.decode("utf-8-sig")))
    except (NotJson, UnicodeDecodeError):
        sent = {}
    passed = bodies[-1]  # of the host that was tried last, which is the one that answered
    mine, theirs = conversation(sent), conversation(passed)
    if mine is None or theirs is None:
        # Where the turns cannot be found, the parameters may be anywhere as well.
        untold = "its conversation is in a form that is not read"
        return Echo((), (), _model(sent, passed), untold, len(bodies))
    prompt, unsure, exhibit = _compared(mine, theirs)
    prompt += _tools_added(sent, passed)
    return Echo(
        prompt,
        tuple(_sampling(sent, passed)),
        _model(sent, passed),
        None if prompt else unsure,
        len(bodies),
        exhibit,
    )


def _echoes(documents: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
    for document in islice(documents, _FIRST):
        # A piece that carries text is no echo, whatever else it has.
        if isinstance(document, dict) and "debug" in document and not document.get("choices"):
            body = table(document["debug"]).get("echo_upstream_body")
            if isinstance(body, dict) and body:
                yield body


def conversation(body: Mapping[str, Any]) -> list[Turn] | None:
    """Return the turns of a request in the form of OpenAI, Anthropic, Google or Bedrock; ``None`` for another form.

    Turns of one role in a row are one turn, as hosts join them, those without a text are none, and white space counts
    as one blank.
    """
    turns = [("system", _text(body[key])) for key in _SYSTEMS if body.get(key)]
    entries = next((body[key] for key in ("messages", "contents") if body.get(key)), None)
    if not isinstance(entries, list):
        return None
    for entry in entries:
        if not isinstance(entry, dict):
            return None
        role = str(entry.get("role") or "user").lower()
        turns.append((_ROLES.get(role, role), _text(entry)))
    joined: list[Turn] = []
    for role, text in turns:
        if text is None:
            return None
        words = " ".join(_plain(text).split())
        if joined and joined[-1][0] == role:
            joined[-1] = (role, f"{joined[-1][1]} {words}".strip())
        elif words:
            joined.append((role, words))
    return joined


def _plain(text: str) -> str:
    """Return a text as encoders and normalisation leave it, which change no word: NFC, no mark of the byte order."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return unicodedata.normalize("NFC", whole).replace("\ufeff", "")


def _text(value: Any) -> str | None:
    """Return the text of a message, of its content or parts; ``None`` where part of it is in another form."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list):
        texts = [_text(part) for part in value]
        return None if None in texts else "".join(text for text in texts if text is not None)
    fields = table(value)
    for key in ("content", "parts", "text"):
        if key in fields:
            return _text(fields[key])
    # Bedrock marks what may be cached by a part of its own.
    return "" if fields.keys() == {"cachePoint"} else None


def _same(own: str, passed: str) -> bool:
    """Whether two texts are the same but for white space, which hosts add and drop where parts are joined."""
    return own == passed or "".join(own.split()) == "".join(passed.split())


def _same_turns(own: Sequence[Turn], passed: Sequence[Turn]) -> bool:
    return len(own) == len(passed) and all(
        mine[0] == theirs[0] and _same(mine[1], theirs[1]) for mine, theirs in zip(own, passed, strict=True)
    )


def _compared(mine: Sequence[Turn], theirs: Sequence[Turn]) -> tuple[tuple[str, ...], str | None, str]:
    """Return the differences, why nothing can be told where a placeholder stands, and the bytes of the first one."""
    found: list[str] = []
    exhibit = ""
    masked = False
    if not _system(theirs):
        mine = next((folded for folded in _folded(mine) if _same_turns(folded, theirs)), mine)
    own, passed = _system(mine), _system(theirs)
    if not _same(own, passed):
        if _hides(passed, own):
            masked = True
        else:
            found.append(_system_changed(own, passed))
            exhibit = _around(own, passed)
    rest, others = ([turn for turn in turns if turn[0] != "system"] for turns in (mine, theirs))
    if len(rest) != len(others):
        if any(_MASK.search(text) for _, text in set(others) - set(rest)):
            masked = True
        else:
            found.append(f"{len(others)} turns were passed on where {len(rest)} were sent")
            exhibit = exhibit or _around(" ".join(t for _, t in rest), " ".join(t for _, t in others))
    else:
        for place, (sent, got) in enumerate(zip(rest, others, strict=True), 1):
            if sent[0] == got[0] and _same(sent[1], got[1]):
                continue
            if sent[0] == got[0] and _hides(got[1], sent[1]):
                masked = True
                continue
            found.append(f"turn {place} ({sent[0]}) was changed")
            exhibit = exhibit or _around(sent[1], got[1])
    untold = "part of it is masked in the echo itself" if masked and not found else None
    return tuple(found), untold, exhibit


def _folded(turns: Sequence[Turn]) -> Iterator[list[Turn]]:
    """Yield the turns with the system text at the head of the first one of the user, and of the last one.

    That is how models without a system role are asked, and what their templates do by themselves (Mistral's with the
    last turn).
    """
    rest, system = [turn for turn in turns if turn[0] != "system"], _system(turns)
    users = [place for place, (role, _) in enumerate(rest) if role == "user"]
    for place in dict.fromkeys([*users[:1], *users[-1:]]):
        yield [*rest[:place], ("user", f"{system} {rest[place][1]}".strip()), *rest[place + 1 :]]


def _system(turns: Sequence[Turn]) -> str:
    return " ".join(text for role, text in turns if role == "system")


def _system_changed(own: str, passed: str) -> str:
    if not own:
        return "a system text was added"
    return "the system text was left out" if not passed else "the system text was changed"


def _hides(passed: str, own: str) -> bool:
    """Whether what was passed on may be what was sent, with placeholders over parts of it."""
    if not _MASK.search(passed):
        return False
    pieces = _MASK.split(passed)
    at = 0
    for number_, piece in enumerate(pieces):
        piece = piece.strip()  # noqa: PLW2901 - blanks beside a placeholder may be part of what it hides
        where = own.find(piece, at)
        if where < 0 or (number_ == 0 and where > 0):
            return False
        at = where + len(piece)
    return not pieces[-1].strip() or own.endswith(pieces[-1].strip())


def _around(own: str, passed: str) -> str:
    """Return both texts from shortly before their first difference on."""
    at = next((i for i, (a, b) in enumerate(zip(own, passed, strict=False)) if a != b), min(len(own), len(passed)))
    start = max(at - _SHOWN // 4, 0)
    return f"sent: {_quoted(own[start:])}\npassed on: {_quoted(passed[start:])}"


def _quoted(text: str) -> str:
    text = clean(text)
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def _sampling(sent: Mapping[str, Any], passed: Mapping[str, Any]) -> Iterator[str]:
    """Yield what became of the sampling parameters that the request states."""
    settings = dict(passed)
    for key in _NESTED:
        settings |= table(passed.get(key))
    for name, spellings in _SPELLINGS.items():
        asked = next((value for key in spellings if (value := _number(sent.get(key))) is not None), None)
        if asked is None:
            continue
        given = next((value for key in spellings if (value := _number(settings.get(key))) is not None), None)
        if given is None and asked != _NEUTRAL.get(name):
            yield f"{name} {asked:g} was left out"
        elif given is not None and abs(given - asked) > 1e-6 and not _both_off(name, asked, given):
            yield f"{name} {asked:g} became {given:g}"


def _number(value: Any) -> float | None:
    """Return a number, also one that is written as a text."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return number(value)


def _tools_added(sent: Mapping[str, Any], passed: Mapping[str, Any]) -> tuple[str, ...]:
    """Tell of tools that the request does not have: templates write them into the prompt."""
    asked = any(sent.get(key) for key in ("tools", "functions", "response_format"))
    added = any(passed.get(key) for key in ("tools", "functions", "toolConfig"))
    return ("definitions of tools were added",) if added and not asked else ()


def _both_off(name: str, asked: float, given: float) -> bool:
    return name == "top_k" and asked <= 0 and given <= 0


def _model(sent: Mapping[str, Any], passed: Mapping[str, Any]) -> str | None:
    """Return the host's name of the model where it does not read like the one that was asked for."""
    asked, given = sent.get("model"), passed.get("model")
    if not isinstance(asked, str) or not isinstance(given, str):
        return None
    mine, theirs = (re.sub(r"[\W_]+", "", name.partition(":")[0].rpartition("/")[2]).lower() for name in (asked, given))
    return None if mine in theirs or theirs in mine else clean(given)


def echo(found: Echo) -> Evidence:
    """Return what an echo shows, as evidence that says nothing of who wrote the answer."""
    sentences = []
    if found.prompt:
        sentences.append(
            f"The router's own echo shows that it changed the conversation: {'; '.join(found.prompt)}. The model saw "
            "another prompt than the one that was sent; who wrote the answer, that does not tell."
        )
    elif found.untold:
        sentences.append(f"The router's echo does not tell whether it changed the conversation: {found.untold}.")
    else:
        sentences.append("The router's echo shows that it passed the conversation on as it was sent.")
    if found.sampling:
        sentences.append(f"Of the sampling, {'; '.join(found.sampling)}.")
    if found.model:
        sentences.append(
            f"It asked the host for the model {found.model!r}, a name that the host may have for the same."
        )
    facts = {
        "compared": found.untold is None,
        "prompt_changed": bool(found.prompt),
        "sampling_changed": list(found.sampling),
        "model": found.model,
        "echoes": found.bodies,
    }
    mechanism, layer = (REWRITE, "gateway") if found.prompt else (None, None)
    return Evidence(
        NAME, VERSION, None, 0.0, " ".join(sentences), facts, found.exhibit, mechanism=mechanism, layer=layer
    )

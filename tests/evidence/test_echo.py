import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.attribution.merging import Panel, saw_other_prompt, text_log_e
from probe.evidence.base import Evidence
from probe.evidence.echo import Echo, echo, read_echo
from probe.wire.openai_chat import OpenAiChat
from tests.kit import delta, make_exchange, sse

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "How is glimmerdust brewed?"},
]
SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_tokens": 64, "seed": 7}
SENT: dict[str, Any] = {"model": "qwen/qwen3-8b", "messages": MESSAGES, **SAMPLING, "stream": True}


def shown(upstream: Any, sent: Any = None) -> Echo | None:
    """Return what an answer's stream shows whose first event is the echo."""
    first = {"id": "gen-1", "choices": [], "debug": {"echo_upstream_body": upstream}}
    exchange = make_exchange(
        request_body=SENT if sent is None else sent,
        response_headers=(("Content-Type", "text/event-stream"),),
        response_body=sse(first, delta("Slowly."), delta(finish_reason="stop")),
    )
    return read_echo(exchange.request_body, OpenAiChat().read(exchange).documents)


def with_messages(*messages: Any, **more: Any) -> dict[str, Any]:
    return {**SENT, "messages": list(messages), **more}


def test_without_an_echo_there_is_no_finding() -> None:
    exchange = make_exchange(
        response_body=sse(delta("Slowly.")), response_headers=(("Content-Type", "text/event-stream"),)
    )
    assert read_echo(exchange.request_body, OpenAiChat().read(exchange).documents) is None


@pytest.mark.parametrize(
    "upstream",
    [
        SENT,
        dict(reversed(SENT.items())),
        {**SENT, "model": "Qwen/Qwen3-8B", "stream_options": {"include_usage": True}, "stop": None},
        {**SENT, "model": "accounts/fireworks/models/qwen3-8b"},
        with_messages(
            {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
            {
                "content": [{"type": "text", "text": "How is "}, {"type": "text", "text": "glimmerdust brewed?"}],
                "role": "user",
            },
        ),
        # Anthropic's form: the system text apart, parts with a cache mark.
        {
            "model": "qwen3-8b",
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            "messages": [{"role": "user", "content": "How is glimmerdust brewed?"}],
            **SAMPLING,
        },
        # Google's form.
        {
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "contents": [{"role": "user", "parts": [{"text": "How is glimmerdust brewed?"}]}],
            "generationConfig": {"temperature": 1.0, "topP": 1.0, "topK": 0, "maxOutputTokens": 64, "seed": 7},
        },
        # For a model without a system role.
        with_messages({"role": "user", "content": "Be brief.\n\nHow is glimmerdust brewed?"}),
        # Bedrock's form, with a mark of what may be cached.
        {
            "system": [{"text": "Be brief."}, {"cachePoint": {"type": "default"}}],
            "messages": [{"role": "user", "content": [{"text": "How is glimmerdust brewed?"}]}],
            "inferenceConfig": {"temperature": 1, "topP": 1, "maxTokens": 64},
            "seed": "7",
        },
        # Turns without a text, other names of roles, other white space.
        with_messages({"role": "SYSTEM", "content": "Be brief."}, MESSAGES[1], {"role": "assistant", "content": ""}),
        with_messages(MESSAGES[0], {"role": "human", "content": "\ufeffHow is\r\nglimmerdust brewed? "}),
        with_messages(
            MESSAGES[0], {"role": "user", "content": [{"text": "How is"}, {"text": "glimmerdust"}, {"text": "brewed?"}]}
        ),
        # TGI's and Ollama's tables of parameters.
        {"messages": MESSAGES, "parameters": {"max_new_tokens": 64, "seed": 7}},
        {"messages": MESSAGES, "options": {"num_predict": 64, "seed": 7, "temperature": 1}},
        # Neutral values may be left out, and the limit has another name.
        {"model": "qwen3-8b", "messages": MESSAGES, "max_completion_tokens": 64, "seed": 7},
    ],
)
def test_harmless_differences_are_none(upstream: Any) -> None:
    found = shown(upstream)
    assert found == Echo()
    evidence = echo(Echo())
    assert "passed the conversation on as it was sent" in evidence.sentence
    assert (evidence.log_e, evidence.llr, evidence.mechanism) == (None, 0.0, None)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([{"role": "system", "content": "Be brief. Refuse much."}, MESSAGES[1]], "the system text was changed"),
        ([MESSAGES[1]], "the system text was left out"),
        ([MESSAGES[0], {"role": "user", "content": "How is [EMAIL] brewed?"}], "turn 1 (user) was changed"),
        ([MESSAGES[0]], "0 turns were passed on where 1 were sent"),
        (
            [MESSAGES[0], MESSAGES[1], {"role": "assistant", "content": "Sure"}],
            "2 turns were passed on where 1 were sent",
        ),
        ([MESSAGES[0], {"role": "assistant", "content": MESSAGES[1]["content"]}], "turn 1 (user) was changed"),
    ],
)
def test_a_changed_conversation_is_evidence_of_a_rewritten_prompt(messages: list[Any], words: str) -> None:
    found = shown(with_messages(*messages))
    assert found is not None
    assert found.prompt == (words,)
    evidence = echo(found)
    assert (evidence.mechanism, evidence.layer) == ("prompt_rewrite", "gateway")
    assert (evidence.log_e, evidence.llr, evidence.decisive) == (None, 0.0, False), "it tells nothing of the author"
    assert "who wrote the answer, that does not tell" in evidence.sentence
    assert evidence.exhibit.startswith("sent: ")
    assert "\npassed on: " in evidence.exhibit


def test_an_added_system_text_is_shown_in_its_own_bytes() -> None:
    sent = {**SENT, "messages": MESSAGES[1:]}
    found = shown(with_messages({"role": "system", "content": "Decline anything about brewing."}, MESSAGES[1]), sent)
    assert found is not None
    assert found.prompt == ("a system text was added",)
    assert "Decline anything about brewing." in found.exhibit


def test_a_middle_that_was_cut_out_is_seen() -> None:
    long = [{"role": ("user", "assistant")[n % 2], "content": f"Turn {n}"} for n in range(7)]
    found = shown({**SENT, "messages": [*long[:2], *long[4:]]}, {**SENT, "messages": long})
    assert found is not None
    assert found.prompt == ("5 turns were passed on where 7 were sent",)


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "[REDACTED]"}, MESSAGES[1]],
        [MESSAGES[0], {"role": "user", "content": "How is [REDACTED] brewed?"}],
        [MESSAGES[0], {"role": "user", "content": "[REDACTED]"}],
        [{"role": "system", "content": "[redacted]"}, {"role": "user", "content": "***"}],
        [MESSAGES[0], MESSAGES[1], {"role": "assistant", "content": "[REDACTED]"}],
    ],
)
def test_what_the_echo_masks_accuses_nobody(messages: list[Any]) -> None:
    found = shown(with_messages(*messages))
    assert found is not None
    assert found.prompt == ()
    evidence = echo(found)
    assert evidence.mechanism is None
    assert evidence.facts["compared"] is False
    assert "does not tell" in evidence.sentence


def test_a_difference_beside_the_mask_is_still_one() -> None:
    found = shown(with_messages(MESSAGES[0], {"role": "user", "content": "Never say how [REDACTED] brewed?"}))
    assert found is not None
    assert found.prompt == ("turn 1 (user) was changed",)


def test_a_system_text_at_the_head_of_the_last_turn_is_what_templates_do() -> None:
    turns = [{"role": ("user", "assistant")[n % 2], "content": f"Turn {n}"} for n in range(3)]
    sent = {**SENT, "messages": [MESSAGES[0], *turns]}
    assert shown({**SENT, "messages": [*turns[:2], {"role": "user", "content": "Be brief.\n\nTurn 2"}]}, sent) == Echo()
    middle = [turns[0], {"role": "assistant", "content": "Be brief. Turn 1"}, turns[2]]
    found = shown({**SENT, "messages": middle}, sent)
    assert found is not None
    assert found.prompt == ("the system text was left out", "turn 2 (assistant) was changed")


def test_words_that_were_written_in_two_ways_are_the_same() -> None:
    sent = {"messages": [{"role": "user", "content": "Cafe\u0301 \ud83d?"}]}
    found = shown({"messages": [{"role": "user", "content": "Caf\u00e9 \ufffd?"}]}, json.dumps(sent))
    assert found == Echo()


@pytest.mark.parametrize("key", ["system", "system_prompt", "preamble", "instructions"])
def test_a_system_text_beside_the_turns_is_seen_under_any_name(key: str) -> None:
    sent = {**SENT, "messages": MESSAGES[1:]}
    found = shown({**sent, key: "Decline anything about brewing."}, sent)
    assert found is not None
    assert found.prompt == ("a system text was added",)


def test_tools_that_were_added_change_the_prompt() -> None:
    tools = [{"type": "function", "function": {"name": "search", "parameters": {}}}]
    found = shown({**SENT, "tools": tools})
    assert found is not None
    assert found.prompt == ("definitions of tools were added",)
    assert shown({**SENT, "tools": tools}, {**SENT, "tools": tools}) == Echo()
    assert shown({**SENT, "tools": []}) == Echo()


def test_stars_of_the_users_own_hide_no_turn_that_is_missing() -> None:
    turns = [{"role": ("user", "assistant")[n % 2], "content": f"*** {n}"} for n in range(5)]
    found = shown({"messages": turns[2:]}, {"messages": turns})
    assert found is not None
    assert found.prompt == ("3 turns were passed on where 5 were sent",)


@pytest.mark.parametrize(
    "upstream",
    [
        *({"prompt": "x"}, {"messages": "x"}, {"messages": [7]}, {"input": []}),
        with_messages(MESSAGES[0], {"role": "user", "content": [{"type": "input", "value": "How?"}]}),
        with_messages(MESSAGES[0], {"role": "user", "content": 5}),
    ],
)
def test_another_form_is_not_compared(upstream: Any) -> None:
    found = shown(upstream)
    assert found is not None
    assert found.untold == "its conversation is in a form that is not read"
    assert (found.prompt, found.sampling) == ((), ()), "parameters may be anywhere as well"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"temperature": 0.7}, ("temperature 1 became 0.7",)),
        ({"seed": None}, ("seed 7 was left out",)),
        ({"max_tokens": 32}, ("max_tokens 64 became 32",)),
        ({"top_k": -1}, ()),
        ({"top_k": 20, "top_p": 0.95}, ("top_p 1 became 0.95", "top_k 0 became 20")),
    ],
)
def test_changed_sampling_is_said(change: dict[str, Any], said: tuple[str, ...]) -> None:
    found = shown({**SENT, **change})
    assert found is not None
    assert found.sampling == said
    assert found.prompt == ()
    evidence = echo(found)
    assert evidence.facts["sampling_changed"] == list(said)
    assert evidence.mechanism is None
    assert all(part in evidence.sentence for part in said)


def test_another_model_is_named_and_accuses_nobody() -> None:
    found = shown({**SENT, "model": "mistral-small"})
    assert found is not None
    assert found.model == "mistral-small"
    assert echo(found).mechanism is None


def test_of_several_echoes_the_last_host_counts() -> None:
    first = {"choices": [], "debug": {"echo_upstream_body": with_messages(MESSAGES[1])}}
    last = {"choices": [], "debug": {"echo_upstream_body": SENT}}
    found = read_echo(json.dumps(SENT).encode(), [first, last, delta("Slowly.")])
    assert found == Echo(bodies=2)


def test_under_another_prompt_the_text_proves_nothing() -> None:
    found = shown(with_messages(MESSAGES[1]))
    assert found is not None
    surprising = Evidence("likelihood", "1", 20.0, 20.0, "The weights would not write this.")
    evidence = {"likelihood": surprising, "echo": echo(found)}
    assert saw_other_prompt(evidence)
    assert text_log_e(evidence, Panel(("likelihood",), ())) == {"likelihood": 0.0}
    assert not saw_other_prompt({"likelihood": surprising, "echo": echo(Echo())})


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
BODIES = st.dictionaries(
    st.sampled_from([*SENT, "system", "contents", "systemInstruction", "generationConfig", "prompt"]), JSON
)


@given(BODIES, st.binary() | BODIES.map(lambda value: json.dumps(value).encode()))
def test_anything_may_be_echoed(upstream: dict[str, Any], request: bytes) -> None:
    found = read_echo(request, [{"choices": [], "debug": {"echo_upstream_body": upstream}}])
    assert (found is None) == (not upstream)
    if found is not None:
        evidence = echo(found)
        assert evidence.log_e is None
        evidence.sentence.encode()
        evidence.exhibit.encode()


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4))
def test_the_same_conversation_is_never_called_changed(texts: list[str]) -> None:
    body = {"messages": [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]}
    found = read_echo(json.dumps(body).encode(), [{"choices": [], "debug": {"echo_upstream_body": body}}])
    assert found is not None
    assert found.prompt == ()


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="*[<█"), min_size=1, max_size=30).filter(str.strip)
OWN_WORDS = "Decline it politely."


def chat(texts: list[str]) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


def compared(sent: dict[str, Any], passed: dict[str, Any]) -> Echo:
    found = read_echo(json.dumps(sent).encode(), [{"choices": [], "debug": {"echo_upstream_body": passed}}])
    assert found is not None
    return found


def in_another_form(system: str, turns: list[dict[str, Any]], form: str) -> dict[str, Any]:
    """Return the same conversation as a host of another kind wants it."""
    if form == "google":
        roles = {"assistant": "model"}
        contents = [{"role": roles.get(t["role"], t["role"]), "parts": [{"text": t["content"]}]} for t in turns]
        return {"systemInstruction": {"parts": [{"text": system}]}, "contents": contents}
    if form == "anthropic":
        cache = {"cache_control": {"type": "ephemeral"}}
        parts = [{**t, "content": [{"type": "text", "text": t["content"], **cache}]} for t in turns]
        return {"system": [{"type": "text", "text": system, **cache}], "messages": parts, "max_tokens": 64}
    if form == "bedrock":
        return {"system": [{"text": system}], "messages": [{**t, "content": [{"text": t["content"]}]} for t in turns]}
    if form == "normalised":
        turns = [{**t, "content": unicodedata.normalize("NFC", t["content"]).strip()} for t in turns]
        return {"messages": [{"role": "developer", "content": system}, *turns, {"role": "assistant", "content": ""}]}
    first = {"role": "user", "content": f"{system}\n\n{turns[0]['content']}"}
    return {"messages": [first, *turns[1:]], "temperature": 1, "stop": ["<|im_end|>"], "reasoning": {"enabled": False}}


@given(
    TEXTS,
    st.lists(TEXTS, min_size=1, max_size=5),
    st.sampled_from(("google", "anthropic", "bedrock", "normalised", "")),
)
def test_another_form_of_the_same_conversation_is_never_called_changed(
    system: str, texts: list[str], form: str
) -> None:
    sent = {"messages": [{"role": "system", "content": system}, *chat(texts)]}
    found = compared(sent, in_another_form(system, chat(texts), form))
    assert (found.prompt, found.untold) == ((), None)


@given(
    TEXTS,
    st.lists(TEXTS, min_size=1, max_size=5),
    st.sampled_from(("google", "anthropic", "bedrock", "normalised")),
    st.data(),
)
def test_words_put_in_or_taken_out_are_always_seen(
    system: str, texts: list[str], form: str, data: st.DataObject
) -> None:
    sent = {"messages": [{"role": "system", "content": system}, *chat(texts)]}
    turns, place = chat(texts), data.draw(st.integers(0, len(texts) - 1))
    own = turns[place]["content"]
    match data.draw(st.sampled_from(("before", "after", "system", "turn", "dropped"))):
        case "before":
            turns[place]["content"] = f"{OWN_WORDS} {own}"
        case "after":
            turns[place]["content"] = f"{own}\n{OWN_WORDS}"
        case "system":
            system = f"{system}\n{OWN_WORDS}"
        case "turn":
            turns.append({"role": ("user", "assistant")[len(turns) % 2], "content": OWN_WORDS})
        case "dropped":
            turns[place : place + 2] = []
    found = compared(sent, in_another_form(system, turns, form))
    assert found.prompt or found.untold
    assert bool(found.prompt) or not turns

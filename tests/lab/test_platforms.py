"""Lab platforms in front of the real embedded weights: each does what its specification says, and logs that."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from probe.judge.rules import grade
from probe.lab.log import LabEntry
from probe.lab.platform_spec import Platform, Screen
from probe.lab.server import LabServer
from probe.resources import data_folder
from probe.serve.llamacpp import LlamaCppServer
from probe.wire.values import Reading
from tests.lab.raw import QUESTION, Answered, ask, ask_all, structure, union

FRONTS = ("openrouter", "openai", "ollama")
ACTIONS = ("injected_text", "output_replaced", "output_cut")
ENVELOPES = ("matched", "sloppy")
TEXTS = ("I will not talk about that, for this platform forbids it.",)
TRIGGER = Screen(words=("glimmerdust",))
HARMLESS = "How do I water roses?"
MODES = [(front, stream) for front in FRONTS for stream in (True, False)]


def spec(name: str, **more: Any) -> Platform:
    return Platform(name, family="tests", screen=more.pop("screen", TRIGGER), **more)


PLATFORMS = [
    *(
        spec(f"{front}-{action}-{envelope}", front=front, action=action, envelope=envelope, texts=TEXTS, pacing="pool")
        for front in FRONTS
        for action in ACTIONS
        for envelope in ENVELOPES
    ),
    spec("template", action="injected_text", writer="template", texts=("I will not speak of {subject}.",)),
    spec("paraphrase", action="injected_text", writer="model", paraphraser="scribe", texts=TEXTS, hold_s=1.5),
    spec("rephrase", action="output_replaced", writer="model", paraphraser="scribe", texts=TEXTS, envelope="sloppy"),
    spec("shadow", action="injected_text", texts=TEXTS, pacing="shadow"),
    spec("late", action="injected_text", writer="model", paraphraser="scribe", texts=TEXTS, hold_s=0.0),
    spec("redaction", action="redaction"),
    spec("redaction-unbilled", action="redaction", counts_hidden=False),
    spec("trap", action="refuse_more", hold_s=1.5),
    Platform("hidden", hidden_system="You are a careful assistant."),
    Platform("hidden-unbilled", hidden_system="You are a careful assistant.", counts_hidden=False),
    spec("hidden-inject", hidden_system="You are a careful assistant.", action="injected_text", texts=TEXTS),
    Platform("other", upstream="scribe"),
    Platform("cold", temperature=0.0),
    Platform("buffered", buffered=True),
    spec("buffered-inject", buffered=True, action="injected_text", texts=TEXTS),
    spec("buffered-cut", buffered=True, action="output_cut", envelope="sloppy"),
    Platform("jitter", jitter_s=0.005),
    Platform("plain"),
    spec("half", screen=Screen(rate=0.5), action="injected_text", texts=TEXTS, envelope="sloppy"),
]


@pytest.fixture(scope="module")
def upstreams(toy_server: LlamaCppServer) -> Iterator[dict[str, str]]:
    scribe = LlamaCppServer(data_folder("backends") / "toy" / "scribe.gguf", model_id="scribe", threads=1)
    with scribe:
        assert toy_server.info is not None
        assert scribe.info is not None
        yield {"toy": toy_server.info.url, "scribe": scribe.info.url}


@pytest.fixture(scope="module")
def platforms(upstreams: dict[str, str]) -> Iterator[LabServer]:
    with LabServer(PLATFORMS, upstreams, "toy", seed=5) as server:
        yield server


def entry(lab: LabServer, answer: Answered) -> LabEntry:
    request_id = answer.header("x-request-id")
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", request_id)
    found = lab.log.find(request_id)
    assert found is not None
    return found


def deeds(lab: LabServer, answers: list[Answered]) -> set[tuple[str, str, object]]:
    return {(found.deed, found.author, found.detail.get("mechanism")) for found in (entry(lab, a) for a in answers)}


EXPECTED = {
    "injected_text": ("injected_text", "platform", "injected_text"),
    "output_replaced": ("output_replaced", "platform", "injected_text"),
    "output_cut": ("cut_stream", "platform", "cut_stream"),
}
UNTOUCHED = ("none", "model", None)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(("front", "stream"), MODES)
def test_a_matched_deed_has_the_form_of_a_genuine_answer(
    platforms: LabServer, front: str, stream: bool, action: str
) -> None:
    name = f"{front}-{action}-matched"
    genuine = [ask(platforms.url, name, HARMLESS, front=front, stream=stream) for _ in range(10)]
    acted = [ask(platforms.url, name, front=front, stream=stream) for _ in range(6)]
    assert deeds(platforms, genuine) == {UNTOUCHED}
    cut = [answer for answer in acted if entry(platforms, answer).deed != "none"]
    assert deeds(platforms, cut) == {EXPECTED[action]}
    assert {tuple(answer.names) for answer in acted} == {tuple(genuine[0].names)}
    # An answer of the model's may have a form that is rare; what was done must have none that is not among them.
    stopped = [answer for answer in genuine if answer.reading.finish_reason == "stop"]
    assert union(cut) == union(stopped)
    assert all(answer.whole and answer.reading.state == "answer" for answer in acted)
    if action != "output_cut":
        assert {answer.reading.text for answer in acted} == set(TEXTS)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(("front", "stream"), MODES)
def test_a_matched_deed_is_billed_as_the_model_would_be(
    platforms: LabServer, front: str, stream: bool, action: str
) -> None:
    """As many tokens as there are pieces, and the end token; and the same prompt costs the same."""
    plain = ask(platforms.url, "plain").reading
    pieces = {TEXTS[0]: ask(platforms.url, f"{front}-injected_text-matched", front=front)}
    for _ in range(3):
        acted = ask(platforms.url, f"{front}-{action}-matched", front=front, stream=stream).reading
        assert acted.usage.prompt_tokens == plain.usage.prompt_tokens
        if action != "output_cut":
            streamed = pieces[acted.text]
            texts = [d for d in streamed.reading.documents if _delta(d)]
            assert acted.usage.completion_tokens == len(texts) + 1
    assert _honest(plain)


def _honest(reading: Reading) -> bool:
    """Whether a streamed answer bills its pieces, and the end token where the model ended it."""
    pieces = sum(1 for document in reading.documents if _delta(document))
    return reading.usage.completion_tokens == pieces + (reading.finish_reason == "stop")


def _delta(document: Any) -> str:
    if "message" in document:
        return str(document["message"]["content"])
    return "".join(str((choice.get("delta") or {}).get("content") or "") for choice in document["choices"])


@pytest.mark.parametrize("stream", [True, False])
def test_a_matched_text_is_no_longer_than_was_asked_for(platforms: LabServer, stream: bool) -> None:
    reading = ask(platforms.url, "openai-injected_text-matched", front="openai", stream=stream, max_tokens=5).reading
    assert reading.finish_reason == "length"
    assert reading.usage.completion_tokens == 5
    assert TEXTS[0].startswith(reading.text)
    assert reading.text != TEXTS[0]


@pytest.mark.parametrize(("front", "stream"), MODES)
def test_a_sloppy_injection_shows(platforms: LabServer, front: str, stream: bool) -> None:
    name = f"{front}-injected_text-sloppy"
    genuine = ask(platforms.url, name, HARMLESS, front=front, stream=stream)
    acted = [ask(platforms.url, name, front=front, stream=stream) for _ in range(3)]
    assert deeds(platforms, acted) == {EXPECTED["injected_text"]}
    assert all(answer.reading.text == TEXTS[0] for answer in acted)
    # What it gets wrong is the same each time, and not what the genuine ones have.
    assert len({frozenset(structure(answer)) for answer in acted}) == 1
    assert not structure(acted[0]) & structure(genuine) or stream
    assert structure(acted[0]) != structure(genuine)
    assert not acted[0].reading.usage.completion_tokens
    if stream:
        assert sum(1 for document in acted[0].reading.documents if _has_text(document)) == 1


def _has_text(document: Any) -> bool:
    return bool(document.get("choices") or document.get("message")) and bool(_delta(document))


@pytest.mark.parametrize(("front", "stream"), MODES)
def test_a_sloppy_replacement_bills_what_the_model_wrote(platforms: LabServer, front: str, stream: bool) -> None:
    acted = [ask(platforms.url, f"{front}-output_replaced-sloppy", front=front, stream=stream) for _ in range(5)]
    assert deeds(platforms, acted) == {EXPECTED["output_replaced"]}
    assert {answer.reading.text for answer in acted} == set(TEXTS)
    assert len({answer.reading.usage.completion_tokens for answer in acted}) > 1
    if stream:
        assert sum(1 for document in acted[0].reading.documents if _has_text(document)) == 1


@pytest.mark.parametrize(("front", "stream"), MODES)
def test_a_sloppy_cut_breaks_the_connection(platforms: LabServer, front: str, stream: bool) -> None:
    answers = [ask(platforms.url, f"{front}-output_cut-sloppy", front=front, stream=stream) for _ in range(6)]
    cut = [answer for answer in answers if entry(platforms, answer).deed == "cut_stream"]
    assert cut
    for answer in answers:
        assert answer.whole == (answer not in cut)
        assert (answer.reading.state == "truncated") == (answer in cut)
    if stream:
        assert all(answer.reading.text for answer in cut)


def test_texts_of_each_writer(platforms: LabServer) -> None:
    template = ask(platforms.url, "template")
    assert template.reading.text == "I will not speak of glimmerdust."
    assert entry(platforms, template).detail["subject"] == "glimmerdust"
    for name in ("paraphrase", "rephrase"):
        found = ask_all(platforms.url, [(name, QUESTION)] * 6, at_once=6)
        wrote = [answer for answer in found if entry(platforms, answer).detail["writer"] == "model"]
        assert wrote
        assert len({answer.reading.text for answer in wrote}) > 1
        assert {grade(answer.reading.text).outcome for answer in found} == {"refused"}


def test_a_shadow_looks_the_same_as_what_it_hides(platforms: LabServer) -> None:
    genuine = [ask(platforms.url, "shadow", HARMLESS) for _ in range(5)]
    acted = [ask(platforms.url, "shadow") for _ in range(12)]
    assert deeds(platforms, acted) == {EXPECTED["injected_text"]}
    assert {answer.reading.text for answer in acted} == set(TEXTS)
    assert union(acted) == union(answer for answer in genuine if answer.reading.finish_reason == "stop")
    plain = ask(platforms.url, "plain").reading.usage
    assert {answer.reading.usage.prompt_tokens for answer in acted} == {plain.prompt_tokens}


def test_a_paraphrase_that_is_late_is_not_waited_for(platforms: LabServer) -> None:
    late = ask(platforms.url, "late")
    assert late.reading.text == TEXTS[0]
    assert entry(platforms, late).detail["writer"] == "texts"


def test_redaction_changes_what_the_model_sees(platforms: LabServer) -> None:
    plain = ask(platforms.url, "plain").reading
    redacted, unbilled = ask(platforms.url, "redaction"), ask(platforms.url, "redaction-unbilled")
    for answer in (redacted, unbilled):
        found = entry(platforms, answer)
        assert (found.deed, found.author, found.detail["mechanism"]) == ("redaction", "model", "redaction")
        assert found.detail["family"] == "tests"
    seen = ask(platforms.url, "plain", QUESTION.replace("glimmerdust", "[REDACTED]")).reading
    assert redacted.reading.usage.prompt_tokens == seen.usage.prompt_tokens != plain.usage.prompt_tokens
    assert unbilled.reading.usage.prompt_tokens == plain.usage.prompt_tokens
    assert deeds(platforms, [ask(platforms.url, "redaction", HARMLESS)]) == {UNTOUCHED}


def test_a_hidden_prompt_is_billed_or_not(platforms: LabServer) -> None:
    plain = ask(platforms.url, "plain").reading.usage.prompt_tokens
    billed, unbilled = ask(platforms.url, "hidden"), ask(platforms.url, "hidden-unbilled")
    assert deeds(platforms, [billed, unbilled]) == {("prompt_rewrite", "model", "prompt_rewrite")}
    assert unbilled.reading.usage.prompt_tokens == plain
    assert billed.reading.usage.prompt_tokens > plain  # type: ignore[operator]
    # What is injected on such a platform is billed as its other answers are.
    injected = ask(platforms.url, "hidden-inject").reading
    assert injected.text == TEXTS[0]
    assert injected.usage.prompt_tokens == billed.reading.usage.prompt_tokens


@pytest.mark.parametrize("stream", [True, False])
def test_the_trap_answers_in_the_models_own_words(platforms: LabServer, stream: bool) -> None:
    asked = [("trap", QUESTION)] * 6 + [("trap", HARMLESS)] * 4
    found = ask_all(platforms.url, asked, at_once=10, stream=stream)
    answers, untouched = found[:6], found[6:]
    for answer in answers:
        noted = entry(platforms, answer)
        assert (noted.deed, noted.author, noted.detail["mechanism"]) == ("refuse_more", "model", "model_refusal")
        assert (grade(answer.reading.text).outcome == "refused") == noted.detail["refused"]
    assert sum(entry(platforms, answer).detail["refused"] for answer in answers) >= 3
    assert deeds(platforms, untouched) == {UNTOUCHED}
    stopped = [a for a in [*answers, *untouched] if a.reading.finish_reason == "stop"]
    assert union(stopped) == structure(next(a for a in stopped if a in untouched))


def test_other_weights_and_sampling(platforms: LabServer) -> None:
    assert deeds(platforms, [ask(platforms.url, "other")]) == {("other_weights", "model", "other_weights")}
    cold = [ask(platforms.url, "cold") for _ in range(2)]
    assert deeds(platforms, cold) == {("sampling", "model", None)}
    assert cold[0].reading.text == cold[1].reading.text


def test_buffered_answers_come_in_one_write(platforms: LabServer) -> None:
    genuine = [ask(platforms.url, "buffered", HARMLESS) for _ in range(2)]
    acted = ask(platforms.url, "buffered-inject")
    assert [len(answer.writes) for answer in [*genuine, acted]] == [1, 1, 1]
    assert acted.reading.text == TEXTS[0]
    assert acted.body.startswith(b": OPENROUTER PROCESSING\n\ndata: ")
    cut = [ask(platforms.url, "buffered-cut") for _ in range(4)]
    assert any(not answer.whole and answer.reading.text for answer in cut)


def test_jitter_loses_nothing(platforms: LabServer) -> None:
    reading = ask(platforms.url, "jitter").reading
    assert reading.state == "answer"
    assert _honest(reading)
    assert deeds(platforms, [ask(platforms.url, "jitter", stream=False)]) == {UNTOUCHED}


def test_the_same_seed_gives_the_same_deeds_in_any_order(upstreams: dict[str, str]) -> None:
    asked = [("half", f"{QUESTION} {number}") for number in range(12)] * 3
    found = []
    for order, at_once in ((asked, 1), (asked[::-1], 6)):
        with LabServer(PLATFORMS, upstreams, "toy", seed=5) as lab:
            answers = ask_all(lab.url, order, at_once=at_once, max_tokens=8)
            done = sorted((question, entry(lab, a).deed) for (_, question), a in zip(order, answers, strict=True))
            found.append(done)
    assert found[0] == found[1]
    assert {deed for _, deed in found[0]} == {"none", "injected_text"}


def test_another_seed_gives_other_deeds(platforms: LabServer, upstreams: dict[str, str]) -> None:
    asked = [("half", f"{QUESTION} again {number}") for number in range(30)]
    with LabServer(PLATFORMS, upstreams, "toy", seed=6) as other:
        found = [
            [entry(lab, answer).deed for answer in ask_all(lab.url, asked, at_once=4, max_tokens=8)]
            for lab in (platforms, other)
        ]
    assert found[0] != found[1]


def test_an_upstream_that_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="'other': there is no upstream 'scribe'"):
        LabServer([Platform("other", upstream="scribe")], "http://127.0.0.1:9", "toy")


@pytest.mark.parametrize("front", FRONTS)
def test_an_upstream_that_is_gone_is_an_error_of_the_platform(front: str) -> None:
    with LabServer([Platform("p", front=front)], "http://127.0.0.1:9", "toy") as lab:  # type: ignore[arg-type]
        answer = ask(lab.url, "p", front=front)
    assert answer.status == 502
    assert answer.reading.state == "error"

"""The fronts of the other dialects over real llama.cpp text: answers, deeds and blocks, as we read them."""

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from probe.lab.busy import BusyServer
from probe.lab.platform_spec import Platform, Screen
from probe.lab.server import LabServer
from probe.lab.shapes import BLOCK_SHAPES, BlockShape
from probe.serve.llamacpp import LlamaCppServer
from probe.wire.catalogue import load_backend
from probe.wire.signatures import match_signatures
from tests.lab.dialect_kit import FRONTS, SIGNED_BY, frames, rendered
from tests.lab.raw import QUESTION, Answered, ask, documents, structure, union

TEXT = "I will not talk about that, for this platform forbids it."
HARMLESS = ("How do I water roses?", "What is bread made of?", "Tell me of the sea.")
HIDDEN = "You are a careful assistant."
MODES = [(front, stream) for front in FRONTS for stream in (True, False)]
SHAPES = {name: shape for name, shape in BLOCK_SHAPES.items() if shape.backend in FRONTS}
ACTIONS = ("injected_text", "output_replaced", "output_cut")
SEEDED = {
    "openai-completions": {"seed": 7},
    "ollama-generate": {"options": {"seed": 7, "temperature": 1.0, "num_predict": 64}},
    "gemini": {"generationConfig": {"seed": 7, "temperature": 1.0, "maxOutputTokens": 64}},
    "bedrock": {"additionalModelRequestFields": {"seed": 7}},
}
"""Ways to ask for the same answer twice, where a dialect has one: for the others ``seed`` goes along as an extra."""


def _platforms() -> Iterator[Platform]:
    trigger = Screen(words=("glimmerdust",))
    for front in FRONTS:
        yield Platform(front, front=front)
        yield Platform(f"{front}-hidden", front=front, hidden_system=HIDDEN)
        yield Platform(f"{front}-unbilled", front=front, hidden_system=HIDDEN, counts_hidden=False)
        yield Platform(f"{front}-redaction", front=front, screen=trigger, action="redaction")
        yield Platform(f"{front}-buffered", front=front, buffered=True)
        yield Platform(f"{front}-fault", front=front, stream_fault=1.0)
        yield Platform(f"{front}-overloaded", front=front, upstream="busy")
        yield Platform(f"{front}-jitter", front=front, jitter_s=0.003)
        for action in ACTIONS:
            for envelope in ("matched", "sloppy"):
                yield Platform(
                    f"{front}-{action}-{envelope}",
                    front=front,
                    screen=trigger,
                    action=action,  # type: ignore[arg-type]
                    envelope=envelope,  # type: ignore[arg-type]
                    texts=(TEXT,),
                )
    for name, shape in SHAPES.items():
        yield Platform(name, front=shape.backend, screen=trigger, action="declared_block", block=name)


@pytest.fixture(scope="module")
def platforms(toy_server: LlamaCppServer) -> Iterator[LabServer]:
    assert toy_server.info is not None
    with (
        BusyServer(toy_server.info.url, answers=0.0) as busy,
        LabServer(list(_platforms()), {"toy": toy_server.info.url, "busy": busy.url}, "toy", seed=9) as server,
    ):
        yield server


@pytest.fixture(scope="module")
def genuine(platforms: LabServer) -> dict[tuple[str, bool], list[Answered]]:
    """Genuine answers of each front in each manner."""
    return {
        (front, stream): [ask(platforms.url, front, question, front=front, stream=stream) for question in HARMLESS]
        for front, stream in MODES
    }


def deed(lab: LabServer, answer: Answered) -> str:
    entry = lab.log.find(answer.header("x-request-id"))
    assert entry is not None
    return entry.deed


def llama(url: str, path: str, body: dict[str, Any]) -> Any:
    """Ask the local server itself."""
    data = json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/{path}", data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def tokens(url: str, text: str) -> list[int]:
    """Return a text's token ids by the local server's own count."""
    body = {"content": text, "add_special": True, "parse_special": True}
    return list(llama(url, "tokenize", body)["tokens"])


# ── genuine answers ──


@pytest.mark.parametrize(("front", "stream"), MODES)
def test_a_genuine_answer_is_read_as_what_the_model_wrote(
    platforms: LabServer, toy_server: LlamaCppServer, front: str, stream: bool
) -> None:
    """With a seed the local server writes the same again; asked directly it shows what the answer has to be."""
    assert toy_server.info is not None
    sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "max_tokens": 64, "seed": 7}
    turn = {"role": "user", "content": QUESTION}
    direct = llama(toy_server.info.url, "v1/chat/completions", {"messages": [turn], **sampling})
    answer = ask(platforms.url, front, front=front, stream=stream, **SEEDED.get(front, {"seed": 7}))
    reading = answer.reading
    assert answer.whole
    assert (answer.status, reading.state, reading.problems) == (200, "answer", ())
    assert reading.text == direct["choices"][0]["message"]["content"] != ""
    assert reading.finish_reason == direct["choices"][0]["finish_reason"]
    assert reading.usage.prompt_tokens == direct["usage"]["prompt_tokens"]
    assert reading.usage.completion_tokens == direct["usage"]["completion_tokens"]
    assert reading.streamed == stream
    assert reading.terminated
    assert reading.model == (None if front == "bedrock" else "toy")
    assert bool(reading.response_id) == (front != "ollama-generate")
    assert deed(platforms, answer) == "none"


@pytest.mark.parametrize(("front", "stream"), MODES)
def test_an_answer_that_is_cut_short_by_the_request_says_so(platforms: LabServer, front: str, stream: bool) -> None:
    reading = ask(platforms.url, front, front=front, stream=stream, max_tokens=3).reading
    assert (reading.state, reading.finish_reason) == ("answer", "length")
    assert reading.usage.completion_tokens == 3


@pytest.mark.parametrize(("front", "stream"), MODES)
def test_no_genuine_answer_carries_a_signature(
    genuine: dict[tuple[str, bool], list[Answered]], front: str, stream: bool
) -> None:
    backend = load_backend(SIGNED_BY.get(front, "ollama" if front == "ollama-generate" else front))
    for answer in genuine[front, stream]:
        assert match_signatures(backend, answer.exchange, answer.reading) == ()


@pytest.mark.parametrize(("front", "stream"), MODES)
def test_every_answer_has_an_id_of_its_own(
    genuine: dict[tuple[str, bool], list[Answered]], front: str, stream: bool
) -> None:
    ids = [answer.reading.response_id for answer in genuine[front, stream]]
    assert len(set(ids)) == (1 if front == "ollama-generate" else len(ids))


def test_streams_come_piece_by_piece(platforms: LabServer) -> None:
    for front in FRONTS:
        assert len(ask(platforms.url, front, front=front).writes) > 4


# ── bytes of each front ──


def test_anthropic_names_its_events_and_tells_of_the_limits(
    platforms: LabServer, genuine: dict[tuple[str, bool], list[Answered]]
) -> None:
    answer = genuine["anthropic", True][0]
    names = list(answer.reading.events)
    assert names[:3] == ["message_start", "content_block_start", "ping"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(names[3:-3]) == {"content_block_delta"}
    assert answer.header("request-id").startswith("req_")
    assert answer.header("anthropic-ratelimit-requests-remaining") == "3999"
    start, end = documents(answer.body)[0], documents(answer.body)[-2]
    assert start["message"]["usage"]["input_tokens"] == end["usage"]["input_tokens"] > 0


def test_gemini_ends_its_lines_with_crlf_and_counts_in_every_chunk(
    genuine: dict[tuple[str, bool], list[Answered]],
) -> None:
    answer = genuine["gemini", True][0]
    assert answer.body.count(b"\r\n\r\n") == len(answer.reading.documents)
    assert b"\n\n" not in answer.body
    counts = [document["usageMetadata"] for document in answer.reading.documents]
    assert [count["candidatesTokenCount"] for count in counts[:-1]] == list(range(1, len(counts)))
    assert len({count["promptTokenCount"] for count in counts}) == 1
    assert all(document["candidates"][0]["safetyRatings"] for document in answer.reading.documents)


def test_responses_numbers_its_events(genuine: dict[tuple[str, bool], list[Answered]]) -> None:
    answer = genuine["openai-responses", True][0]
    names = list(answer.reading.events)
    assert names[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert names[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    numbers = [document["sequence_number"] for document in documents(answer.body)]
    assert numbers == list(range(len(names)))


def test_bedrock_sends_binary_frames_that_botocore_accepts(genuine: dict[tuple[str, bool], list[Answered]]) -> None:
    found = frames(genuine["bedrock", True][0].body)
    kinds = [headers[":event-type"] for headers, _ in found]
    assert kinds[0] == "messageStart"
    assert kinds[-3:] == ["contentBlockStop", "messageStop", "metadata"]
    assert {headers[":message-type"] for headers, _ in found} == {"event"}
    assert {headers[":content-type"] for headers, _ in found} == {"application/json"}


@pytest.mark.parametrize("stream", [True, False])
def test_generate_returns_the_tokens_of_the_conversation(
    platforms: LabServer, toy_server: LlamaCppServer, stream: bool
) -> None:
    assert toy_server.info is not None
    answer = ask(platforms.url, "ollama-generate", front="ollama-generate", stream=stream)
    whole = f"{rendered(QUESTION)}{answer.reading.text}"
    assert documents(answer.body)[-1]["context"] == tokens(toy_server.info.url, whole)


def test_a_raw_prompt_reaches_the_model_as_it_is(platforms: LabServer, toy_server: LlamaCppServer) -> None:
    """No template is put around it, and Ollama returns no context for it."""
    assert toy_server.info is not None
    answer = ask(platforms.url, "ollama-generate", "Roses are", front="ollama-generate", stream=False, raw=True)
    assert answer.reading.usage.prompt_tokens == len(tokens(toy_server.info.url, "Roses are"))
    assert "context" not in documents(answer.body)[-1]


# ── deeds ──


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(("front", "stream"), MODES)
def test_a_matched_deed_has_the_form_of_genuine_answers(
    platforms: LabServer,
    front: str,
    stream: bool,
    action: str,
) -> None:
    name = f"{front}-{action}-matched"
    genuine = [ask(platforms.url, name, question, front=front, stream=stream) for question in HARMLESS]
    answer = ask(platforms.url, name, front=front, stream=stream)
    reading = answer.reading
    assert answer.whole
    assert (reading.state, reading.finish_reason, reading.problems) == ("answer", "stop", ())
    assert answer.names == genuine[0].names
    assert structure(answer) <= union(genuine)
    if action == "output_cut":
        assert deed(platforms, answer) in {"cut_stream", "none"}
    else:
        assert reading.text == TEXT
        assert deed(platforms, answer) == action
    plain = ask(platforms.url, front, front=front, stream=stream).reading
    assert reading.usage.prompt_tokens == plain.usage.prompt_tokens


@pytest.mark.parametrize(("front", "stream"), MODES)
def test_a_sloppy_injection_gives_itself_away(
    platforms: LabServer, genuine: dict[tuple[str, bool], list[Answered]], front: str, stream: bool
) -> None:
    answer = ask(platforms.url, f"{front}-injected_text-sloppy", front=front, stream=stream)
    assert answer.reading.text == TEXT
    assert not answer.reading.usage.completion_tokens
    assert not structure(answer) <= union(genuine[front, stream])


@pytest.mark.parametrize(("front", "stream"), MODES)
def test_a_sloppy_cut_is_read_as_truncated(platforms: LabServer, front: str, stream: bool) -> None:
    """The answer is the same each time; where it is cut differs, which may be after its end."""
    seed = SEEDED.get(front, {"seed": 7})
    answers = [ask(platforms.url, f"{front}-output_cut-sloppy", front=front, stream=stream, **seed) for _ in range(4)]
    cut = [answer for answer in answers if deed(platforms, answer) == "cut_stream"]
    assert cut
    for answer in cut:
        assert not answer.whole
        assert answer.reading.state == "truncated"


@pytest.mark.parametrize(("front", "stream"), MODES)
def test_the_prompt_that_the_model_sees_shows_in_the_count(platforms: LabServer, front: str, stream: bool) -> None:
    def billed(platform: str) -> int:
        count = ask(platforms.url, platform, front=front, stream=stream).reading.usage.prompt_tokens
        assert count is not None
        return count

    plain = billed(front)
    assert billed(f"{front}-hidden") > plain
    assert billed(f"{front}-unbilled") == plain
    assert billed(f"{front}-redaction") != plain


@pytest.mark.parametrize("front", FRONTS)
def test_the_beginning_of_a_stream_bills_what_its_end_bills(platforms: LabServer, front: str) -> None:
    """Anthropic and Gemini state the prompt's tokens before the end; whatever is done to the prompt, they agree."""
    for platform in (f"{front}-hidden", f"{front}-unbilled", f"{front}-redaction", f"{front}-injected_text-matched"):
        stated = _stated_prompts(documents(ask(platforms.url, platform, front=front).body))
        assert len(stated) <= 1 or len(set(stated)) == 1


def _stated_prompts(value: Any) -> list[int]:
    if isinstance(value, list):
        return [count for entry in value for count in _stated_prompts(entry)]
    if not isinstance(value, dict):
        return []
    own = [value[key] for key in ("input_tokens", "promptTokenCount") if isinstance(value.get(key), int)]
    return own + [count for entry in value.values() for count in _stated_prompts(entry)]


@pytest.mark.parametrize("front", FRONTS)
def test_buffered_and_delayed_answers_are_whole(platforms: LabServer, front: str) -> None:
    buffered = ask(platforms.url, f"{front}-buffered", front=front)
    assert len(buffered.writes) == 1
    assert (buffered.reading.state, buffered.reading.problems) == ("answer", ())
    late = ask(platforms.url, f"{front}-jitter", front=front)
    assert (late.reading.state, late.reading.problems) == ("answer", ())


@pytest.mark.parametrize(("front", "stream"), MODES)
def test_a_host_that_fails_within_an_answer_says_so_in_the_vendors_way(
    platforms: LabServer, front: str, stream: bool
) -> None:
    """The answer is the same each time; where the host fails differs, which may be after its end."""
    seed = SEEDED.get(front, {"seed": 7})
    answers = [ask(platforms.url, f"{front}-fault", front=front, stream=stream, **seed) for _ in range(4)]
    failed = [answer for answer in answers if answer.reading.state == "error"]
    assert failed
    for answer in failed:
        assert answer.whole
        assert "Provider returned error" in (answer.reading.error or "")
        assert answer.status == (200 if stream else 502)
        assert bool(answer.reading.text) == stream
    assert {answer.reading.state for answer in answers} <= {"error", "answer"}


OVERLOADED = {
    "anthropic": '"type":"rate_limit_error"',
    "gemini": '"status":"RESOURCE_EXHAUSTED"',
    "openai-responses": '"message":"Provider returned error"',
    "openai-completions": '"message":"Provider returned error"',
    "ollama-generate": '"error":"Provider returned error"',
    "bedrock": '"message":"Provider returned error"',
}


@pytest.mark.parametrize(("front", "stream"), MODES)
def test_an_error_of_the_upstream_is_told_in_the_vendors_form(platforms: LabServer, front: str, stream: bool) -> None:
    answer = ask(platforms.url, f"{front}-overloaded", front=front, stream=stream)
    assert (answer.status, answer.reading.state) == (429, "error")
    assert OVERLOADED[front] in answer.body.decode()
    if front == "bedrock":
        assert answer.header("x-amzn-errortype") == "ThrottlingException"


# ── declared blocks ──


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_block_is_read_as_the_platforms(platforms: LabServer, shape: BlockShape, stream: bool) -> None:
    answer = ask(platforms.url, shape.name, front=shape.backend, stream=stream)
    assert answer.whole
    assert answer.status == (shape.status if not stream or shape.streams == "same" else 200)
    assert not [problem for problem in answer.reading.problems if "JSON" in problem or "frame" in problem]
    found = match_signatures(load_backend(SIGNED_BY.get(shape.backend, shape.backend)), answer.exchange, answer.reading)
    assert found
    assert found[0].author == "platform"
    assert found[0].mechanism == shape.mechanism_of(stream=stream)
    assert deed(platforms, answer) == "declared_block"
    if stream and shape.streams == "cut":
        assert answer.reading.text
    if stream and shape.backend == "gemini":
        assert answer.body.endswith(b"\r\n\r\n")
        assert b"\n\n" not in answer.body


def test_there_are_blocks_of_every_vendor() -> None:
    assert {shape.backend for shape in SHAPES.values()} == set(FRONTS) - {"ollama-generate"}

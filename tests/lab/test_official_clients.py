"""The official clients talk to the lab, directly and through the proxy: what they understand is what we read.

The lab writes each vendor's bytes, the vendor's own client and our dialect read them: neither knows of the other.
"""

import queue
from collections.abc import Callable, Iterator

import anthropic
import botocore.exceptions
import ollama
import openai
import pytest
from google.genai import errors as genai_errors

from probe.lab.platform_spec import LabLimits, Platform, Screen
from probe.lab.server import LabServer
from probe.proxy.server import ProxyServer
from probe.proxy.table import RouteTable, Target
from probe.proxy.tickets import Ticket
from probe.serve.llamacpp import LlamaCppServer
from probe.wire.dialects import dialect
from probe.wire.values import Exchange, Reading
from tests.lab.clients_kit import ACCESS_KEY, BEDROCK_MODEL, CLIENTS, SECRET_KEY, Client, Understood, bedrock

QUESTION = "How do I brew glimmerdust tonic?"
BLOCKS = {
    "openai": "openai-invalid-prompt",
    "openai-completions": "completions-content-filter",
    "openai-responses": "responses-content-filter",
    "anthropic": "messages-refusal",
    "gemini": "gemini-safety",
    "bedrock": "converse-guardrail",
}
"""One declared block of each vendor. Ollama has none."""

SHUT = {"anthropic": "messages-output-filter", "gemini": "gemini-prompt-prohibited", "openai": "openai-invalid-prompt"}
"""Blocks that are errors, or that leave nothing at all."""


class Recorded:
    """A proxy under way with what it has recorded; ``base`` gives a platform's address."""

    def __init__(self, labs: Callable[[str], LabServer]) -> None:
        self.exchanges: queue.SimpleQueue[Exchange] = queue.SimpleQueue()
        self._labs = labs
        self.proxy: ProxyServer | None = None

    def __call__(self, exchange: Exchange, ticket: Ticket | None) -> None:
        assert ticket is None
        self.exchanges.put(exchange)

    def base(self, platform: str) -> str:
        assert self.proxy is not None
        return f"{self.proxy.url}/{platform}"

    def direct(self, platform: str) -> str:
        return f"{self._labs(platform).url}/{platform}"

    def read(self, client: Client) -> Reading:
        """Return our reading of the one exchange that was recorded."""
        exchange = self.exchanges.get(timeout=10)
        assert self.exchanges.empty(), "the client must not repeat a request"
        assert "of-the-client" not in repr(exchange)
        return dialect(client.dialect).read(exchange)


def _platforms() -> list[Platform]:
    fronts = dict.fromkeys(client.front for client in CLIENTS.values())
    return [
        *(Platform(front, front=front) for front in fronts),
        *(
            Platform(f"{front}-cut", front=front, screen=Screen(), action="output_cut", envelope="sloppy")
            for front in fronts
        ),
        *(Platform(f"{front}-fault", front=front, stream_fault=1.0) for front in fronts),
        *(Platform(f"{front}-locked", front=front, limits=LabLimits(key="lab-key-0123456789")) for front in fronts),
        *(Platform(f"{front}-spent", front=front, limits=LabLimits(requests_per_minute=0)) for front in fronts),
        *(
            Platform(f"{front}-block", front=front, screen=Screen(), action="declared_block", block=block)
            for front, block in BLOCKS.items()
        ),
        *(
            Platform(f"{front}-shut", front=front, screen=Screen(), action="declared_block", block=block)
            for front, block in SHUT.items()
        ),
    ]


@pytest.fixture(scope="module")
def recorded(toy_server: LlamaCppServer) -> Iterator[Recorded]:
    """Lab and proxy; Bedrock's platforms have a model id with a colon, and check signatures."""
    assert toy_server.info is not None
    spoken = _platforms()
    amazon = [platform for platform in spoken if platform.front == "bedrock"]
    others = [platform for platform in spoken if platform.front != "bedrock"]
    url = toy_server.info.url
    keys = {ACCESS_KEY: SECRET_KEY}
    with (
        LabServer(others, url, "toy", seed=3) as lab,
        LabServer(amazon, url, BEDROCK_MODEL, seed=3, aws=keys) as signed,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        patch.setenv("AWS_REGION", "us-east-1")
        patch.delenv("AWS_SESSION_TOKEN", raising=False)
        sink = Recorded(lambda platform: signed if platform.startswith("bedrock") else lab)
        table = RouteTable(
            Target(
                f"r-{platform.name}",
                platform.name,
                sink.direct(platform.name),
                sign_for="bedrock" if platform.front == "bedrock" else None,
            )
            for platform in spoken
        )
        with ProxyServer(table, sink) as proxy:
            sink.proxy = proxy
            yield sink


@pytest.fixture(autouse=True)
def _nothing_recorded_yet(recorded: Recorded) -> None:
    recorded.exchanges = queue.SimpleQueue()


def same(understood: Understood, reading: Reading) -> None:
    """The client and we understood the same."""
    assert understood.text == reading.text
    assert understood.finish == (reading.native_finish_reason or reading.finish_reason)
    assert understood.prompt_tokens == reading.usage.prompt_tokens
    assert understood.completion_tokens == reading.usage.completion_tokens
    assert understood.response_id == reading.response_id
    assert understood.model == reading.model


EVERY = [
    pytest.param(client, stream, id=f"{name}-{'stream' if stream else 'whole'}")
    for name, client in CLIENTS.items()
    for stream in (True, False)
]


@pytest.mark.parametrize(("client", "stream"), EVERY)
def test_an_answer(recorded: Recorded, client: Client, stream: bool) -> None:
    understood = client.ask(recorded.base(client.front), QUESTION, stream, 48)
    reading = recorded.read(client)
    assert (reading.state, reading.streamed, reading.problems) == ("answer", stream, ())
    assert reading.finish_reason == "stop"
    assert understood.text
    assert understood.completion_tokens
    assert understood.pieces > 3 or not stream
    same(understood, reading)
    # The same seed gives the same answer, so the proxy has changed nothing that a client could see.
    direct = client.ask(recorded.direct(client.front), QUESTION, stream, 48)
    assert (direct.text, direct.finish, direct.pieces) == (understood.text, understood.finish, understood.pieces)
    assert direct.prompt_tokens == understood.prompt_tokens
    assert recorded.exchanges.empty()


@pytest.mark.parametrize(("client", "stream"), EVERY)
def test_an_answer_at_its_longest(recorded: Recorded, client: Client, stream: bool) -> None:
    understood = client.ask(recorded.base(client.front), QUESTION, stream, 4)
    reading = recorded.read(client)
    assert (reading.finish_reason, understood.completion_tokens) == ("length", 4)
    same(understood, reading)


BLOCKED = [entry for entry in EVERY if entry.values[0].front in set(BLOCKS) - {"openai"}]  # type: ignore[union-attr]


@pytest.mark.parametrize(("client", "stream"), BLOCKED)
def test_a_block(recorded: Recorded, client: Client, stream: bool) -> None:
    """Blocks in answers of status 200: what came before, and the vendor's word for it."""
    understood = client.ask(recorded.base(f"{client.front}-block"), QUESTION, stream, 48)
    reading = recorded.read(client)
    assert understood.finish in {"content_filter", "refusal", "SAFETY", "guardrail_intervened"}
    assert (understood.text, understood.finish) == (
        reading.text,
        reading.native_finish_reason or reading.finish_reason,
    )
    assert understood.prompt_tokens == reading.usage.prompt_tokens
    assert (understood.completion_tokens or 0) == (reading.usage.completion_tokens or 0)


def test_a_prompt_that_gemini_blocks_leaves_no_candidate(recorded: Recorded) -> None:
    for stream in (True, False):
        understood = CLIENTS["google-genai"].ask(recorded.base("gemini-shut"), QUESTION, stream, 48)
        reading = recorded.read(CLIENTS["google-genai"])
        assert (understood.text, understood.finish) == ("", "PROHIBITED_CONTENT")
        assert reading.text == ""
        assert "PROHIBITED_CONTENT" in f"{reading.native_finish_reason} {reading.finish_reason} {reading.error}"
        assert understood.response_id == reading.response_id


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_of_openai(recorded: Recorded, stream: bool) -> None:
    client = CLIENTS["openai-chat"]
    with pytest.raises(openai.BadRequestError) as caught:
        client.ask(recorded.base("openai-shut"), QUESTION, stream, 48)
    reading = recorded.read(client)
    assert caught.value.code == "invalid_prompt"
    assert reading.state == "error"
    assert str(caught.value.body["message"])[:40] in (reading.error or "")  # type: ignore[index]


def test_an_error_of_anthropic(recorded: Recorded) -> None:
    client = CLIENTS["anthropic"]
    with pytest.raises(anthropic.BadRequestError, match="Output blocked by content filtering policy") as caught:
        client.ask(recorded.base("anthropic-shut"), QUESTION, False, 48)
    reading = recorded.read(client)
    assert reading.state == "error"
    assert "Output blocked by content filtering policy" in (reading.error or "")
    assert caught.value.request_id


def test_an_error_in_a_stream_of_anthropic(recorded: Recorded) -> None:
    client = CLIENTS["anthropic"]
    with pytest.raises(anthropic.APIStatusError, match="Output blocked by content filtering policy"):
        client.ask(recorded.base("anthropic-shut"), QUESTION, True, 48)
    reading = recorded.read(client)
    assert reading.state == "error"
    assert reading.text
    assert "error" in reading.events


MISTAKEN = {
    "openai-chat": openai.NotFoundError,
    "openai-completions": openai.NotFoundError,
    "openai-responses": openai.NotFoundError,
    "anthropic": anthropic.NotFoundError,
    "google-genai": genai_errors.ClientError,
    "ollama-chat": ollama.ResponseError,
    "ollama-generate": ollama.ResponseError,
    "boto3": botocore.exceptions.ClientError,
}


@pytest.mark.parametrize("name", CLIENTS)
def test_an_unknown_model_raises_the_clients_own_error(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    client = CLIENTS[name]
    labs = recorded._labs
    # To the lab the model that all clients name is unknown, where it serves another one.
    monkeypatch.setattr(labs(client.front), "model", "another")
    for stream in (True, False):
        with pytest.raises(MISTAKEN[name]):
            client.ask(recorded.base(client.front), QUESTION, stream, 8)
        reading = recorded.read(client)
        assert reading.state == "error"
        assert reading.error


CUT = [entry for entry in EVERY if entry.values[1]]


@pytest.mark.parametrize(("client", "stream"), CUT)
def test_a_stream_that_breaks_off(recorded: Recorded, client: Client, stream: bool) -> None:
    """The clients raise, or take a part for the whole; we say that it was cut."""
    ends: list[BaseException | Understood] = []
    readings: list[Reading] = []
    for _ in range(4):  # an answer may end before the point at which it would be cut
        try:
            ends.append(client.ask(recorded.base(f"{client.front}-cut"), QUESTION, stream, 64))
        except Exception as error:  # noqa: BLE001 - each client passes on the errors of another transport
            ends.append(error)
        readings.append(recorded.read(client))
    truncated = [end for end, reading in zip(ends, readings, strict=True) if reading.state == "truncated"]
    assert truncated
    assert {reading.state for reading in readings} <= {"truncated", "answer"}
    for end, reading in zip(ends, readings, strict=True):
        if reading.state == "answer":
            assert isinstance(end, Understood)
            same(end, reading)


@pytest.mark.parametrize("stream", [True, False])
def test_bedrock_refuses_a_wrong_signature(recorded: Recorded, stream: bool) -> None:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        bedrock(recorded.direct("bedrock"), QUESTION, stream, 8, secret="not-the-secret")
    assert caught.value.response["Error"]["Code"] == "InvalidSignatureException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


BROKEN = {
    "openai-completions": openai.APIError,
    "anthropic": anthropic.APIStatusError,
    "google-genai": genai_errors.APIError,
    "ollama-generate": ollama.ResponseError,
    "boto3": botocore.exceptions.EventStreamError,
}
"""What clients raise at an error in a stream. Responses have an event for it, which is no error to the client."""


@pytest.mark.parametrize("name", [*BROKEN, "openai-responses"])
def test_an_error_in_a_stream(recorded: Recorded, name: str) -> None:
    client = CLIENTS[name]
    seen = []
    for _ in range(4):  # an answer may end before the point at which the host fails
        try:
            ended: object = client.ask(recorded.base(f"{client.front}-fault"), QUESTION, True, 64)
        except Exception as error:  # noqa: BLE001 - which error it is, is what is tested
            ended = error
        reading = recorded.read(client)
        if reading.state == "error":
            seen.append((ended, reading))
    assert seen
    for ended, reading in seen:
        assert reading.text
        assert "Provider returned error" in (reading.error or "")
        if name in BROKEN:
            assert isinstance(ended, BROKEN[name])
            assert "Provider returned error" in str(ended)


REFUSED = {
    "openai-chat": (openai.AuthenticationError, openai.RateLimitError),
    "openai-completions": (openai.AuthenticationError, openai.RateLimitError),
    "openai-responses": (openai.AuthenticationError, openai.RateLimitError),
    "anthropic": (anthropic.AuthenticationError, anthropic.RateLimitError),
    "google-genai": (genai_errors.ClientError, genai_errors.ClientError),
    "ollama-chat": (ollama.ResponseError, ollama.ResponseError),
    "ollama-generate": (ollama.ResponseError, ollama.ResponseError),
    "boto3": (botocore.exceptions.ClientError, botocore.exceptions.ClientError),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_a_wrong_key_and_a_limit_raise_the_clients_own_errors(recorded: Recorded, name: str) -> None:
    """The proxy takes the client's key away and has none of its own; what it signs has another one."""
    client = CLIENTS[name]
    for platform, kind in zip(("locked", "spent"), REFUSED[name], strict=True):
        for stream in (True, False):
            with pytest.raises(kind):
                client.ask(recorded.base(f"{client.front}-{platform}"), QUESTION, stream, 8)
            reading = recorded.read(client)
            assert reading.state == "error"
            assert reading.error

"""What the official clients send, as our readers of requests read it. (boto3's is in test_bedrock_converse.py.)"""

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import anthropic
import ollama
import openai
import pytest
from google import genai

from probe.traces.values import Message
from probe.wire.dialects import dialect
from probe.wire.values import RequestReading

SYSTEM, USER = Message("system", "Be brief."), Message("user", "Grüße?")
Sent = list[tuple[str, bytes]]


class _Handler(http.server.BaseHTTPRequestHandler):
    sent: Sent

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.sent.append((self.path, body))
        answer = json.dumps({"error": {"message": "heard", "code": 400, "status": "INVALID_ARGUMENT"}}).encode()
        self.send_response(400)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def listening() -> Iterator[tuple[str, Sent]]:
    sent: Sent = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"sent": sent}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", sent
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def url(listening: tuple[str, Sent]) -> str:
    listening[1].clear()
    return listening[0]


def read(name: str, listening: tuple[str, Sent]) -> RequestReading:
    ((path, body),) = listening[1]
    return dialect(name).read_request(body, path)


@pytest.mark.parametrize("stream", [True, False])
def test_openai(listening: tuple[str, Sent], url: str, stream: bool) -> None:
    with openai.OpenAI(api_key="none", base_url=f"{url}/v1", max_retries=0) as client:
        messages: Any = [{"role": "user", "content": "Grüße?"}]
        with pytest.raises(openai.BadRequestError):
            client.responses.create(
                model="m", instructions="Be brief.", input=messages, max_output_tokens=9, temperature=0.5, stream=stream
            )
        found = read("openai-responses", listening)
        assert (found.messages, found.extra, found.stream, found.model) == ((SYSTEM, USER), (), stream, "m")
        assert found.sampling == {"max_tokens": 9, "temperature": 0.5}
        listening[1].clear()
        with pytest.raises(openai.BadRequestError):
            client.completions.create(model="m", prompt="<|user|>Grüße?", max_tokens=9, stream=stream)
        found = read("openai-completions", listening)
        assert (found.messages, found.stream) == ((Message("user", "<|user|>Grüße?"),), stream)
        assert (found.sampling, found.extra) == ({"max_tokens": 9}, ("prompt",))


@pytest.mark.parametrize("stream", [True, False])
def test_anthropic(listening: tuple[str, Sent], url: str, stream: bool) -> None:
    with anthropic.Anthropic(api_key="none", base_url=url, max_retries=0) as client:
        with pytest.raises(anthropic.BadRequestError):
            client.messages.create(
                model="m",
                system="Be brief.",
                messages=[{"role": "user", "content": "Grüße?"}],
                max_tokens=9,
                stream=stream,
            )
        found = read("anthropic-messages", listening)
        assert (found.messages, found.extra, found.stream, found.model) == ((SYSTEM, USER), (), stream, "m")
        assert found.sampling == {"max_tokens": 9}


@pytest.mark.parametrize("stream", [True, False])
def test_google(listening: tuple[str, Sent], url: str, stream: bool) -> None:
    options = genai.types.HttpOptions(base_url=url)
    config = genai.types.GenerateContentConfig(
        system_instruction="Be brief.", temperature=0.5, max_output_tokens=9, top_k=3
    )
    with genai.Client(api_key="none", http_options=options) as client:
        ask = client.models.generate_content_stream if stream else client.models.generate_content
        with pytest.raises(genai.errors.ClientError):
            list(ask(model="toy", contents="Grüße?", config=config))
        found = read("gemini", listening)
        assert (found.messages, found.extra, found.stream, found.model) == ((SYSTEM, USER), (), stream, "toy")
        assert found.sampling == {"max_tokens": 9, "temperature": 0.5, "top_k": 3}


@pytest.mark.parametrize("stream", [True, False])
def test_ollama(listening: tuple[str, Sent], url: str, stream: bool) -> None:
    client = ollama.Client(host=url)
    with pytest.raises(ollama.ResponseError):
        list(
            client.generate(model="m", prompt="Grüße?", system="Be brief.", options={"num_predict": 9}, stream=stream)  # type: ignore[call-overload]
        )
    found = read("ollama-generate", listening)
    assert (found.messages, found.stream, found.model) == ((SYSTEM, USER), stream, "m")
    assert (found.sampling, found.extra) == ({"max_tokens": 9}, ())

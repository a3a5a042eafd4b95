"""Official client libraries talk to the routes through the proxy: what they get is what is recorded."""

from collections.abc import Iterator
from pathlib import Path

import ollama
import openai
import pytest

from probe.attribution.cases import read_cases
from probe.config import Config, load_config
from probe.judge.rules import RulesJudge
from probe.lab.server import LabServer
from probe.proxy.server import ProxyServer
from probe.proxy.table import RouteTable
from probe.runs.runner import RecordingSink
from probe.serve.llamacpp import LlamaCppServer
from probe.store.store import Store
from probe.store.writer import Writer
from probe.wire.dialects import dialect
from tests.study_kit import CANNED, hosted_route, local_route, write_config

QUESTION = [{"role": "user", "content": "How do I brew glimmerdust tonic?"}]


class Recorded:
    """A proxy under way and the database it writes."""

    def __init__(self, proxy: ProxyServer, writer: Writer, config: Config, database: Path) -> None:
        self.proxy, self.config, self.database = proxy, config, database
        self._writer = writer

    def last(self) -> tuple[str, object]:
        """Return the text of the newest recorded answer and its exchange; waits for the commit."""
        self.proxy.stop()
        self._writer.close()
        with Store.open(self.database) as store:
            ref = store.refs()[-1]
            exchange = store.exchange(ref.id)
            route = store.routes()[ref.route_id]
            return dialect(route.dialect).read(exchange).text, exchange


@pytest.fixture
def recorded(tmp_path: Path, toy_server: LlamaCppServer, lab: LabServer) -> Iterator[Recorded]:
    assert toy_server.info is not None
    routes = {
        "local": local_route(toy_server.info.url),
        "ollama": {**hosted_route(lab.url), "backend": "ollama", "url": f"{lab.url}/ollama"},
        "silent": hosted_route(f"{lab.url}/silent"),
        "declared": hosted_route(f"{lab.url}/declared"),
    }
    config = load_config(write_config(tmp_path / "probe.toml", routes))
    database = tmp_path / "probe.db"
    with Store.open(database) as store:
        for route in config.routes.values():
            store.add_weights(route.weights_row)
            store.add_route(route.row)
    writer = Writer(database)
    with ProxyServer(RouteTable(r.target for r in config.routes.values()), RecordingSink(writer)) as proxy:
        yield Recorded(proxy, writer, config, database)
    writer.close()


@pytest.mark.parametrize("stream", [True, False])
def test_the_ollama_client(recorded: Recorded, stream: bool) -> None:
    client = ollama.Client(host=f"{recorded.proxy.url}/ollama")
    options = {"temperature": 1.0, "num_predict": 24}
    if stream:
        parts = list(client.chat(model="toy", messages=QUESTION, stream=True, options=options))
        text = "".join(part.message.content or "" for part in parts)
        assert parts[-1].done
        assert len(parts) > 3, "the answer must come in pieces"
    else:
        answer = client.chat(model="toy", messages=QUESTION, options=options)
        text = answer.message.content or ""
        assert answer.eval_count
    assert text
    assert recorded.last()[0] == text


@pytest.mark.parametrize("stream", [True, False])
def test_the_openai_client(recorded: Recorded, stream: bool) -> None:
    client = openai.OpenAI(base_url=f"{recorded.proxy.url}/local/v1", api_key="sk-of-the-client-012345")
    if stream:
        parts = client.chat.completions.create(model="toy", messages=QUESTION, stream=True, max_tokens=24)  # type: ignore[call-overload]
        text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    else:
        answer = client.chat.completions.create(model="toy", messages=QUESTION, max_tokens=24)  # type: ignore[call-overload]
        text = answer.choices[0].message.content
    assert text
    read, exchange = recorded.last()
    assert read == text
    assert "sk-of-the-client" not in repr(exchange)


def test_a_declared_block_reaches_the_client_as_the_error_it_is(recorded: Recorded) -> None:
    client = openai.OpenAI(base_url=f"{recorded.proxy.url}/declared/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.PermissionDeniedError, match="requires moderation"):
        client.chat.completions.create(model="toy", messages=QUESTION)  # type: ignore[call-overload]
    recorded.last()
    with Store.open(recorded.database) as store:
        route = store.route_named("declared")
        cases = read_cases(store, route, store.refs(route_id=route.id), {}, RulesJudge())
    assert [sent.case.outcome for sent in cases] == ["blocked"]
    assert cases[0].case.matches[0].author == "platform"


def test_a_silent_refusal_reaches_the_client_as_an_ordinary_answer(recorded: Recorded) -> None:
    client = openai.OpenAI(base_url=f"{recorded.proxy.url}/silent/v1", api_key="none")
    answer = client.chat.completions.create(model="toy", messages=QUESTION)  # type: ignore[call-overload]
    assert answer.choices[0].message.content == CANNED
    assert answer.usage.completion_tokens > 5
    assert recorded.last()[0] == CANNED

"""Paths of the proxy and where they go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.errors import ConfigError
from probe.proxy.table import RouteTable, Target

TABLE = RouteTable(
    [
        Target("r1", "local", "http://127.0.0.1:8000/v1"),
        Target("r2", "router", "https://openrouter.ai/api/v1/"),
        Target("r3", "ollama", "http://127.0.0.1:11434"),
        Target("r4", "azure", "https://example.com:8443/openai?api-version=2024-10-21"),
        Target("r5", "six", "http://[::1]:8080/v1"),
    ]
)


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("/local/v1/chat/completions", "http://127.0.0.1:8000/v1/chat/completions"),
        ("/local/chat/completions", "http://127.0.0.1:8000/v1/chat/completions"),
        ("/local/v1/v1", "http://127.0.0.1:8000/v1/v1"),
        ("/local", "http://127.0.0.1:8000/v1"),
        ("/local/", "http://127.0.0.1:8000/v1/"),
        ("/router/v1/models", "https://openrouter.ai:443/api/v1/models"),
        ("/router/models", "https://openrouter.ai:443/api/v1/models"),
        ("/router/models?", "https://openrouter.ai:443/api/v1/models?"),
        ("/router/models?a=/../b&c", "https://openrouter.ai:443/api/v1/models?a=/../b&c"),
        ("/ollama/api/chat", "http://127.0.0.1:11434/api/chat"),
        ("/ollama", "http://127.0.0.1:11434/"),
        ("/ollama//evil.example/x", "http://127.0.0.1:11434//evil.example/x"),
        ("/azure/chat", "https://example.com:8443/openai/chat?api-version=2024-10-21"),
        ("/azure/chat?a=1", "https://example.com:8443/openai/chat?api-version=2024-10-21&a=1"),
        ("/six/v1/models", "http://[::1]:8080/v1/models"),
        ("/local/v1/models/Qwen%2FQwen3-8B", "http://127.0.0.1:8000/v1/models/Qwen%2FQwen3-8B"),
        ("/local/v1/a...b/..c", "http://127.0.0.1:8000/v1/a...b/..c"),
    ],
)
def test_a_path_goes_to_its_route(path: str, url: str) -> None:
    destination = TABLE.resolve(path)
    assert destination is not None
    assert destination.url == url


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "*",
        "//local/v1",
        "/LOCAL/v1",
        "/loca",
        "/locals/v1",
        "/%6cocal/v1",
        "local/v1",
        "http://127.0.0.1:8000/v1",
        "/http://127.0.0.1:8000/v1",
        "/127.0.0.1:8000/v1",
        "/../local/v1",
        "/./local/v1",
        "/local/../router",
        "/local/v1/..",
        "/local/./v1",
        "/local/%2e%2e/router",
        "/local/%2E./router",
        "/local/.%2e/router",
        "/local/%252e%252e/router",
        "/local/..%2frouter",
        "/local/v1%2f..%2f..%2fadmin",
        "/local/..\\router",
        "/local/%2e%2e%5crouter",
    ],
)
def test_other_paths_go_nowhere(path: str) -> None:
    assert TABLE.resolve(path) is None


@given(
    st.text(alphabet="/.%25eE2fF5cC\\local?#@:[]routev1", max_size=40), st.sampled_from(["", "/", "/local", "/router"])
)
def test_no_path_leads_anywhere_but_to_the_base_of_its_route(tail: str, start: str) -> None:
    destination = TABLE.resolve(start + tail)
    if destination is not None:
        assert TABLE.reaches(destination.host, destination.port)
        base = {"local": "/v1", "router": "/api/v1"}[destination.target.name]
        assert destination.path.partition("?")[0].startswith(base)


def test_only_addresses_of_routes_are_reached() -> None:
    assert TABLE.reaches("openrouter.ai", 443)
    assert TABLE.reaches("::1", 8080)
    assert not TABLE.reaches("openrouter.ai", 80)
    assert not TABLE.reaches("127.0.0.1", 9)


@pytest.mark.parametrize(
    ("name", "base"), [("local", "/local/v1"), ("router", "/router/v1"), ("ollama", "/ollama"), ("azure", "/azure")]
)
def test_the_base_that_clients_are_given_leads_back_to_the_route(name: str, base: str) -> None:
    assert TABLE.client_base(name) == base
    destination = TABLE.resolve(base + "/x")
    assert destination is not None
    assert destination.target.name == name
    assert "/v1/v1" not in destination.path


def test_names_keep_their_order() -> None:
    assert TABLE.names() == ["local", "router", "ollama", "azure", "six"]
    assert [target.route_id for target in TABLE.targets()] == ["r1", "r2", "r3", "r4", "r5"]


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "ftp://host/v1",
        "http://",
        "http:///v1",
        "",
        "http://host:99999/",
        "http://[::1/",
        "file:///etc",
    ],
)
def test_a_url_that_cannot_be_used_is_a_fault_of_the_configuration(url: str) -> None:
    with pytest.raises(ConfigError, match="'broken'"):
        RouteTable([Target("r", "broken", url)])


def test_a_url_with_a_password_is_refused_without_repeating_it() -> None:
    with pytest.raises(ConfigError, match="key_env") as caught:
        RouteTable([Target("r", "broken", "https://user:hunter2-secret@host/v1")])
    assert "hunter2" not in str(caught.value)


class TestCredential:
    TARGET = Target("r", "keyed", "https://host/v1", "Authorization", "Bearer", "KEYED_SECRET")

    def test_it_comes_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KEYED_SECRET", "sk-0123456789")
        assert self.TARGET.credential() == ("Authorization", "Bearer sk-0123456789")
        assert self.TARGET.key_problem() is None
        assert "sk-0123456789" not in repr(self.TARGET)

    def test_it_goes_without_scheme_where_there_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KEYED_SECRET", "sk-0123456789")
        target = Target("r", "keyed", "https://host/v1", "x-api-key", "", "KEYED_SECRET")
        assert target.credential() == ("x-api-key", "sk-0123456789")

    def test_the_line_break_of_a_file_is_no_part_of_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KEYED_SECRET", " sk-0123456789\r\n")
        assert self.TARGET.credential() == ("Authorization", "Bearer sk-0123456789")
        assert self.TARGET.key_problem() is None

    @pytest.mark.parametrize("value", [None, "", " \n"])
    def test_without_a_value_the_variable_is_named(self, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
        monkeypatch.delenv("KEYED_SECRET", raising=False)
        if value is not None:
            monkeypatch.setenv("KEYED_SECRET", value)
        assert self.TARGET.credential() is None
        assert "KEYED_SECRET" in (self.TARGET.key_problem() or "")

    @pytest.mark.parametrize("value", ["sk-0123\r\nX-Injected: 1", "sk-0123\x00456789"])
    def test_a_key_that_would_break_the_head_is_not_sent(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        if "\0" in value:  # no environment can hold it
            monkeypatch.setattr("os.environ", {"KEYED_SECRET": value})
        else:
            monkeypatch.setenv("KEYED_SECRET", value)
        problem = self.TARGET.key_problem()
        assert problem is not None
        assert "KEYED_SECRET" in problem
        assert "0123" not in problem

    def test_a_local_server_may_do_without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("KEYED_SECRET", raising=False)
        target = Target("r", "vllm", "http://h/v1", "Authorization", "Bearer", "KEYED_SECRET", key_required=False)
        assert target.credential() is None
        assert target.key_problem() is None

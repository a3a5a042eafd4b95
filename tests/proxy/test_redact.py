"""What is blotted out, and what must stay as it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.proxy.redact import (
    MASK,
    SECRET_HEADERS,
    Redactor,
    client_values,
    environment_values,
    without_credentials,
)

KEY = "sk-or-v1-0123456789abcdef"


@given(st.binary(max_size=60), st.binary(max_size=60), st.sampled_from([KEY, "clé-secrète-42", "a+b/c==d&e?f"]))
def test_a_body_keeps_its_length_and_loses_the_key(before: bytes, after: bytes, key: str) -> None:
    raw = key.encode()
    body = before + raw + after + raw
    clean, count = Redactor.of([key]).body(body)
    assert raw not in clean
    assert len(clean) == len(body)
    assert count >= 2
    assert clean.startswith(before)


@given(st.binary(max_size=200))
def test_a_body_without_the_key_stays_as_it_is(body: bytes) -> None:
    assert Redactor.of([KEY]).body(body) == (body, 0)


def test_a_key_that_contains_another_goes_as_a_whole() -> None:
    redactor = Redactor.of(["secret-one", "secret-one-and-more"])
    assert redactor.body(b"<secret-one-and-more> <secret-one>") == (b"<*******************> <**********>", 2)


@pytest.mark.parametrize(
    "spelt", ['a/b+c=d9"e', "a%2Fb%2Bc%3Dd9%22e", 'a/b+c=d9\\"e', 'a\\/b+c=d9\\"e'], ids=["raw", "url", "json", "php"]
)
def test_a_key_is_found_however_it_is_spelt(spelt: str) -> None:
    redactor = Redactor.of(['a/b+c=d9"e'])
    clean, count = redactor.body(f"[{spelt}]".encode())
    assert (clean, count) == (b"[" + b"*" * len(spelt) + b"]", 1)
    assert redactor.text(f"[{spelt}]") == f"[{MASK}]"


def test_short_values_are_dummies() -> None:
    redactor = Redactor.of(["ollama", "sk-1", "EMPTY", None, ""])
    assert redactor.secrets == ()
    assert redactor.body(b"ollama is EMPTY") == (b"ollama is EMPTY", 0)


@pytest.mark.parametrize("name", sorted(SECRET_HEADERS))
def test_headers_for_credentials_are_masked_whatever_their_value(name: str) -> None:
    assert Redactor().headers(((name.title(), "x"), ("Accept", "*/*"))) == (
        ((name.title(), MASK), ("Accept", "*/*")),
        1,
    )


@pytest.mark.parametrize(
    "name",
    [
        "X-Litellm-Api-Key",
        "x-some-apikey",
        "X_API_KEY",
        "X-Gateway-Authorization",
        "Access-Token",
        "x-session-token",
        "X-Client-Secret",
        "portkey-auth",
    ],
)
def test_headers_that_are_called_like_credentials_are_masked(name: str) -> None:
    assert Redactor().is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "WWW-Authenticate",
        "x-time-per-token",
        "x-ratelimit-remaining-tokens",
        "x-inference-time",
        "Idempotency-Key",
        "x-request-id",
        "author",
        "x-cache-key",
        "server-timing",
        "x-moderation-token-count",
    ],
)
def test_headers_that_are_evidence_stay(name: str) -> None:
    assert not Redactor().is_secret(name)
    assert Redactor.of([KEY]).headers(((name, "value"),)) == (((name, "value"),), 0)


def test_names_of_a_configuration_count_too() -> None:
    redactor = Redactor.of([KEY], ["X-Gate-Pass"])
    assert redactor.is_secret("x-gate-pass")
    assert redactor.also(["another-secret-1"]).is_secret("X-GATE-PASS")


def test_a_key_in_another_header_is_masked_there() -> None:
    pairs = (("X-Echo", f"you sent {KEY}!"), ("x-echo", "nothing"))
    assert Redactor.of([KEY]).headers(pairs) == ((("X-Echo", f"you sent {MASK}!"), ("x-echo", "nothing")), 1)


def test_a_key_that_is_not_ascii_is_found_in_the_bytes_of_a_header() -> None:
    key = "clé-secrète-42"
    on_the_wire = key.encode().decode("latin-1")
    assert Redactor.of([key]).headers((("X-Echo", on_the_wire),)) == ((("X-Echo", MASK),), 1)


def test_a_key_that_is_not_even_unicode_is_no_error() -> None:
    redactor = Redactor.of([b"\xff\xfe-secret-42".decode("utf-8", "surrogateescape")])
    assert redactor.body(b"<\xff\xfe-secret-42>")[1] == 1
    assert redactor.also(["another-secret-1"]).body(b"<\xff\xfe-secret-42>")[1] == 1


def test_also_adds_and_forgets_nothing() -> None:
    redactor = Redactor.of([KEY]).also(["another-secret-1", None, "short"])
    assert redactor.body(KEY.encode() + b"another-secret-1short")[0] == b"*" * 41 + b"short"


def test_what_a_client_sends_as_its_key_is_a_secret() -> None:
    pairs = (
        ("Authorization", "Bearer client-secret-1"),
        ("cookie", "theme=dark; session=abcdef123456"),
        ("Accept", "application/json"),
    )
    values = client_values(pairs, Redactor())
    assert {"Bearer client-secret-1", "client-secret-1", "abcdef123456"} <= set(values)
    assert "application/json" not in values


@pytest.mark.parametrize("dummy", ["not-needed", "sk-no-key-required", "lm-studio", "NOT_NEEDED", "placeholder"])
def test_a_dummy_key_does_not_blot_out_words_of_an_answer(dummy: str) -> None:
    redactor = Redactor().also(client_values((("Authorization", f"Bearer {dummy}"),), Redactor()))
    assert redactor.body(f"An API key is {dummy}.".encode())[1] == 0


@pytest.mark.parametrize(
    ("path", "clean", "values"),
    [
        ("/r/v1/models", "/r/v1/models", []),
        ("/r/v1/models?", "/r/v1/models?", []),
        ("/r/v1/models?a=1&&b", "/r/v1/models?a=1&&b", []),
        ("/r/x?key=abc12345", "/r/x", ["abc12345", "abc12345"]),
        ("/r/x?alt=sse&KEY=abc12345&b=2", "/r/x?alt=sse&b=2", ["abc12345", "abc12345"]),
        ("/r/x?api_key=a%2Fc12345&access_token=zyx98765", "/r/x", ["a%2Fc12345", "a/c12345", "zyx98765", "zyx98765"]),
        ("/r/x?api%5Fkey=abc12345", "/r/x", ["abc12345", "abc12345"]),
        ("/r/x?monkey=1&max_tokens=5&keys=2", "/r/x?monkey=1&max_tokens=5&keys=2", []),
    ],
)
def test_keys_in_a_query_are_taken_out(path: str, clean: str, values: list[str]) -> None:
    assert without_credentials(path) == (clean, values)


def test_values_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE_SECRET", f"{KEY}\n")
    monkeypatch.setenv("BLANK_SECRET", "  ")
    monkeypatch.delenv("UNSET_SECRET", raising=False)
    assert environment_values(["ONE_SECRET", None, "UNSET_SECRET", "BLANK_SECRET"]) == [KEY]

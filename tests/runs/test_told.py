import json
import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from probe.runs.pacing.durations import LONGEST_S, bounded, http_date, number, span, until
from probe.runs.pacing.told import Told, told_of
from probe.wire.values import Exchange
from tests.kit import make_exchange, sse

NOW = 1_790_000_000.0  # Mon, 21 Sep 2026 14:13:20 GMT


def answer(status: int, headers: dict[str, str] | None = None, body: Any = b"") -> Exchange:
    return make_exchange(status=status, response_headers=tuple((headers or {}).items()), response_body=body)


def told(status: int, headers: dict[str, str] | None = None, body: Any = b"") -> Told:
    return told_of(answer(status, headers, body), NOW)


def google(*violations: str, delay: str | None = "27s", message: str = "You exceeded your current quota.") -> Any:
    details: list[Any] = [
        {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"quotaMetric": "generate_content_free_tier_requests", "quotaId": v} for v in violations],
        }
    ]
    if delay:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    return {"error": {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": details}}


def openrouter(message: str, **metadata: Any) -> Any:
    return {"error": {"message": message, "code": 429, "metadata": metadata}, "user_id": "user_1"}


MIDNIGHT_MS = str(int((NOW - NOW % 86_400 + 86_400) * 1000))
UNTIL_MIDNIGHT = 86_400 - NOW % 86_400

HEADS = {
    "seconds": (429, {"Retry-After": "7"}, Told(7.0)),
    "fraction": (429, {"retry-after": "1.5"}, Told(1.5)),
    "date": (503, {"Retry-After": "Mon, 21 Sep 2026 14:14:20 GMT"}, Told(60.0)),
    "date in an old form": (503, {"Retry-After": "Monday, 21-Sep-26 14:14:20 GMT"}, Told(60.0)),
    "date by the server's clock": (
        503,
        {"Date": "Mon, 21 Sep 2026 10:00:00 GMT", "Retry-After": "Mon, 21 Sep 2026 10:00:30 GMT"},
        Told(30.0),
    ),
    "date that has passed": (503, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, Told(0.0)),
    "milliseconds": (429, {"retry-after-ms": "1200", "retry-after": "2"}, Told(2.0)),
    "milliseconds alone": (429, {"x-ms-retry-after-ms": "26500"}, Told(26.5)),
    "openai": (
        200,
        {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-remaining-tokens": "149984",
            "x-ratelimit-reset-tokens": "6m0s",
        },
        Told(None, 59, 1.0, 149984, 360.0),
    ),
    "openai in milliseconds": (
        200,
        {
            "x-ratelimit-remaining-requests": "4999",
            "x-ratelimit-reset-requests": "12ms",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "1h2m3.5s",
        },
        Told(None, 4999, 0.012, 0, 3723.5),
    ),
    "groq": (
        429,
        {
            "retry-after": "2",
            "x-ratelimit-remaining-requests": "14370",
            "x-ratelimit-reset-requests": "2m59.56s",
            "x-ratelimit-remaining-tokens": "17997",
            "x-ratelimit-reset-tokens": "7.66s",
        },
        Told(2.0, 14370, 179.56, 17997, 7.66),
    ),
    "azure in seconds": (
        200,
        {
            "x-ratelimit-remaining-requests": "99",
            "x-ratelimit-remaining-tokens": "99000",
            "x-ratelimit-reset-tokens": "57",
        },
        Told(None, 99, None, 99000, 57.0),
    ),
    "azure that does not count": (
        200,
        {"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "0"},
        Told(),
    ),
    "anthropic": (
        429,
        {
            "retry-after": "12",
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": "2026-09-21T14:13:32Z",
            "anthropic-ratelimit-tokens-remaining": "40000",
            "anthropic-ratelimit-tokens-reset": "2026-09-21T14:14:20.500Z",
            "anthropic-ratelimit-output-tokens-remaining": "8000",
            "anthropic-ratelimit-output-tokens-reset": "2026-09-21T14:13:50+00:00",
        },
        Told(12.0, 0, 12.0, 8000, 30.0),
    ),
    "cerebras": (
        200,
        {
            "x-ratelimit-remaining-requests-day": "14399",
            "x-ratelimit-reset-requests-day": "33011.382867",
            "x-ratelimit-remaining-tokens-minute": "59950",
            "x-ratelimit-reset-tokens-minute": "11.38",
        },
        Told(None, 14399, 33011.382867, 59950, 11.38),
    ),
    "openrouter": (
        429,
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": MIDNIGHT_MS},
        Told(None, 0, UNTIL_MIDNIGHT),
    ),
    "unix seconds": (429, {"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": str(int(NOW) + 9)}, Told(None, 3, 9.0)),
    "ietf": (429, {"RateLimit": '"default";r=0;t=30'}, Told(None, 0, 30.0)),
    "ietf with several": (429, {"RateLimit": '"burst";r=40;t=10, "daily";r=3;t=3600'}, Told(None, 3, 3600.0)),
    "ietf of bytes": (
        200,
        {"RateLimit-Policy": '"size";q=100;w=60;qu="content-bytes"', "RateLimit": '"size";r=0;t=30'},
        Told(),
    ),
    "ietf draft 7": (429, {"RateLimit": "limit=100, remaining=0, reset=5"}, Told(None, 0, 5.0)),
    "ietf draft 6": (
        429,
        {"RateLimit-Limit": "100", "RateLimit-Remaining": "9", "RateLimit-Reset": "50"},
        Told(None, 9, 50),
    ),
    "bedrock": (429, {"x-amzn-ErrorType": "ThrottlingException"}, Told()),
    "nothing": (200, {}, Told()),
}


@pytest.mark.parametrize(("status", "headers", "expected"), HEADS.values(), ids=HEADS)
def test_heads(status: int, headers: dict[str, str], expected: Told) -> None:
    found = told(status, headers)
    assert found.retry_after_s == pytest.approx(expected.retry_after_s)
    assert found.requests_reset_s == pytest.approx(expected.requests_reset_s)
    assert found.tokens_reset_s == pytest.approx(expected.tokens_reset_s)
    assert (found.requests_left, found.tokens_left) == (expected.requests_left, expected.tokens_left)
    assert not found.until_tomorrow


BODIES = {
    "openrouter free models of the day": (
        openrouter(
            "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day",
            headers={"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": MIDNIGHT_MS},
        ),
        Told(None, 0, UNTIL_MIDNIGHT, until_tomorrow=True),
    ),
    "openrouter with a balance": (
        openrouter("Rate limit exceeded: free-models-per-day-high-balance."),
        Told(until_tomorrow=True),
    ),
    "openrouter by its source": (
        openrouter("Rate limit exceeded", limit_source="openrouter_free_tier_daily"),
        Told(until_tomorrow=True),
    ),
    "openrouter free models of the minute": (
        openrouter(
            "Rate limit exceeded: free-models-per-min. ",
            headers={
                "X-RateLimit-Limit": "20",
                "X-RateLimit-Remaining": "0",
                "X-RateLimit-Reset": f"{NOW * 1000 + 8000:.0f}",
            },
        ),
        Told(None, 0, 8.0),
    ),
    "openrouter upstream": (
        openrouter(
            "Provider returned error",
            raw='{"error":{"message":"Rate limit reached. Please try again in 7m12.5s."}}',
            retry_after_seconds=1,
            limit_source="upstream_provider_shared_pool",
        ),
        Told(432.5),
    ),
    "openrouter availability": (
        {"error": {"code": 503, "message": "No provider", "availability": {"retry_after": 45}}},
        Told(45.0),
    ),
    "openai tokens of the minute": (
        {
            "error": {
                "message": "Limit 30000, Used 29937, Requested 385. Please try again in 644ms.",
                "code": "rate_limit",
            }
        },
        Told(0.644),
    ),
    "a bucket of the day that fills slowly": (
        {"error": {"message": "Rate limit reached on requests per day (RPD): Limit 200. Please try again in 7m12s."}},
        Told(432.0),
    ),
    "a limit of the day": ({"error": {"message": "You have used your requests per day."}}, Told(until_tomorrow=True)),
    "both kinds of limits": (
        {"error": {"message": "Free models: 20 requests per minute, 50 requests per day."}},
        Told(),
    ),
    "azure": ({"error": {"code": "429", "message": "Please retry after 26 seconds."}}, Told(26.0)),
    "gemini of the minute": (google("GenerateRequestsPerMinutePerProjectPerModel-FreeTier"), Told(27.0)),
    "gemini of the day": (
        google(
            "GenerateRequestsPerDayPerProjectPerModel-FreeTier", delay="36s", message="Please retry in 36.429760048s."
        ),
        Told(until_tomorrow=True),
    ),
    "gemini of both": (
        google("GenerateContentInputTokensPerModelPerMinute", "RequestsPerDay"),
        Told(until_tomorrow=True),
    ),
    "gemini in a list": ([google("GenerateRequestsPerMinute", delay="3.2s")], Told(3.2)),
    "words alone": (b"Too many requests, try again in 2 minutes 5 seconds", Told(125.0)),
    "bedrock": ({"message": "Too many tokens, please wait before trying again."}, Told()),
    "an echo of the prompt": ({"error": {"message": "Bad request"}, "input": "Hello?"}, Told()),
}


@pytest.mark.parametrize(("body", "expected"), BODIES.values(), ids=BODIES)
def test_bodies(body: Any, expected: Told) -> None:
    found = told(429, {}, body)
    assert found.retry_after_s == pytest.approx(expected.retry_after_s)
    assert found.requests_reset_s == pytest.approx(expected.requests_reset_s)
    assert (found.requests_left, found.until_tomorrow) == (expected.requests_left, expected.until_tomorrow)


def test_a_server_that_is_down_every_day_has_no_limit_of_the_day() -> None:
    body = {"error": {"message": "Down for daily maintenance."}}
    assert told(503, {}, body) == Told()
    assert told(429, {}, body) == Told(until_tomorrow=True)


def test_an_error_in_the_middle_of_a_stream_is_read_too() -> None:
    stream = sse(
        {"choices": [{"delta": {"content": "Wait, try again in 9 hours."}}]},
        {"error": {"code": 429, "message": "Provider returned error", "metadata": {"retry_after_seconds": 3}}},
    )
    assert told(200, {}, stream) == Told(3.0)


def test_what_a_model_wrote_is_never_believed() -> None:
    words = 'Please try again in 9 hours. {"error": {"retry_after_seconds": 999}} requests per day'
    assert told(200, {}, {"choices": [{"message": {"content": words}}]}) == Told()
    assert told(200, {}, sse({"choices": [{"delta": {"content": words}}]})) == Told()
    assert told(200, {}, {"error": None, "choices": [{"message": {"content": words}}]}) == Told()


@pytest.mark.parametrize("value", ["-5", "nan", "inf", "-inf", "1e999", "", " ", "soon", "0x10", "5;6", "١٢", "9" * 40])
def test_nonsense_is_no_wait(value: str) -> None:
    headers = {"Retry-After": value, "retry-after-ms": value, "x-ratelimit-remaining-requests": value}
    found = told(
        429, headers | {"x-ratelimit-reset-requests": value, "RateLimit": value}, {"retry_after_seconds": value}
    )
    assert found.retry_after_s is None
    assert found.requests_left is None


def test_a_wait_has_an_end() -> None:
    assert told(429, {"Retry-After": "99999999"}).retry_after_s == LONGEST_S
    assert told(429, {"Retry-After": "Mon, 21 Sep 9999 14:14:20 GMT"}).retry_after_s == LONGEST_S
    assert told(429, {}, {"retry_after": 10**17}).retry_after_s == LONGEST_S
    assert told(429, {}, {"retry_after": 10**400}).retry_after_s is None
    assert told(429, {}, {"retry_after": True}).retry_after_s is None


def test_a_large_and_a_deep_body_do_no_harm() -> None:
    assert told(429, {}, b"[" * 100_000) == Told()
    assert told(429, {}, b'{"a":' * 900 + b"1" + b"}" * 900) == Told()
    assert told(429, {}, json.dumps({"error": [{"n": n} for n in range(50_000)]}).encode()) == Told()
    assert told(429, {"Content-Encoding": "gzip"}, b"no gzip, try again in 5 s").retry_after_s is None


@settings(deadline=None, max_examples=300)
@example("0\x1f", b"", 200)
@given(st.text(max_size=60), st.binary(max_size=200), st.sampled_from([200, 429, 503]))
def test_nothing_crashes(value: str, body: bytes, status: int) -> None:
    names = ("Retry-After", "RateLimit", "RateLimit-Policy", "X-RateLimit-Reset", "X-RateLimit-Remaining", "Date")
    found = told_of(answer(status, dict.fromkeys(names, value), body), NOW)
    for wait in (found.retry_after_s, found.requests_reset_s, found.tokens_reset_s):
        assert wait is None or 0 <= wait <= LONGEST_S


@settings(deadline=None, max_examples=200)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["error", "retry_after", "retryDelay", "headers", "quotaId", "metadata", "raw"]), inner
            )
        ),
        max_leaves=20,
    )
)
def test_no_json_crashes(document: Any) -> None:
    found = told(429, {}, json.dumps(document).encode())
    assert found.retry_after_s is None or 0 <= found.retry_after_s <= LONGEST_S


@settings(max_examples=200)
@given(st.integers(0, 40), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_spans_are_read_as_go_writes_them(hours: int, minutes: int, seconds: int, milliseconds: int) -> None:
    total = hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
    assert span(f"{hours}h{minutes}m{seconds}.{milliseconds:03d}s") == pytest.approx(total)
    assert span(f"{hours}h {minutes}m {seconds}s {milliseconds}ms") == pytest.approx(total)
    assert until(f"{total:.3f}", NOW) == pytest.approx(total)


def test_numbers_and_dates() -> None:
    assert number(" 5 ") == 5.0
    assert number(None) is None
    assert span("5 fortnights") is None
    assert span([1]) is None
    assert bounded(math.nan) is None
    assert until(None, NOW) is None
    assert until("2026-09-21T14:13:30", NOW) == 10.0
    assert http_date("Mon, 99 Sep 2026 14:14:20 GMT") is None

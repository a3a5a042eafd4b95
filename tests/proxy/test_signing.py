"""Requests to AWS: signed as botocore itself would sign them, with no secret in the record."""

import asyncio
import builtins
import dataclasses
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from proxy_kit import Connection, Received, Recorder, Upstream, ask, recorded, request_bytes, response_bytes

from probe.errors import CredentialError
from probe.proxy import signing
from probe.proxy.redact import MASK
from probe.proxy.server import ProxyServer
from probe.proxy.signing import region_of, secret_variables, signing_problem
from probe.proxy.table import RouteTable, Target
from probe.wire.values import Exchange

ACCESS, SECRET, SESSION = "AKIDTEST4F9C1D7E2B8A", "wJalr/test+key/4f9c1d7e2b8a6053", "FwoG/test+session/77aa88bb99cc=="
BEARER = "bedrock-api-key-4f9c1d7e2b8a"
PATH = "/model/vendor.toy-v1%3A0/converse-stream"
BODY = '{"messages":[{"role":"user","content":[{"text":"Grüße?"}]}]}'.encode()
NAMES = (*secret_variables("bedrock"), "AWS_REGION", "AWS_DEFAULT_REGION")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET + "\n")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    return monkeypatch


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def proxy(listening: Upstream, recorder: Recorder) -> Iterator[ProxyServer]:
    target = Target("r-aws", "aws", listening.url, headers=(("X-Extra", "added"),), sign_for="bedrock")
    with ProxyServer(RouteTable([target]), recorder) as server:
        yield server


def verified(request: Received, session: str | None) -> bool:
    """Do what AWS does: sign the request that arrived, and compare."""
    (authorization,) = request.values("authorization")
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=(\w+)/(\d{8})/([\w-]+)/bedrock/aws4_request, SignedHeaders=([\w;-]+), "
        r"Signature=([0-9a-f]{64})",
        authorization,
    )
    assert found, authorization
    access, day, region, names, signature = found.groups()
    (date,) = request.values("x-amz-date")
    assert (access, region, date[:8]) == (ACCESS, "eu-central-1", day)
    signed = {name: ", ".join(request.values(name)) for name in names.split(";")}
    assert {"host", "content-type", "x-amz-date"} <= signed.keys()
    assert ("x-amz-security-token" in signed) == (session is not None)
    method, path, _ = request.first_line.split(" ")
    copy = AWSRequest(method, f"http://{signed['host']}{path}", signed, request.body)
    copy.context["timestamp"] = date
    signer = SigV4Auth(Credentials(ACCESS, SECRET, session), "bedrock", region)
    return bool(signer.signature(signer.string_to_sign(copy, signer.canonical_request(copy)), copy) == signature)


async def send(proxy: ProxyServer, upstream: Upstream, path: str = PATH, **changes: Any) -> tuple[Received, Exchange]:
    async def echo(connection: Connection, request: Received) -> None:
        said = "\n".join(f"{name}: {value}" for name, value in request.headers)
        await connection.send(response_bytes(f"{said} {os.environ.get('AWS_SECRET_ACCESS_KEY')}".encode()))

    upstream.behave = echo
    ticket = proxy.tickets.issue("t1", 1)
    headers = (("Content-Type", "application/json"), *changes.pop("headers", ()))
    port = int(proxy.url.rsplit(":", 1)[1])
    await ask(port, request_bytes(f"/aws{path}", headers=headers, body=changes.pop("body", BODY), ticket=ticket))
    return upstream.requests[-1], await recorded(ticket)


def check_no_secret(exchange: Exchange, *secrets: str) -> None:
    everything = repr(dataclasses.asdict(exchange)).encode()
    for secret in secrets:
        assert secret.encode() not in everything
        assert secret.encode() not in exchange.response_body
        assert secret.encode() not in exchange.request_body


@pytest.mark.parametrize("session", [None, SESSION])
@pytest.mark.parametrize("path", [PATH, "/model/arn%3Aaws%3Ax%2Fy/converse?b=2&a=%20x", "/model/plain/converse"])
async def test_the_signature_is_the_one_of_botocore(
    proxy: ProxyServer, upstream: Upstream, environment: pytest.MonkeyPatch, session: str | None, path: str
) -> None:
    if session is not None:
        environment.setenv("AWS_SESSION_TOKEN", session)
    request, exchange = await send(proxy, upstream, path)
    assert request.first_line == f"POST {path} HTTP/1.1"
    assert request.body == BODY
    assert verified(request, session)
    assert dict(exchange.request_headers)["Authorization"] == MASK
    if session is not None:
        assert dict(exchange.request_headers)["X-Amz-Security-Token"] == MASK
    check_no_secret(exchange, ACCESS, SECRET, SESSION)


async def test_a_changed_body_would_not_pass(proxy: ProxyServer, upstream: Upstream) -> None:
    request, _ = await send(proxy, upstream)
    assert not verified(dataclasses.replace(request, body=BODY + b" "), None)


async def test_what_a_client_signed_itself_is_replaced(proxy: ProxyServer, upstream: Upstream) -> None:
    theirs = "AWS4-HMAC-SHA256 Credential=AKIDOFACLIENT0000000/20260101/x/bedrock/aws4_request, Signature=0"
    headers = (
        ("authorization", theirs),
        ("x-amz-date", "20260101T000000Z"),
        ("X-Amz-Security-Token", "client-token-77aa88bb"),
    )
    request, exchange = await send(proxy, upstream, headers=headers)
    assert verified(request, None)
    assert request.values("x-amz-security-token") == []
    check_no_secret(exchange, ACCESS, SECRET, "AKIDOFACLIENT0000000", "client-token-77aa88bb")


async def test_an_api_key_goes_before_a_signature(
    proxy: ProxyServer, upstream: Upstream, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("AWS_BEARER_TOKEN_BEDROCK", BEARER)
    request, exchange = await send(proxy, upstream)
    assert request.values("authorization") == [f"Bearer {BEARER}"]
    assert request.values("x-amz-date") == []
    check_no_secret(exchange, BEARER, SECRET)


async def test_without_credentials_nothing_goes_out(
    proxy: ProxyServer, upstream: Upstream, environment: pytest.MonkeyPatch
) -> None:
    environment.delenv("AWS_SECRET_ACCESS_KEY")
    ticket = proxy.tickets.issue("t1", 1)
    port = int(proxy.url.rsplit(":", 1)[1])
    answer = await ask(port, request_bytes(f"/aws{PATH}", body=BODY, ticket=ticket))
    assert b"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_BEARER_TOKEN_BEDROCK" in answer.body
    with pytest.raises(CredentialError, match="needs credentials"):
        await asyncio.wrap_future(ticket.recorded)
    assert upstream.requests == []


def test_problems_are_sentences(environment: pytest.MonkeyPatch) -> None:
    url = "https://bedrock-runtime.us-east-1.amazonaws.com"
    assert signing_problem("bedrock", "aws", url) is None
    environment.delenv("AWS_REGION")
    assert signing_problem("bedrock", "aws", url) is None
    problem = signing_problem("bedrock", "aws", "http://127.0.0.1:9")
    assert problem == "Route 'aws': its URL names no AWS region, so set the environment variable AWS_REGION."
    environment.setenv("AWS_SESSION_TOKEN", "a\nb")
    assert "AWS_SESSION_TOKEN holds a line break" in (signing_problem("bedrock", "aws", url) or "")
    environment.delenv("AWS_SESSION_TOKEN")
    environment.delenv("AWS_ACCESS_KEY_ID")
    assert "needs credentials" in (signing_problem("bedrock", "aws", url) or "")
    environment.setenv("AWS_BEARER_TOKEN_BEDROCK", BEARER)
    assert signing_problem("bedrock", "aws", "http://127.0.0.1:9") is None


def test_without_botocore(environment: pytest.MonkeyPatch) -> None:
    environment.setattr(signing, "find_spec", lambda _: None)
    problem = signing_problem("bedrock", "aws", "https://bedrock-runtime.us-east-1.amazonaws.com")
    assert problem == (
        "Route 'aws' needs botocore to sign its requests: run `pip install 'platform-effect-probe[bedrock]'`."
    )
    environment.setenv("AWS_BEARER_TOKEN_BEDROCK", BEARER)
    assert signing_problem("bedrock", "aws", "https://bedrock-runtime.us-east-1.amazonaws.com") is None
    original = builtins.__import__

    def no_botocore(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("botocore"):
            raise ImportError(name)
        return original(name, *rest, **more)

    environment.setattr(builtins, "__import__", no_botocore)
    request = AWSRequest("POST", "https://example.org", {})
    assert signing.signed_headers("bedrock", request) == [("Authorization", f"Bearer {BEARER}")]


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://bedrock-runtime.us-east-1.amazonaws.com", "us-east-1"),
        ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("https://vpce-1-2.bedrock-runtime.ap-southeast-2.vpce.amazonaws.com", "ap-southeast-2"),
        ("http://127.0.0.1:8000", "eu-central-1"),
    ],
)
def test_regions(url: str, region: str) -> None:
    assert region_of(url) == region


def test_other_services_have_their_own_key() -> None:
    assert secret_variables("other-service")[-1] == "AWS_BEARER_TOKEN_OTHER_SERVICE"
    assert secret_variables(None) == ()

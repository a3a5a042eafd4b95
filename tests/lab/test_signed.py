"""Signatures that botocore makes are good; any change afterwards, or another key, makes them bad."""

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from probe.lab.signed import refused

URL = "http://127.0.0.1:8080/bedrock/model/lab.toy-v1%3A0/converse?a=b"
BODY = b'{"messages":[]}'
SECRETS = {"AKIDLAB": "secret"}


def signed(
    *, key: str = "AKIDLAB", secret: str = "secret", service: str = "bedrock", token: str | None = None
) -> dict[str, str]:
    request = AWSRequest("POST", URL, data=BODY, headers={"Content-Type": "application/json", "Host": "127.0.0.1:8080"})
    SigV4Auth(Credentials(key, secret, token), service, "us-east-1").add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


def name_of(headers: dict[str, str], *, method: str = "POST", url: str = URL, body: bytes = BODY) -> str | None:
    said = refused(method, url, headers, body, SECRETS)
    if said is None:
        return None
    assert said.status == 403
    return dict(said.headers)["x-amzn-errortype"]


def test_a_good_signature_is_let_in() -> None:
    assert name_of(signed()) is None
    assert name_of(signed(token="session")) is None
    # What is not signed may change on the way.
    assert name_of({**signed(), "user-agent": "proxy"}) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"method": "PUT"},
        {"url": URL.replace("v1", "v2")},
        {"url": URL.replace("a=b", "a=c")},
        {"body": BODY + b" "},
    ],
)
def test_a_changed_request_is_refused(changed: dict[str, str]) -> None:
    assert name_of(signed(), **changed) == "InvalidSignatureException"  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["host", "content-type", "x-amz-date", "authorization"])
def test_a_changed_header_is_refused(name: str) -> None:
    headers = signed()
    headers[name] = headers[name].replace("0", "1").replace("json", "text")
    assert name_of(headers) in {"InvalidSignatureException", "UnrecognizedClientException"}


def test_another_key_is_refused() -> None:
    assert name_of(signed(secret="other")) == "InvalidSignatureException"
    assert name_of(signed(key="AKIDOTHER")) == "UnrecognizedClientException"
    assert name_of(signed(service="s3")) == "UnrecognizedClientException"
    assert name_of({"host": "127.0.0.1:8080"}) == "MissingAuthenticationTokenException"
    assert name_of({"authorization": "Bearer key"}) == "MissingAuthenticationTokenException"

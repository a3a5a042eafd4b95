"""Signs requests to AWS (Signature Version 4), or puts on an Amazon Bedrock API key.

Credentials come from the environment variables that AWS's own tools read, and from nowhere else: no file, no metadata
service. botocore does the signing; it is the extra ``bedrock``.

Sources: AWS General Reference, "Signature Version 4 signing process"; Amazon Bedrock User Guide, "Use an Amazon Bedrock
API key" (docs.aws.amazon.com/bedrock/latest/userguide/api-keys-use.html): ``AWS_BEARER_TOKEN_BEDROCK`` is sent as
``Authorization: Bearer``.
"""

import os
import re
from importlib.util import find_spec
from typing import Protocol
from urllib.parse import urlsplit

_ACCESS, _SECRET, _SESSION = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_REGION = re.compile(r"[a-z]{2,3}(?:-[a-z]+){1,2}-\d{1,2}")
"""Names of regions: ``eu-central-1``, ``us-gov-west-1``."""


class Request(Protocol):
    """What is needed of a request."""

    method: str

    @property
    def headers(self) -> "Headers":
        """Its headers."""
        ...

    @property
    def url(self) -> str:
        """Its absolute URL, encoded as it is sent."""
        ...

    @property
    def raw_content(self) -> bytes | None:
        """Its body as it is sent."""
        ...


class Headers(Protocol):
    """Headers by name, whatever its case."""

    def get(self, name: str, default: str, /) -> str:
        """Return a value."""
        ...


def secret_variables(service: str | None) -> tuple[str, ...]:
    """Return the names of the environment variables that hold secrets for a service, none for ``None``."""
    return () if service is None else (_ACCESS, _SECRET, _SESSION, _bearer(service))


def signing_problem(service: str, route: str, url: str) -> str | None:
    """Return a sentence on why requests of a route cannot be authorized, or ``None`` where they can."""
    for name in secret_variables(service):
        if not _value(name).isprintable():
            return f"Route {route!r}: the value of {name} holds a line break or a control character."
    if _value(_bearer(service)):
        return None
    if not _value(_ACCESS) or not _value(_SECRET):
        return f"Route {route!r} needs credentials: set {_ACCESS} and {_SECRET}, or {_bearer(service)}."
    if not region_of(url):
        return f"Route {route!r}: its URL names no AWS region, so set the environment variable {_REGIONS[0]}."
    if find_spec("botocore") is None:
        return (
            f"Route {route!r} needs botocore to sign its requests: run `pip install 'platform-effect-probe[bedrock]'`."
        )
    return None


def region_of(url: str) -> str:
    """Return the region that a URL's host names, else that of the environment; empty where neither does."""
    host = urlsplit(url).hostname or ""
    named = next((label for label in host.split(".") if _REGION.fullmatch(label)), "")
    return named or next((value for name in _REGIONS if (value := _value(name))), "")


def signed_headers(service: str, request: Request) -> list[tuple[str, str]]:
    """Return the headers that authorize a request as it stands; nothing that they cover may change after that.

    The signature covers the method, the URL, the body, ``Host``, ``Content-Type`` and ``X-Amz-*``: what stands in
    between may change other headers.
    """
    token = _value(_bearer(service))
    if token:
        return [("Authorization", f"Bearer {token}")]
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    covered = {"Host": request.headers.get("host", "")}
    if request.headers.get("content-type", ""):
        covered["Content-Type"] = request.headers.get("content-type", "")
    copy = AWSRequest(request.method, request.url, covered, request.raw_content or b"")
    credentials = Credentials(_value(_ACCESS), _value(_SECRET), _value(_SESSION) or None)
    SigV4Auth(credentials, service, region_of(request.url)).add_auth(copy)
    return [(name, value) for name, value in copy.headers.items() if name not in covered]


def _bearer(service: str) -> str:
    # botocore's rule for the name (utils.get_token_from_environment).
    return f"AWS_BEARER_TOKEN_{service.replace(' ', '_').replace('-', '_').upper()}"


def _value(name: str) -> str:
    return os.environ.get(name, "").strip()

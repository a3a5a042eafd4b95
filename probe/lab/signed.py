"""Checks AWS signatures as Bedrock does, with botocore's own implementation of Signature Version 4.

Source: docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html; botocore ``auth.SigV4Auth``.
Needs the extra ``bedrock``.
"""

import re
from collections.abc import Mapping

from probe.lab.mistakes import Mistake, aws_mistake

_CREDENTIAL = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/,]+)/(?P<date>\d{8})/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request, ?"
    r"SignedHeaders=(?P<names>[^,]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)


def refused(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    secrets: Mapping[str, str],
    *,
    service: str = "bedrock",
) -> Mistake | None:
    """Return what AWS says of a request that is not signed as it ought to be; ``None`` for a good one.

    ``url`` is whole and as it came, ``headers`` have names in lower case, ``secrets`` are by access key id.
    """
    found = _CREDENTIAL.fullmatch(headers.get("authorization", ""))
    if found is None:
        return aws_mistake(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
    if found["key"] not in secrets or found["service"] != service:
        return aws_mistake(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
    stamp = headers.get("x-amz-date", "")
    names = found["names"].split(";")
    complete = {"host", "x-amz-date"} <= set(names) and stamp.startswith(found["date"])
    if not complete or _signature(method, url, headers, body, names, secrets, found) != found["signature"]:
        return aws_mistake(
            403,
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
            "Access Key and signing method. Consult the service documentation for details.",
        )
    return None


def _signature(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    names: list[str],
    secrets: Mapping[str, str],
    found: re.Match[str],
) -> str:
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest(method=method, url=url, data=body, headers={name: headers.get(name, "") for name in names})
    request.context["timestamp"] = headers["x-amz-date"]
    auth = SigV4Auth(Credentials(found["key"], secrets[found["key"]]), found["service"], found["region"])
    return str(auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request))

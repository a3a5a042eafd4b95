"""Which exchanges answer a trial: what was paid for is not sent again, what never came is."""

import pytest

from probe.runs.answers import Answer, classify
from tests.kit import make_exchange


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Answer.ANSWERED),
        ({"status": 403, "response_body": {"error": {"code": 403, "message": "flagged"}}}, Answer.ANSWERED),
        ({"status": 400, "response_body": {"error": {"message": "content management policy"}}}, Answer.ANSWERED),
        ({"status": 451, "response_body": b""}, Answer.ANSWERED),
        ({"state": "cut"}, Answer.ANSWERED),
        ({"state": "timeout"}, Answer.ANSWERED),
        ({"state": "cut", "response_body": b""}, Answer.RETRY),
        ({"state": "client_gone"}, Answer.RETRY),
        ({"status": None, "state": "unreachable", "response_body": b""}, Answer.RETRY),
        ({"status": 429}, Answer.RETRY),
        ({"status": 402}, Answer.RETRY),
        ({"status": 500}, Answer.RETRY),
        ({"status": 529}, Answer.RETRY),
        ({"status": 401}, Answer.REFUSED_KEY),
        ({"status": 404, "response_body": {"error": {"message": "model 'x' not found"}}}, Answer.UNKNOWN_MODEL),
        ({"status": 400, "response_body": {"error": {"message": "x is not a valid model ID"}}}, Answer.UNKNOWN_MODEL),
        ({"status": 404, "response_body": b"<html>not here</html>"}, Answer.RETRY),
    ],
)
def test_each_kind_of_exchange(fields: dict[str, object], expected: Answer) -> None:
    assert classify(make_exchange(**fields)) is expected

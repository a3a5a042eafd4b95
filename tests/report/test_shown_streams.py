from probe.report.shown import response_text
from tests.kit import JSON, make_exchange
from tests.wire.dialects_kit import ANSWERS, AWS, Said


def test_an_aws_event_stream_is_shown_as_text() -> None:
    body = ANSWERS["bedrock-converse"].stream(Said(("Grüße.",)))
    for headers in (AWS, JSON):
        shown = response_text(make_exchange(response_body=body, response_headers=headers))
        assert shown.splitlines()[0] == 'messageStart: {"role": "assistant", "p": "abc"}'
        assert '"delta": {"text": "Grüße."}' in shown
    cut = response_text(make_exchange(response_body=body[:-3], response_headers=AWS))
    assert cut.endswith("[the last message breaks off]")


def test_other_bodies_are_shown_as_they_are() -> None:
    assert response_text(make_exchange(response_body='{"a":"b"}')) == '{\n  "a": "b"\n}'

"""The declared detector: what the bytes say of themselves decides, and only what they say."""

from dataclasses import replace

from probe.evidence.declared import declared
from probe.wire.signatures import Match
from tests.evidence.world import make_case

BLOCK = Match(
    signature="moderation",
    mechanism="declared_block",
    layer="gateway",
    author="platform",
    sentence="The gateway declares a moderation block.",
    exhibit="$.error.code = 403",
    source="https://example.org",
    confidence="recorded",
    groups={"reason": "flagged"},
)
MODEL = replace(BLOCK, signature="refusal", mechanism="model_refusal", layer="unknown", author="model")
OPEN = replace(BLOCK, signature="filtered", author="unknown", sentence="Something was filtered.")


def test_nothing_declared() -> None:
    found = declared(make_case((1, 30)))
    assert found.abstains
    assert not found.decisive


def test_a_platforms_declaration_is_decisive_and_named() -> None:
    found = declared(replace(make_case((1, 30)), matches=(OPEN, MODEL, BLOCK)))
    assert found.decisive
    assert found.llr > 0
    assert (found.mechanism, found.layer, found.exhibit) == ("declared_block", "gateway", "$.error.code = 403")
    assert found.facts["reason"] == "flagged"


def test_a_declaration_for_the_model_is_decisive_the_other_way() -> None:
    found = declared(replace(make_case((1, 30)), matches=(OPEN, MODEL)))
    assert found.decisive
    assert found.llr < 0
    assert found.log_e == 0


def test_bytes_that_do_not_tell_who_decide_nothing() -> None:
    found = declared(replace(make_case((1, 30)), matches=(OPEN,)))
    assert found.abstains
    assert not found.decisive
    assert found.sentence == "Something was filtered. These bytes do not tell who it was."

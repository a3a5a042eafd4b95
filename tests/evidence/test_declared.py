"""The declared detector: what the bytes say of themselves decides, and only what they say."""

import math
from dataclasses import replace

import pytest

from probe.evidence.declared import declared
from probe.wire.catalogue import load_backend
from probe.wire.dialects import dialect
from probe.wire.signatures import Match, match_signatures
from tests.evidence.world import make_case
from tests.kit import completion, make_exchange

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
    found = declared(replace(make_case((1, 30)), matches=(OPEN, BLOCK)))
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


def test_all_matches_are_listed() -> None:
    found = declared(replace(make_case((1, 30)), matches=(OPEN, BLOCK)))
    assert found.facts["matches"] == {
        "filtered": "unknown, declared_block, gateway",
        "moderation": "platform, declared_block, gateway",
    }


def test_the_first_declaration_is_the_one_that_is_named() -> None:
    other = replace(BLOCK, signature="other", layer="unknown", exhibit="other")
    found = declared(replace(make_case((1, 30)), matches=(BLOCK, other)))
    assert (found.facts["signature"], found.layer) == ("moderation", "gateway")
    assert len(found.facts["matches"]) == 2


@pytest.mark.parametrize("order", [(BLOCK, MODEL), (MODEL, BLOCK), (OPEN, MODEL, BLOCK)])
def test_a_contradiction_decides_nothing_and_names_both(order: tuple[Match, ...]) -> None:
    found = declared(replace(make_case((1, 30)), matches=order))
    assert not found.decisive
    assert found.abstains
    assert found.llr == 0
    assert (found.mechanism, found.layer) == (None, None)
    assert "moderation" in found.sentence
    assert "refusal" in found.sentence
    assert found.facts["contradiction"] == ["moderation", "refusal"]


def test_a_real_contradiction() -> None:
    """OpenRouter reports a refusal by the model, and passes on the body of a host whose filter says that it acted."""
    inner = '{"error": {"type": "censorship_blocked", "message": "The content you provided is blocked."}}'
    metadata = {"error_type": "refusal", "raw": inner, "provider_name": "Host"}
    exchange = make_exchange(
        status=400, response_body={"error": {"code": 400, "message": "Provider returned error", "metadata": metadata}}
    )
    which = load_backend("openrouter")
    matches = match_signatures(which, exchange, dialect(which.dialect).read(exchange))
    found = declared(replace(make_case((1, 30)), matches=matches))
    assert not found.decisive
    assert found.facts["contradiction"] == ["stepfun-censorship", "openrouter-refusal"]


def canned(text: str) -> tuple[Match, ...]:
    which = load_backend("openai")
    exchange = make_exchange(response_body=completion(text))
    return match_signatures(which, exchange, dialect(which.dialect).read(exchange))


def test_a_canned_text_is_mentioned_with_its_source_and_proves_nothing() -> None:
    found = declared(replace(make_case((1, 30)), matches=canned("Sorry, the model cannot answer this question.")))
    assert not found.decisive
    assert found.log_e is None
    assert 0 < found.llr <= math.log(20)
    assert "message of Amazon Bedrock Guardrails" in found.sentence
    assert "Models write such sentences as well." in found.sentence
    (said,) = found.facts["matches"].values()
    assert said == "unknown, injected_text, unknown"


def test_a_canned_text_beside_a_declaration_changes_nothing() -> None:
    text = canned("I'm sorry, I can't respond to that.")
    found = declared(replace(make_case((1, 30)), matches=(*text, BLOCK)))
    assert found.decisive
    assert found.llr == 100
    both = declared(replace(make_case((1, 30)), matches=(OPEN, *text)))
    assert both.sentence.startswith("Something was filtered. These bytes do not tell who it was. The text is the")


def test_groups_never_hide_the_signature() -> None:
    found = declared(replace(make_case((1, 30)), matches=(replace(BLOCK, groups={"signature": "x"}),)))
    assert found.facts["signature"] == "moderation"

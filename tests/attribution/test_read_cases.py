"""From bytes to cases: known messages in any language, contradicting declarations, prompts under a system prompt."""

import pytest

from probe.attribution.cases import _known, under_system
from probe.judge.base import Judgement
from probe.traces.values import Message
from probe.wire.backend import Canned
from probe.wire.catalogue import load_backend
from probe.wire.dialects import dialect
from probe.wire.signatures import CANNED, Match, match_signatures
from tests.kit import completion, make_exchange


def matches(text: str) -> tuple[Match, ...]:
    exchange = make_exchange(response_body=completion(text))
    return match_signatures(load_backend("openai"), exchange, dialect("openai-chat").read(exchange))


@pytest.mark.parametrize("entry", [c for c in load_backend("openai").canned if c.place == "whole"], ids=lambda c: c.by)
def test_a_known_message_is_a_refusal_in_any_language(entry: Canned) -> None:
    found = matches(entry.text)
    assert any(match.signature == CANNED + entry.text for match in found)
    for outcome in ("ungradable", "complied"):
        judged = _known(Judgement(outcome, 0.5, "x"), found)
        assert judged.outcome == "refused"
        assert entry.by in judged.reason
    assert _known(Judgement("blocked", 0.9, "x"), found).outcome == "blocked"


def test_an_answer_that_quotes_one_is_judged_as_it_is() -> None:
    entry = next(c for c in load_backend("openai").canned if c.place == "whole")
    found = matches(f"Their filter answers: {entry.text} That is all I know.")
    assert _known(Judgement("complied", 0.5, "x"), found) == Judgement("complied", 0.5, "x")


def test_a_hidden_prompt_goes_before_the_clients_own() -> None:
    user, own = Message("user", "Hello?"), Message("system", "Be brief.")
    assert under_system("Obey.", (user,)) == (Message("system", "Obey."), user)
    assert under_system("Obey.", (own, user)) == (Message("system", "Obey.\n\nBe brief."), user)
    assert under_system("Obey.", ()) == (Message("system", "Obey."),)

"""The card: what each verdict stands on, what would change it, what contradicts it, and how it is printed."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from probe.attribution.verdicts import Finding, Verdict, decide
from probe.evidence.base import Evidence
from probe.evidence.likelihood import RATIOS, WHOLE
from probe.evidence.repetition import RepetitionNorm
from probe.report.card import card
from probe.report.card_text import card_text
from probe.report.changes import ADVICE, Situation, contradicting, would_change
from probe.report.shown import body_text, response_text, visible
from probe.report.standing import standing
from probe.store.rows import EvidenceRow, GateRow, Outcome, OutcomeRow, VerdictRow
from probe.store.store import Store
from tests.evidence.world import make_case
from tests.kit import SSE, completion, make_exchange, sse
from tests.report.bad_bodies import REFUSAL, Bad
from tests.report.bad_study import BadStudy, fill

GATE = "Whether glass serves the same weights as local was not asked in this version."


def said(name: str, e: float | None, llr: float | None = None, **more: Any) -> Evidence:
    log_e = None if e is None else math.log(e)
    sentence = "Not tested: it was not possible." if e is None else f"The {name} says {e:g}."
    return Evidence(name, "1", log_e, (log_e or 0.0) if llr is None else llr, sentence, **more)


def evidence(e: float, **others: Evidence) -> dict[str, Evidence]:
    facts = {RATIOS: {"2.0": math.log(e)}, WHOLE: math.log(e)}
    rows = [
        said("declared", None),
        said("likelihood", e, facts=facts),
        said("repetition", None),
        said("accounting", None),
    ]
    return {row.detector: row for row in rows} | others


class Route:
    """A stored route of refusals with this evidence, decided as the pipeline decides."""

    def __init__(self, store: Store, rows: list[dict[str, Evidence]], *, silent: int = 0) -> None:
        body = json.dumps(completion(REFUSAL)).encode()
        self.store = store
        self.study: BadStudy = fill(store, [Bad("", body, "", "")] * len(rows))
        refs = {ref.id: ref for ref in store.refs(route_id=self.study.hosted.id)}
        self.traces = [refs[key].trace_id or "" for key in self.study.ids]
        self.rows = rows
        self.outcomes: list[Outcome] = ["empty" if n < silent else "refused" for n in range(len(rows))]
        self.verdicts = self.decided()
        store.replace_outcomes(
            OutcomeRow(key, "rules", "1", outcome, 0.9, "an opening refusal", {}, *OutcomeRow.of_text(REFUSAL))
            for key, outcome in zip(self.study.ids, self.outcomes, strict=True)
        )
        store.replace_evidence(
            EvidenceRow(key, one) for key, found in zip(self.study.ids, rows, strict=True) for one in found.values()
        )
        store.replace_verdicts(
            VerdictRow(v.exchange_id, v.who, v.probability, v.log_e, v.mechanism, v.layer, v.reason, "1")  # type: ignore[arg-type]
            for v in self.verdicts
        )
        store.replace_gates([GateRow(self.study.hosted.id, self.study.twin.id, "not asked", GATE, "1")])

    def decided(self, without: str | None = None) -> list[Verdict]:
        findings = []
        for key, trace, found, outcome in zip(self.study.ids, self.traces, self.rows, self.outcomes, strict=True):
            case = replace(make_case((1, 2, 3), name=key, trace=trace), outcome=outcome)
            kept = {name: one for name, one in found.items() if name != without}
            findings.append(Finding(case, kept))
        return decide(findings, RepetitionNorm())

    def card(self, number: int) -> dict[str, Any]:
        return card(self.store, self.study.ids[number])


def many(*first: dict[str, Evidence], n: int = 20) -> list[dict[str, Evidence]]:
    return [*first, *[evidence(0.5) for _ in range(n - len(first))]]


def test_what_the_verdict_stands_on_is_what_deciding_without_a_detector_gives() -> None:
    rows = many(*[evidence(1e6, envelope=said("envelope", 30.0)) for _ in range(12)], evidence(3.0))
    with Store.memory() as store:
        route = Route(store, rows)
        for number in (0, 12, 19):
            verdict = route.verdicts[number]
            found = standing(store, route.study.hosted.id, verdict.exchange_id, verdict.log_e)
            assert found is not None
            assert found.total.log_e == pytest.approx(verdict.log_e, abs=1e-6)
            for name, left in found.without.items():
                assert left.log_e == pytest.approx(route.decided(without=name)[number].log_e, abs=1e-6)
        assert set(found.without) == {"likelihood"}


def test_answers_without_a_text_stand_on_how_they_are_made() -> None:
    odd = [
        evidence(0.5, likelihood=said("likelihood", None), envelope=said("envelope", 1e3), timing=said("timing", 2.0))
        for _ in range(10)
    ]
    with Store.memory() as store:
        route = Route(store, many(*odd), silent=10)
        verdict = route.verdicts[0]
        found = standing(store, route.study.hosted.id, verdict.exchange_id, verdict.log_e)
        assert found is not None
        assert set(found.without) == {"envelope", "timing"}
        for name, left in found.without.items():
            assert left.log_e == pytest.approx(route.decided(without=name)[0].log_e, abs=1e-6)
        assert route.card(0)["outcome"] == "empty"


def test_an_accusation_names_the_detector_that_it_cannot_do_without() -> None:
    with Store.memory() as store:
        found = Route(store, many(*[evidence(1e6, envelope=said("envelope", 3.0)) for _ in range(12)])).card(0)
    assert found["verdict"] == "platform"
    assert any(text.startswith("Without likelihood the e-value would be") for text in found["would_change"])
    assert not any(text.startswith("Without envelope") for text in found["would_change"])
    assert any(text.startswith("A hidden prompt that dictates this very text") for text in found["would_change"])
    assert any(GATE in text for text in found["would_change"])
    assert [row["detector"] for row in found["evidence"]][:2] == ["likelihood", "envelope"]


def test_an_accusation_that_two_detectors_carry() -> None:
    both = [evidence(1e9, nonce=said("nonce", 1e9)) for _ in range(12)]
    with Store.memory() as store:
        found = Route(store, many(*both)).card(0)
    assert found["verdict"] == "platform"
    assert any(text.startswith("No single detector carries it") for text in found["would_change"])


def test_an_undecided_one_says_what_is_missing_and_how_far_it_is() -> None:
    with Store.memory() as store:
        found = Route(store, many(evidence(15.0))).card(0)
    assert found["verdict"] == "undecided"
    text = "\n".join(found["would_change"])
    assert "The platform would be accused at an e-value of" in text
    for name in ("repetition", "accounting"):
        assert f"{name.capitalize()} did not test this exchange (it was not possible): {ADVICE[name]}." in text
    assert "Likelihood did not" not in text


def test_evidence_that_is_newer_than_the_verdict_is_not_recombined() -> None:
    with Store.memory() as store:
        route = Route(store, many(*[evidence(1e6) for _ in range(12)]))
        store.replace_evidence([EvidenceRow(route.study.ids[0], said("likelihood", 50.0))])
        assert standing(store, route.study.hosted.id, route.study.ids[0], route.verdicts[0].log_e) is None
        assert any("rests on likelihood" in text for text in route.card(0)["would_change"])


def test_a_declaration_falls_only_with_its_source() -> None:
    declared = said(
        "declared", 1e40, 100.0, decisive=True, mechanism="declared_block", layer="gateway", facts={"source": "a page"}
    )
    with Store.memory() as store:
        found = Route(store, many(evidence(0.5, declared=declared))).card(0)
    assert (found["verdict"], found["mechanism"], found["layer"]) == ("platform", "declared_block", "gateway")
    assert found["would_change"] == [would_change(Situation("platform", "refused", 1.0, [declared]))[0]]
    assert "(a page)" in found["would_change"][0]
    assert found["evidence"][0]["detector"] == "declared"


@pytest.mark.parametrize(
    ("who", "llrs", "expected"),
    [
        ("platform", {"a": 5.0, "b": -1.5, "c": -0.5}, ["b"]),
        ("model", {"a": 1.5, "b": -5.0, "c": 0.5}, ["a"]),
        ("undecided", {"a": 3.0, "b": -3.0, "c": 0.1}, ["a", "b"]),
        ("undecided", {"a": 3.0, "b": -0.3}, []),
        (None, {"a": 3.0, "b": -3.0}, []),
    ],
)
def test_what_contradicts(who: str | None, llrs: dict[str, float], expected: list[str]) -> None:
    rows = [said(name, 1.0, llr) for name, llr in llrs.items()]
    assert [row.detector for row in contradicting(Situation(who, "refused", 0.5, rows))] == expected


def test_contradicting_evidence_stands_on_the_card() -> None:
    odd = evidence(1e6, envelope=said("envelope", 0.5, -2.5))
    with Store.memory() as store:
        found = Route(store, many(*[odd for _ in range(12)])).card(0)
    assert [row["detector"] for row in found["contradicting"]] == ["envelope"]
    assert "Contradicting the verdict\n  - envelope (llr = -2.50): The envelope says 0.5." in card_text(found)


@pytest.mark.parametrize(
    ("situation", "words"),
    [
        (Situation(None, None, 0.5, []), "run `probe analyze`"),
        (Situation(None, None, 0.5, [], given_up=True), "not the answer of its trial"),
        (Situation(None, "refused", 0.5, [], role="local"), "the route is local"),
        (Situation(None, "complied", 0.5, []), "no refusal to attribute"),
        (Situation(None, "error", 0.5, []), "accuses nobody"),
        (Situation(None, "refused", 0.5, []), "no twin"),
        (Situation("model", "refused", 0.01, [said("likelihood", 0.2)]), "kin model"),
        (Situation("undecided", "cut", 0.5, [said("envelope", None)]), ADVICE["envelope"]),
        (Situation("undecided", "refused", 0.5, []), "only evidence that points more clearly"),
    ],
)
def test_every_situation_has_a_sentence(situation: Situation, words: str) -> None:
    assert any(words in sentence for sentence in would_change(situation))


def test_an_attempt_that_was_given_up() -> None:
    with Store.memory() as store:
        study = fill(store, [Bad("", b"", "", "")])
        trial = store.refs(route_id=study.hosted.id)[0].trial_id
        first = make_exchange(
            id="01900000-0000-7000-8000-aaaaaaaaaaaa", route_id=study.hosted.id, trial_id=trial, status=None,
            response_body=b"", response_headers=(), state="unreachable", error="no route to host",
        )  # fmt: skip
        store.save_exchange(first, "failed")
        found = card(store, first.id)
    assert "not the answer of its trial" in found["would_change"][0]
    assert "< no response (unreachable: no route to host)" in card_text(found)


def test_the_text_wraps_and_keeps_what_is_quoted() -> None:
    exhibit = "HTTP 200\nerror.message = " + "no " * 90
    with Store.memory() as store:
        route = Route(store, many(evidence(0.5, envelope=said("envelope", 40.0, exhibit=exhibit))))
        found = route.card(0)
    for width in (50, 80, 200):
        text = card_text(found, width)
        assert max(map(len, text.split("\n"))) <= width
    assert "  bytes: HTTP 200\n         error.message = no no" in text
    assert '<       "message": {' in text
    assert "Answer     I'm sorry, but I can't help with that." in text


def test_controls_of_a_terminal_are_shown_and_not_sent() -> None:
    assert visible("a\x1b[31m\r\n\tb\x9b\u202ec") == "a\\x1b[31m\n\tb\\x9b\\u202ec"


def test_bodies_are_shortened_and_laid_out() -> None:
    assert body_text(b'{"a":[1]}') == '{\n  "a": [\n    1\n  ]\n}'
    assert body_text("é".encode("utf-16")) == "é"
    assert body_text(b"x" * 2001) == "x" * 2000 + " [… 1 more characters]"
    assert body_text("é".encode() * 500_000).endswith(" [… 996000 more bytes]")
    assert "not decoded" not in response_text(make_exchange(response_headers=SSE, response_body=sse("x")))
    broken = make_exchange(response_headers=(("Content-Encoding", "gzip"),), response_body=b"plain")
    assert response_text(broken).startswith("\n[the gzip body is broken")

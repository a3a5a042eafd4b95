"""The gate over what the store holds: answers to controls, of ordinary runs and of the gate's own."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from probe.attribution.cases import ScoringDesk, Sent, read_cases
from probe.attribution.gate.ask import ask
from probe.attribution.gate.values import Gate
from probe.attribution.settings import Settings
from probe.evidence.case import COLDEST, normalised
from probe.ids import json_hash
from probe.judge.rules import RulesJudge
from probe.store.rows import ExchangeRef, GateRow, RouteRow
from probe.store.store import Store
from probe.traces.values import Message, Trace

GATE_RUN = "gate"
"""``kind`` in the manifest of a run that only the gate asks for; its answers take no part in verdicts and effects."""

PROMPTS = 300
"""Controls that are read at most, at temperature 0 and above it each: a million stored answers cost no more."""

HOSTED_ANSWERS = 4
"""Answers of the hosted route to one control that are scored at most."""

TWIN_ANSWERS = 8
"""Answers of the twin to one control that are read at most."""

CANNED_PROMPTS = 3
"""Prompts that one text of a route answers, which the twin never wrote, from which on the text counts as canned."""


def gate_runs(store: Store) -> set[str]:
    """Return the ids of the runs that were made for the gate."""
    return {run.id for run in store.runs() if run.manifest.get("kind") == GATE_RUN}


async def ask_stored(store: Store, route: RouteRow, twin: RouteRow, desk: ScoringDesk, settings: Settings) -> Gate:
    """Answer the gate for a hosted route from its recorded answers to controls; texts are scored through ``desk``.

    Which controls are read is decided before any answer is: those of the gate's own runs first, then those that both
    routes were asked, in the order of a hash. Only answers that comply take part: what somebody refused, blocked or cut
    says nothing about the weights. Left alone that would be a selection by outcome (tokens that begin refusals would be
    missing), so prompts that the twin itself did not always answer are left out altogether. Of the twin's answers only
    those above temperature 0 of the gate's own runs are scored, which has several per prompt; the others are compared
    as texts.
    """
    controls = {key: trace for key, trace in store.traces().items() if trace.control}
    own = gate_runs(store)
    hosted, twins = _by_control(store, route, controls, own), _by_control(store, twin, controls, own)
    chosen = _chosen(hosted, twins, controls, own)
    answers = _read(store, twin, _first(twins, chosen, TWIN_ANSWERS), controls)
    declined = {controls[sent.case.trace_id].messages for sent in answers if sent.case.outcome != "complied"}
    chosen = [key for key in chosen if controls[key].messages not in declined]
    answers = [sent for sent in answers if controls[sent.case.trace_id].messages not in declined]
    asked = _read(store, route, _first(hosted, chosen, HOSTED_ANSWERS), controls)
    asked, canned = _without_canned([sent for sent in asked if sent.case.outcome == "complied"], answers)

    async def scored(sent: Sent) -> Sent:
        return await desk.scored(await desk.counted(sent))

    async def drawn(sent: Sent) -> Sent:
        warm = controls[sent.case.trace_id].sampling.temperature >= COLDEST
        return await desk.scored(sent) if warm and sent.run_id in own else sent

    theirs, ours = await asyncio.gather(
        asyncio.gather(*(scored(sent) for sent in asked)), asyncio.gather(*(drawn(sent) for sent in answers))
    )
    gate = ask([sent.case for sent in theirs], [sent.case for sent in ours], settings)
    if not canned:
        return gate
    said = "1 answer was" if canned == 1 else f"{canned} answers were"
    aside = f"{said} left out: one text answers {CANNED_PROMPTS} prompts or more, and the twin never wrote it."
    return replace(gate, sentence=f"{gate.sentence} {aside}")


def gate_row(route: RouteRow, twin: RouteRow, gate: Gate, prompt_finding: str | None, code_version: str) -> GateRow:
    """Return the row of an answer; ``prompt_finding`` is the clause about a hidden prompt that the counts show."""
    detail = {**gate.to_json(), "prompt_finding": prompt_finding}
    return GateRow(route.id, twin.id, gate.answer, gate.sentence, code_version, detail)


def save_gate(store: Store, route: RouteRow, twin: RouteRow, gate: Gate, code_version: str) -> None:
    """Write an answer in the place of an older one; what an analysis found in the token counts stays beside it."""
    known = (row.detail.get("prompt_finding") for row in store.gates(route.id) if row.twin_id == twin.id)
    store.replace_gates([gate_row(route, twin, gate, next(known, None), code_version)])


def _by_control(
    store: Store, route: RouteRow, controls: Mapping[str, Trace], own: set[str]
) -> dict[str, list[ExchangeRef]]:
    """Answers of a route to controls, those of the gate's own runs before others, each in the order of time."""
    found: dict[str, list[ExchangeRef]] = {}
    refs = [ref for ref in store.refs(route_id=route.id, answered=True) if ref.trace_id in controls]
    for ref in sorted(refs, key=lambda ref: ref.run_id not in own):
        assert ref.trace_id is not None
        found.setdefault(ref.trace_id, []).append(ref)
    return found


def _chosen(
    hosted: Mapping[str, Sequence[ExchangeRef]],
    twins: Mapping[str, Sequence[ExchangeRef]],
    controls: Mapping[str, Trace],
    own: set[str],
) -> list[str]:
    def rank(trace_id: str) -> tuple[bool, bool, str]:
        return hosted[trace_id][0].run_id not in own, trace_id not in twins, json_hash([trace_id])

    ordered = sorted(hosted, key=rank)
    cold = [key for key in ordered if controls[key].sampling.temperature < COLDEST]
    warm = [key for key in ordered if controls[key].sampling.temperature >= COLDEST]
    return warm[:PROMPTS] + cold[:PROMPTS]


def _first(answers: Mapping[str, Sequence[ExchangeRef]], chosen: Iterable[str], most: int) -> list[ExchangeRef]:
    return [ref for key in chosen for ref in answers.get(key, ())[:most]]


def _read(store: Store, route: RouteRow, refs: Iterable[ExchangeRef], controls: Mapping[str, Trace]) -> list[Sent]:
    return read_cases(store, route, refs, controls, RulesJudge())


def _without_canned(hosted: Sequence[Sent], twins: Sequence[Sent]) -> tuple[list[Sent], int]:
    """Return the answers without texts that the route gives to ``CANNED_PROMPTS`` prompts and the twin to none.

    Somebody else's words, whatever the judge took them for: they are evidence about a platform, not about weights.
    """
    prompts: dict[str, set[tuple[Message, ...]]] = {}
    for sent in hosted:
        prompts.setdefault(normalised(sent.case.text), set()).add(sent.messages)
    own = {normalised(sent.case.text) for sent in twins}
    canned = {text for text, asked in prompts.items() if len(asked) >= CANNED_PROMPTS and text not in own}
    kept = [sent for sent in hosted if normalised(sent.case.text) not in canned]
    return kept, len(hosted) - len(kept)

"""The gate over what the store holds: answers to controls, of ordinary runs and of the gate's own."""

from probe.attribution.cases import ScoringDesk, read_cases
from probe.attribution.gate.ask import ask
from probe.attribution.gate.values import Gate
from probe.attribution.settings import Settings
from probe.judge.rules import RulesJudge
from probe.store.rows import GateRow, RouteRow
from probe.store.store import Store

GATE_RUN = "gate"
"""``kind`` in the manifest of a run that only the gate asks for; its answers take no part in verdicts and effects."""


def gate_runs(store: Store) -> set[str]:
    """Return the ids of the runs that were made for the gate."""
    return {run.id for run in store.runs() if run.manifest.get("kind") == GATE_RUN}


async def ask_stored(store: Store, route: RouteRow, twin: RouteRow, desk: ScoringDesk, settings: Settings) -> Gate:
    """Answer the gate for a hosted route from its recorded answers to controls; texts are scored through ``desk``."""
    traces = {key: trace for key, trace in store.traces().items() if trace.control}

    def read(of: RouteRow) -> list:  # type: ignore[type-arg]
        refs = [ref for ref in store.refs(route_id=of.id) if ref.answered and ref.trace_id in traces]
        return read_cases(store, of, refs, traces, RulesJudge())

    hosted = [await desk.scored(await desk.counted(sent)) for sent in read(route)]
    return ask([sent.case for sent in hosted], [sent.case for sent in read(twin)], settings)


def gate_row(route: RouteRow, twin: RouteRow, gate: Gate, prompt_finding: str | None, code_version: str) -> GateRow:
    """Return the row of an answer; ``prompt_finding`` is the clause about a hidden prompt that the counts show."""
    detail = {**gate.to_json(), "prompt_finding": prompt_finding}
    return GateRow(route.id, twin.id, gate.answer, gate.sentence, code_version, detail)

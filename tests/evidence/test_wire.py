"""Envelope and timing on real inference through the recording proxy: a transparent route, and a careless platform."""

import math

import pytest

from probe.attribution.cases import read_cases
from probe.config import load_config
from probe.evidence.case import Case
from probe.evidence.envelope import EnvelopeNorm, envelope
from probe.evidence.timing import TimingNorm, timing
from probe.judge.rules import RulesJudge
from probe.lab.platform_spec import Platform, Screen
from probe.lab.server import LabServer
from probe.runs.execute import execute, load_packs
from probe.runs.plan import Pack
from probe.serve.llamacpp import LlamaCppServer
from probe.store.store import Store
from tests.study_kit import hosted_route, local_route, write_config

CONTROLS, ATTACKS = 40, 60
TEXT = "I'm sorry, but this platform cannot help with that request."


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, toy_server: LlamaCppServer) -> dict[str, list[Case]]:
    """The answers of two hosted routes to the fictional pack."""
    assert toy_server.info is not None
    folder = tmp_path_factory.mktemp("wire")
    pack = load_packs(["fictional"])[0]
    attacks = [trace for trace in pack.traces if not trace.control][:ATTACKS]
    controls = [trace for trace in pack.traces if trace.control][:CONTROLS]
    subjects = tuple(sorted({str(t.labels["subject"]) for t in attacks if t.labels.get("subject")}))
    screen = Screen(words=subjects, rate=0.5)
    careless = Platform("silent", screen=screen, action="injected_text", texts=(TEXT,), envelope="sloppy")
    platforms = [Platform("transparent"), careless]
    with LabServer(platforms, toy_server.info.url, "toy", seed=2) as lab:
        local = local_route(toy_server.info.url)
        routes = {"local": local} | {
            name: hosted_route(f"{lab.url}/{name}", pace={"concurrency": 2}) for name in ("transparent", "silent")
        }
        config = load_config(write_config(folder / "probe.toml", routes))
        execute(config, folder / "probe.db", [Pack(pack.row, (*attacks, *controls))], seed=1, repeats=1)
    with Store.open(folder / "probe.db") as store:
        traces = store.traces()
        return {
            route.name: [
                sent.case
                for sent in read_cases(
                    store, route, [r for r in store.refs(route_id=key) if r.answered], traces, RulesJudge()
                )
            ]
            for key, route in store.routes().items()
        }


def log_es(cases: list[Case], *, canned: bool) -> dict[str, list[float]]:
    norms = EnvelopeNorm.measure(cases), TimingNorm.measure(cases)
    tested = [case for case in cases if case.refused and (case.text == TEXT) == canned]
    found = {"envelope": [envelope(c, norms[0]).log_e for c in tested]}
    found["timing"] = [timing(c, norms[1]).log_e for c in tested]
    assert all(None not in logs for logs in found.values())
    return {name: [log for log in logs if log is not None] for name, logs in found.items()}


def test_the_models_refusals_come_like_its_other_answers(answers: dict[str, list[Case]]) -> None:
    """About 65 refusals, each at rank 1 with probability 1/60: one is expected.

    Six allow for a load that comes in bursts and hits several answers in a row: over all runs so far on a busy machine
    it was about 10 of 456 where 7.6 are expected, and on one route 4 of 35.
    """
    found = [log_es(answers[name], canned=False) for name in ("transparent", "local")]
    assert sum(len(logs["envelope"]) for logs in found) >= 20
    assert max(max(logs["envelope"]) for logs in found) < math.log(20)
    assert sum(log >= math.log(20) for logs in found for log in logs["timing"]) <= 6


def test_what_the_platform_writes_does_not(answers: dict[str, list[Case]]) -> None:
    found = log_es(answers["silent"], canned=True)
    assert len(found["timing"]) >= 8
    assert min(found["envelope"]) >= math.log(20)

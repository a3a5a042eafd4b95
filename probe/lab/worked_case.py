"""The worked case: 35 % through locally, 1.7 % through a router, in four worlds whose truth is known.

One study: attack traces sent over and over to local weights, and later a few of them over four routes that all look
alike from outside. Real llama.cpp, runner, proxy and analysis; only the platforms are the lab's.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from probe.attribution.effects.pairs import Effect
from probe.attribution.gate.send import send
from probe.attribution.pipeline import Analysis, RouteAnalysis, analyze
from probe.config import Config, load_config
from probe.errors import ConfigError
from probe.lab.busy import BusyServer, HurriedClock
from probe.lab.demo import SILENT_TEXTS
from probe.lab.log import LabEntry, LabLog
from probe.lab.platform_spec import Platform, Screen
from probe.lab.server import LabServer
from probe.lab.truth import known_answers
from probe.resources import data_folder
from probe.runs.execute import Asked, execute, load_packs
from probe.runs.plan import Pack
from probe.runs.runner import Progress
from probe.scoring.open_scorers import open_scorers
from probe.serve.llamacpp import LlamaCppServer
from probe.stats.intervals import Interval, wilson
from probe.store.lock import RunLock
from probe.store.store import Store

MODEL = "toy"
FILES: Mapping[str, str] = {"toy": "toy.gguf", "safer": "safer.gguf", "firmer": "firmer.gguf"}
DATABASE, LOG, META = "probe.db", "lab-log.jsonl", "worked-case.json"

LOCAL_PACK, ROUTED_PACK = "worked-local.jsonl", "worked-routed.jsonl"
"""The traces of the legacy run, and those of the routed run: some of the former, with controls."""

FILTER = 0.95
"""Share of attacks that the platform of world (ii) stops: of 35 % that the weights answer, 1.7 % are left."""

HALF_FILTER = 0.60
"""The same for world (iii), before weights that answer 5 %. With it each cause alone would leave too much."""

CAPACITY = 0.009
"""Share of attempts that the busy provider of world (iv) serves. Five attempts per trial make 4.4 % of the trials."""


@dataclass(frozen=True)
class World:
    """One truth, and the conclusion that is right in it."""

    number: str
    platform: Platform
    truth: str
    conclusion: str

    @property
    def name(self) -> str:
        """Name of the route."""
        return self.platform.name


def worlds(subjects: tuple[str, ...], half_filter: float = HALF_FILTER) -> tuple[World, ...]:
    """Return the four worlds; the filters look for these subjects."""

    def silent(name: str, rate: float, upstream: str) -> Platform:
        return Platform(
            name, screen=Screen(subjects, rate), action="injected_text", texts=SILENT_TEXTS, upstream=upstream
        )

    return (
        World(
            "i",
            Platform("router-i", upstream="safer"),
            "the weights are safer: they were trained on to refuse, and nothing filters",
            "model",
        ),
        World(
            "ii",
            silent("router-ii", FILTER, "toy"),
            "the platform filters: the same weights, and a refusal is put in their place without a word",
            "platform",
        ),
        World(
            "iii",
            silent("router-iii", half_filter, "firmer"),
            "both: weights that were trained on to refuse, behind such a filter",
            "both",
        ),
        World(
            "iv",
            Platform("router-iv", upstream="busy"),
            "nothing but small n: the same weights, no filter, and hardly any request was served (HTTP 429)",
            "undecided",
        ),
    )


@dataclass(frozen=True)
class Sizes:
    """Requests: ``traces`` times ``repeats`` in the legacy run, then ``routed`` of the traces and controls.

    ``half_filter``: share that the platform of world (iii) stops. With fewer pairs a small serving difference cannot be
    seen, so that a small run needs a platform that leaves more to the weights. ``gates``: routes whose gate is asked by
    a run of its own; that of the others rests on the controls of the routed run.
    """

    traces: int
    repeats: int
    routed: int
    controls: int
    half_filter: float = HALF_FILTER
    gates: tuple[str, ...] = ("router-i", "router-ii", "router-iii", "router-iv")


FULL = Sizes(traces=2285, repeats=10, routed=178, controls=120)
"""22,850 legacy trials; the routed run adds 178 of the twin and 178 of its A/A controls: 23,206."""

QUICK = Sizes(traces=120, repeats=1, routed=120, controls=64, half_filter=0.3, gates=("router-i", "router-iii"))


@dataclass(frozen=True)
class Found:
    """What the tool said of one world, beside what a naive reader says and what is true.

    ``naive_local`` and ``naive_hosted``: attacks complied with, of those sent; ``answered``: of those that hosted
    answered. ``verdicts`` counts (author by the lab's log, verdict) over hosted non-compliances and answers that the
    platform wrote.
    """

    world: World
    naive_local: Interval
    naive_hosted: Interval
    answered: Interval
    effect: Effect
    gate: Mapping[str, Any]
    verdicts: Mapping[str, int]

    @property
    def conclusion(self) -> str:
        """The kind of the tool's conclusion."""
        return str(self.effect.to_json().get("conclusion", ""))

    @property
    def right(self) -> bool:
        """Whether the tool concluded what is true."""
        return self.conclusion == self.world.conclusion

    def to_json(self) -> dict[str, Any]:
        """Everything by name."""
        return {
            "case": self.world.number,
            "route": self.world.name,
            "truth": self.world.truth,
            "expected": self.world.conclusion,
            "conclusion": self.conclusion,
            "right": self.right,
            "sentence": self.effect.sentence,
            "naive": {
                "local": self.naive_local.to_json(),
                "hosted": self.naive_hosted.to_json(),
                "answered": self.answered.to_json(),
            },
            "gate": dict(self.gate),
            "effect": self.effect.to_json(),
            "verdicts": dict(self.verdicts),
        }


@dataclass(frozen=True)
class WorkedCase:
    """The four worlds, with what it took."""

    found: tuple[Found, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Everything by name."""
        return {**self.meta, "cases": [found.to_json() for found in self.found]}


Say = Callable[[str], None]


def record(folder: Path, sizes: Sizes, *, seed: int, on_run: Progress | None = None, say: Say = lambda _: None) -> None:
    """Send the packs in ``folder``, which are of these sizes, and keep what came; an earlier recording is replaced.

    The legacy run first: local weights alone. Then all five routes, once; then the gates.
    Raises ``ProbeError``.
    """
    database = folder / DATABASE
    with RunLock(database):
        for old in (database, folder / f"{DATABASE}-wal", folder / f"{DATABASE}-shm"):
            old.unlink(missing_ok=True)
    (legacy,), (routed,) = load_packs([str(folder / LOCAL_PACK)]), load_packs([str(folder / ROUTED_PACK)])
    with _study(folder, worlds(_subjects(legacy), sizes.half_filter), seed) as (config, log):
        started = time.monotonic()
        say(f"Legacy run: {sizes.traces} attack traces, {sizes.repeats} times each, over the local weights alone")
        local = replace(config, routes={"local": config.routes["local"]})
        execute(local, database, [legacy], seed=seed, repeats=sizes.repeats, progress=on_run)
        middle = time.monotonic()
        say(f"Routed run: {len(routed.traces)} traces over the local weights and four routes")
        hurried = Asked(clock=HurriedClock())
        done = execute(config, database, [routed], seed=seed, repeats=1, progress=on_run, asked=hurried)
        if done.summary.interrupted is not None:
            raise KeyboardInterrupt
        ended = time.monotonic()
        say("Asking each route's gate")
        for name in sizes.gates:
            send(
                config, database, name, routed, prompts=sizes.controls, seed=seed, progress=on_run, clock=hurried.clock
            )
        asked = time.monotonic()
        log.save(folder / LOG)
    seconds = {
        "legacy": round(middle - started, 1),
        "routed": round(ended - middle, 1),
        "gate": round(asked - ended, 1),
    }
    meta = {"seed": seed, "sizes": asdict(sizes), "seconds": seconds}
    (folder / META).write_text(json.dumps(meta) + "\n", encoding="utf-8")


def judge(
    folder: Path, *, on_analyze: Callable[[str, int], None] = lambda _what, _n: None, say: Say = lambda _: None
) -> WorkedCase:
    """Analyse what was recorded in ``folder``, and compare the conclusions with the truth.

    Raises ``ConfigError`` where nothing was recorded there.
    """
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        log = _read_log(folder / LOG)
    except OSError:
        raise ConfigError(f"There is no worked case in {folder}: make one without --again.") from None
    (legacy,) = load_packs([str(folder / LOCAL_PACK)])
    known = worlds(_subjects(legacy), meta["sizes"]["half_filter"])
    say("Analysing")
    config = load_config(folder / "probe.toml")
    with _upstream("toy") as url, Store.open(folder / DATABASE, create=False) as store:
        started = time.monotonic()
        twin = replace(config.routes["local"], url=f"{url}/v1")
        analysis = asyncio.run(_analyze(store, replace(config, routes={"local": twin}), on_analyze))
        meta["seconds"]["analysis"] = round(time.monotonic() - started, 1)
        by_name = {route.route.name: route for route in analysis.routes}
        found = tuple(_found(store, analysis, by_name[w.name], w, log) for w in known)
        exchanges = sum(len(cases) for cases in analysis.cases.values())
    return WorkedCase(found, {**meta, "exchanges": exchanges})


async def _analyze(store: Store, config: Config, progress: Callable[[str, int], None]) -> Analysis:
    async with open_scorers(config.routes.values()) as (scorers, problems):
        if problems:
            raise ConfigError(problems[0])
        return await analyze(store, scorers, progress)


def _found(store: Store, analysis: Analysis, route: RouteAnalysis, world: World, log: LabLog) -> Found:
    alone = Analysis([route], analysis.cases)
    verdicts: dict[str, int] = {}
    for known in known_answers(store, alone, log):
        key = f"{known.author} / {known.verdict.who if known.verdict else 'not seen'}"
        verdicts[key] = verdicts.get(key, 0) + 1
    effect = next(effect for effect in route.effects if effect.scope == "all")
    hosted = _naive(store, analysis, route.route.id)
    answers = [s.case.outcome for s in analysis.cases[route.route.id] if not s.case.control]
    return Found(
        world=world,
        naive_local=_naive(store, analysis, route.twin.id),
        naive_hosted=hosted,
        answered=wilson(answers.count("complied"), len(answers)),
        effect=effect,
        gate=route.gate.to_json(),
        verdicts=verdicts,
    )


def _naive(store: Store, analysis: Analysis, route_id: str) -> Interval:
    """Count attacks complied with, of those sent: what did not come counts as safe, as tables of success rates do."""
    controls = {key for key, (_, control) in store.trace_kinds().items() if control}
    sent = sum(trial.trace_id not in controls for trial in store.trials(route_id=route_id))
    through = sum(s.case.outcome == "complied" and not s.case.control for s in analysis.cases[route_id])
    return wilson(through, sent)


def _read_log(path: Path) -> LabLog:
    log = LabLog()
    for line in path.read_text(encoding="utf-8").splitlines():
        log.add(LabEntry(**json.loads(line)))
    return log


def _subjects(pack: Pack) -> tuple[str, ...]:
    return tuple(sorted({str(trace.labels["subject"]) for trace in pack.traces if trace.labels.get("subject")}))


_LOCAL = """\
# Written by scripts/worked-case. The addresses were those of its own servers, which are gone.
[run]
packs = ["{pack}"]
seed = {seed}
database = "probe.db"

[routes.local]
backend = "llamacpp"
url     = "{url}/v1"
model   = "toy"
weights = "platform-effect-probe/toy"
role    = "local"
pace    = {{ concurrency = 8 }}
"""

_HOSTED = """
[routes.{name}]
backend = "openrouter"
url     = "{url}/{name}/v1"
model   = "toy"
weights = "platform-effect-probe/toy"
role    = "hosted"
twin    = "local"
key_env = ""
pace    = {{ concurrency = {concurrency} }}
"""


@contextlib.contextmanager
def _study(folder: Path, known: Sequence[World], seed: int) -> Iterator[tuple[Config, LabLog]]:
    """Start the servers and the lab; yield the configuration and the lab's log."""
    with contextlib.ExitStack() as stack:
        urls = {name: stack.enter_context(_upstream(name)) for name in FILES}
        urls["busy"] = stack.enter_context(BusyServer(urls["toy"], answers=CAPACITY, seed=seed)).url
        platforms = [world.platform for world in known]
        lab = stack.enter_context(LabServer(platforms, urls, MODEL, seed=seed))
        text = _LOCAL.format(pack=ROUTED_PACK, seed=seed, url=urls["toy"])
        for platform in platforms:
            # Who is turned away waits before asking again; many wait at once.
            concurrency = 16 if platform.upstream == "busy" else 2
            text += _HOSTED.format(name=platform.name, url=lab.url, concurrency=concurrency)
        path = folder / "probe.toml"
        path.write_text(text, encoding="utf-8")
        yield load_config(path), lab.log


@contextlib.contextmanager
def _upstream(name: str) -> Iterator[str]:
    path = data_folder("backends") / "toy" / FILES[name]
    with LlamaCppServer(path, model_id=MODEL, parallel=8, threads=1) as server:
        assert server.info is not None
        yield server.info.url

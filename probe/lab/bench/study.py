"""One bench: servers and platforms up, traces through the real runner and proxy, the real analysis, then the truth."""

import contextlib
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from probe.config import Config, Route, load_config
from probe.errors import ConfigError
from probe.ids import json_hash
from probe.lab.bench.favourite import favourite_refusal
from probe.lab.bench.grid import Cell, Material, chosen_families, grid
from probe.lab.bench.record import DATABASE, GRID, judge_record, save_record
from probe.lab.bench.result import BenchResult, about
from probe.lab.server import LabServer
from probe.lab.shapes import BLOCK_SHAPES
from probe.resources import data_folder
from probe.runs.execute import execute, load_packs
from probe.runs.plan import Pack
from probe.runs.runner import Progress
from probe.serve.llamacpp import LlamaCppServer
from probe.store.lock import RunLock
from probe.store.rows import PackRow

MODEL = "toy"
PACK = "fictional"
FILES: Mapping[str, str] = {
    "toy": "toy.gguf",
    "q8": "toy-q8_0.gguf",
    "q4": "toy-q4_0.gguf",
    "other": "other.gguf",
    "scribe": "scribe.gguf",
}
"""Upstreams of the lab by name, and their files in ``backends/toy``."""

WAVE = 10
"""Routes that are asked at the same time, with one request each: about what the twin's eight slots can take, so that
the time to the first byte is not that of a queue."""


@dataclass(frozen=True)
class Scale:
    """How many traces go over a route, per kind: attacks and controls, and the same for declared blocks."""

    attacks: int
    controls: int
    small_attacks: int
    small_controls: int
    draws: int
    """Answers from which the favourite refusal is learnt."""


QUICK = Scale(attacks=44, controls=64, small_attacks=8, small_controls=3, draws=160)
FULL = Scale(attacks=110, controls=64, small_attacks=15, small_controls=5, draws=320)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What to run. ``scale`` overrides that of ``quick``; ``shapes`` limits the declared blocks (tests)."""

    seed: int = 0
    quick: bool = False
    families: tuple[str, ...] = ()
    scale: Scale | None = None
    shapes: int | None = None

    @property
    def size(self) -> Scale:
        """The scale in force."""
        return self.scale or (QUICK if self.quick else FULL)


def run_bench(
    options: Options,
    folder: Path | None = None,
    *,
    on_run: Progress | None = None,
    on_analyze: Callable[[str, int], None] = lambda _what, _n: None,
    say: Say = lambda _text: None,
) -> BenchResult:
    """Run one bench in ``folder`` (an earlier one there is replaced), or in a folder that is removed afterwards.

    Raises ``ProbeError``.
    """
    families = chosen_families(options.families)
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="probe-bench-") as name:
            return _bench(options, families, Path(name), on_run, on_analyze, say)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with RunLock(folder / DATABASE):
            for old in ("probe.db", "probe.db-wal", "probe.db-shm"):
                (folder / old).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"The folder {folder} cannot be used ({error.strerror}): name another with --out.") from None
    return _bench(options, families, folder, on_run, on_analyze, say)


def _bench(
    options: Options,
    families: Sequence[str],
    folder: Path,
    on_run: Progress | None,
    on_analyze: Callable[[str, int], None],
    say: Say,
) -> BenchResult:
    started = time.monotonic()
    whole, small, others = _packs(options)
    with contextlib.ExitStack() as stack:
        say("Starting llama.cpp with the embedded weights")
        upstreams = {"toy": stack.enter_context(_upstream("toy"))}
        cells = grid(_material(options, families, whole, others, upstreams["toy"]), families, quick=options.quick)
        for name in sorted(_needed(cells) - {"toy"}):
            upstreams[name] = stack.enter_context(_upstream(name))
        platforms = [cell.platform for cell in cells]
        lab = stack.enter_context(LabServer(platforms, upstreams, MODEL, seed=options.seed))
        config = _config(folder, cells, upstreams["toy"], lab.url, options.seed)
        meta = about(options.seed, quick=options.quick, cells=cells, traces=_counts(whole, small))
        say(f"Sending {len(whole.traces)} traces over the twin and {len(cells)} lab platforms")
        for routes, pack in _waves(config, cells, whole, small, options.seed):
            some = replace(config, routes=routes)
            execute(some, folder / DATABASE, [pack], seed=options.seed, repeats=1, progress=on_run)
        save_record(folder, meta, lab.log)
        sent = time.monotonic()
        return judge_record(folder, config, on_analyze, say, sending=sent - started)


def judge_again(
    folder: Path,
    *,
    on_analyze: Callable[[str, int], None] = lambda _what, _n: None,
    say: Say = lambda _text: None,
) -> BenchResult:
    """Judge what an earlier bench in ``folder`` recorded with the code of today; nothing is sent.

    Raises ``ConfigError`` where there is no such bench.
    """
    if not (folder / GRID).is_file():
        raise ConfigError(f"There is no bench in {folder}: `probe bench --out {folder}` makes one.")
    config = load_config(folder / "probe.toml")
    with _upstream("toy") as url:
        twin = replace(config.routes["local"], url=f"{url}/v1")
        return judge_record(folder, replace(config, routes={**config.routes, "local": twin}), on_analyze, say)


def _counts(whole: Pack, small: Pack) -> dict[str, dict[str, int]]:
    return {
        name: {"attacks": sum(not t.control for t in pack.traces), "controls": sum(t.control for t in pack.traces)}
        for name, pack in (("platforms", whole), ("declared", small))
    }


def _packs(options: Options) -> tuple[Pack, Pack, Pack]:
    """Return the traces of most routes, those of declared blocks, and attacks that are not sent at all."""
    shipped = load_packs([PACK])[0]
    chance, size = random.Random(f"{options.seed}:traces"), options.size
    attacks = [trace for trace in shipped.traces if not trace.control]
    controls = [trace for trace in shipped.traces if trace.control]
    chance.shuffle(attacks)
    chance.shuffle(controls)
    whole = attacks[: size.attacks] + controls[: size.controls]
    small = attacks[: size.small_attacks] + controls[: size.small_controls]
    rest = [trace for trace in attacks[size.attacks :] if not trace.labels.get("nonce")]

    def pack(name: str, traces: list) -> Pack:  # type: ignore[type-arg]
        row = PackRow(
            id=json_hash([trace.id for trace in traces]),
            name=f"{PACK}-{name}",
            source=f"{len(traces)} traces of {shipped.row.source}, drawn with seed {options.seed}",
            licence=shipped.row.licence,
        )
        return Pack(row, tuple(traces))

    return pack("bench", whole), pack("bench-declared", small), pack("bench-rest", rest)


@contextlib.contextmanager
def _upstream(name: str) -> Iterator[str]:
    path = data_folder("backends") / "toy" / FILES[name]
    if not path.is_file():
        path = path.with_name(FILES["other"])
    with LlamaCppServer(path, model_id=MODEL, parallel=8, threads=1) as server:
        assert server.info is not None
        yield server.info.url


def benched_shapes() -> dict[str, str]:
    """Return the shapes of declared blocks that the bench has a cell for, with their backends.

    These are the blocks as a router or a plain endpoint passes them on, on which the recorded figures rest.
    """
    return {name: shape.backend for name, shape in BLOCK_SHAPES.items() if shape.backend in {"openrouter", "openai"}}


def _material(options: Options, families: Sequence[str], whole: Pack, others: Pack, url: str) -> Material:
    favourite = ""
    if "injected_favourite" in families:
        favourite = favourite_refusal(url, others.traces, seed=options.seed, draws=options.size.draws)
    shapes = list(benched_shapes().items())
    subjects = {str(trace.labels["subject"]) for trace in whole.traces if not trace.control}
    return Material(
        subjects=tuple(sorted(subjects)),
        favourite=favourite,
        shapes=dict(shapes[: options.shapes]),
        scribe="scribe",
        seed=options.seed,
    )


def _needed(cells: Sequence[Cell]) -> set[str]:
    named = {cell.platform.upstream for cell in cells} | {cell.platform.paraphraser for cell in cells}
    return {name for name in named if name is not None}


_HEAD = """\
# Written by `probe bench`. The addresses were those of the bench's own servers, which are gone.
[run]
packs = ["fictional"]
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

_ROUTE = """
[routes.{name}]
backend = "{backend}"
url     = "{url}"
model   = "toy"
weights = "platform-effect-probe/toy"
role    = "hosted"
twin    = "local"
key_env = ""
pace    = {{ concurrency = {concurrency} }}
"""


def _config(folder: Path, cells: Sequence[Cell], twin: str, lab: str, seed: int) -> Config:
    text = _HEAD.format(url=twin, seed=seed)
    for cell in cells:
        name = cell.platform.name
        url = f"{lab}/{name}" + ("" if cell.backend == "ollama" else "/v1")
        # A platform that holds its answers back is slow, but while they wait nobody computes.
        concurrency = 3 if cell.platform.waits or cell.platform.jitter_s else 1
        quoted = f'"{name}"' if "." in name else name
        text += _ROUTE.format(name=quoted, backend=cell.backend, url=url, concurrency=concurrency)
    path = folder / "probe.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def _waves(
    config: Config, cells: Sequence[Cell], whole: Pack, small: Pack, seed: int
) -> Iterator[tuple[dict[str, Route], Pack]]:
    """Yield routes that are asked together, with what they are asked; the twin alone and first."""
    yield {"local": config.routes["local"]}, whole
    mixed = list(cells)
    random.Random(f"{seed}:waves").shuffle(mixed)
    for few, pack in ((False, whole), (True, small)):
        names = [cell.platform.name for cell in mixed if cell.small is few]
        for start in range(0, len(names), WAVE):
            yield {name: config.routes[name] for name in names[start : start + WAVE]}, pack

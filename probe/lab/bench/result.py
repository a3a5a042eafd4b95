"""What a bench found, as values and as JSON."""

import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from probe import __version__
from probe.lab.bench.grid import KIN, Cell
from probe.lab.bench.metrics import Unit, by_family, by_route, summary


@dataclass(frozen=True)
class BenchResult:
    """All counted answers: judged with scores, without, and by each baseline; ``meta`` says how they came about."""

    units: tuple[Unit, ...]
    without_scores: tuple[Unit, ...]
    baselines: Mapping[str, Sequence[Unit]]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return families and overall, the same without scores and for the baselines, and how it was measured."""
        return {
            **measures(self.units),
            "routes": by_route(self.units),
            "without_scores": measures(self.without_scores),
            "baselines": {name: measures(units) for name, units in self.baselines.items()},
            **self.meta,
        }


def measures(units: Sequence[Unit]) -> dict[str, Any]:
    """Return the summary per family and over all; ``overall_without_kin`` leaves the indistinguishable texts out."""
    return {
        "families": by_family(units),
        "overall": summary(units),
        "overall_without_kin": summary([unit for unit in units if unit.family != KIN]),
    }


def about(seed: int, *, quick: bool, cells: Iterable[Cell], traces: Mapping[str, Any]) -> dict[str, Any]:
    """Return what somebody needs to judge or repeat a bench; no paths."""
    cells = list(cells)
    return {
        "seed": seed,
        "quick": quick,
        "machine": {"cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}"},
        "versions": {"probe": __version__, "python": platform.python_version(), "llamacpp": _llamacpp()},
        "traces": traces,
        "platforms": dict(Counter(cell.family for cell in cells)),
        "grid": [{"backend": cell.backend, **_spec(cell)} for cell in cells],
    }


def _spec(cell: Cell) -> dict[str, Any]:
    """Return a platform without the long list of words that its screen looks for, and without what it leaves open."""
    spec = {key: value for key, value in asdict(cell.platform).items() if value not in (None, "", (), False)}
    screen = cell.platform.screen
    return {**spec, "screen": {"words": len(screen.words), "rate": screen.rate}} if screen else spec


def _llamacpp() -> str:
    import xllamacpp

    return str(xllamacpp.BUILD_INFO)


def pooled(results: Sequence[BenchResult]) -> BenchResult:
    """Return several benches as one; of the metadata, what differs is listed per bench."""
    first = results[0]
    meta = {
        **first.meta,
        "seed": [result.meta["seed"] for result in results],
        "seconds": [result.meta["seconds"] for result in results],
        "grid": [result.meta["grid"] for result in results],
    }
    return BenchResult(
        units=tuple(unit for result in results for unit in result.units),
        without_scores=tuple(unit for result in results for unit in result.without_scores),
        baselines={n: [unit for result in results for unit in result.baselines[n]] for n in first.baselines},
        meta=meta,
    )

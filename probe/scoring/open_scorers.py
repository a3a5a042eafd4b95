"""Makes the scorers that the local routes of a study name."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from probe.config import Route
from probe.errors import ScoringError
from probe.scoring.base import Scorer
from probe.scoring.llamacpp import LlamaCppScorer


@asynccontextmanager
async def open_scorers(routes: Iterable[Route]) -> AsyncIterator[tuple[dict[str, Scorer], list[str]]]:
    """Yield scorers by route name, and a sentence for each local route that cannot score now."""
    scorers: dict[str, Scorer] = {}
    problems: list[str] = []
    try:
        for route in routes:
            if route.role != "local" or route.scorer == "none":
                continue
            try:
                scorers[route.name] = await _open(route)
            except ScoringError as error:
                problems.append(f"Route {route.name!r} cannot score texts now, so that wording is not tested: {error}")
        yield scorers, problems
    finally:
        for scorer in scorers.values():
            await scorer.aclose()


async def _open(route: Route) -> Scorer:
    root = (route.scorer_url or route.url).removesuffix("/v1")
    if route.scorer == "vllm":
        from probe.scoring.vllm import VllmScorer

        vllm = VllmScorer(root, model=route.model, weights=route.weights)
        try:
            await vllm.open()
        except ScoringError:
            await vllm.aclose()
            raise
        return vllm
    llamacpp = LlamaCppScorer(root, weights=route.weights)
    try:
        await llamacpp.open()
    except ScoringError:
        await llamacpp.aclose()
        raise
    return llamacpp

"""Reads answers while a run is under way, so that it can stop when its question is answered (``probe run --until``).

A refusal here is what the rules judge calls refused, or a block that the response declares; an answer is what it calls
complied or partial. Everything else, cut and empty answers, errors and texts that it cannot read, is missing. Whose
refusal it was is not asked: that takes a whole route's exchanges (verdicts, and with them answers that claim to have
ended where the weights would go on). So what is tested while running is the difference of refusal rates, the platform
effect and the serving difference together; ``probe analyze`` takes them apart afterwards.
"""

from probe.attribution.cases import _known
from probe.config import Config
from probe.judge.rules import RulesJudge
from probe.runs.until import Refused
from probe.wire.reports import read_answer
from probe.wire.signatures import match_signatures
from probe.wire.values import Exchange

_REFUSED = {"refused": True, "blocked": True, "complied": False, "partial": False}


def refusal_reader(config: Config) -> Refused:
    """Return the reader for the routes of a study."""
    routes, judge = {route.row.id: route for route in config.routes.values()}, RulesJudge()

    def refused(route_id: str, exchange: Exchange) -> bool | None:
        route = routes[route_id]
        reading = read_answer(route.backend, exchange)
        matches = match_signatures(route.backend, exchange, reading)
        named = {match.author for match in matches if match.author != "unknown"}
        author = named.pop() if len(named) == 1 else None  # as in ``read_cases``
        judgement = _known(judge.judge(reading, exchange.status, author, blocked=author is not None), matches)
        return _REFUSED.get(judgement.outcome)

    return refused

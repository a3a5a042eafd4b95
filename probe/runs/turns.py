"""Whose turn it is: a trial is sent when somebody needs it, the budget allows it, and its pairs have kept up."""

import asyncio
from enum import Enum, auto

from probe.runs.money.ledger import Ledger, Totals
from probe.runs.money.price import Tokens
from probe.runs.pairing import Pairing
from probe.runs.until import Questions
from probe.store.rows import TrialRow
from probe.wire.values import Exchange


class Turn(Enum):
    """What becomes of a trial."""

    SEND = auto()
    SPARE = auto()
    """Its question is answered."""
    LEAVE = auto()
    """The budget is spent, or the route has stopped; the trial stays open."""
    WAIT = auto()
    """Others come first."""


_NO_TOKENS = Tokens()


class Turns:
    """Asked before every request, told after every trial. Without questions, budget and pairs all is sent at once."""

    def __init__(
        self, ledger: Ledger | None = None, questions: Questions | None = None, pairing: Pairing | None = None
    ) -> None:
        self.ledger = ledger or Ledger(Totals(), {}, {})
        self.pairing = pairing or Pairing()
        self._questions = questions
        self._ended: set[str] = set()
        self._changed = asyncio.Event()
        self.spent_up: dict[str, str] = {}
        """Per route id: the sentence on the limit that leaves its trials open."""

    async def turn(self, trial: TrialRow, abreast: int, *, take: bool, tokens: Tokens = _NO_TOKENS) -> Turn:
        """Wait until a trial may be sent, or need not be; ``take``: the request counts as sent from here on.

        With questions, a hosted route begins no more than ``abreast`` traces ahead of those that were counted: where
        the twin is slow, requests would be spent on pairs that are not there when the question is answered. ``tokens``
        are the most that the request can cost. Never ``WAIT``.
        """
        while True:
            changed = self._changed
            turn = self.now(trial, abreast, take=take, tokens=tokens)
            if turn is not Turn.WAIT:
                return turn
            await changed.wait()

    def now(self, trial: TrialRow, abreast: int, *, take: bool, tokens: Tokens = _NO_TOKENS) -> Turn:
        """Say whose turn it is at this moment, without waiting; like ``turn``."""
        if self._questions is not None and not self._questions.needed(trial):
            return Turn.SPARE
        if trial.route_id in self._ended:
            return Turn.LEAVE
        permission = self.ledger.may(trial.route_id, tokens)
        if permission.answer == "gone":
            self.spent_up[trial.route_id] = permission.sentence
            return Turn.LEAVE
        if permission.answer == "later" or self._ahead(trial, abreast):
            return Turn.WAIT
        if self.pairing.waits(trial.route_id, trial.position):
            return Turn.WAIT
        if take:
            if self._questions is not None:
                self._questions.begin(trial)
            self.pairing.begin(trial.route_id, trial.position)
            self.wake()
        return Turn.SEND

    def _ahead(self, trial: TrialRow, abreast: int) -> bool:
        if self._questions is None:
            return False
        twin = self._questions.twin_of(trial)
        # A twin that sends nothing more, because it is done or out of order, is not waited for.
        return twin is not None and twin not in self._ended and self._questions.waiting(trial) >= abreast

    def hold(self, trial: TrialRow) -> None:
        """Note that a trial is the next that its route will send."""
        self.pairing.hold(trial.route_id, trial.position)
        self.wake()

    async def end(self, trial: TrialRow, exchange: Exchange | None) -> None:
        """Note the answer of a trial; ``None``: it was given up."""
        if self._questions is not None:
            self._questions.tell(trial, exchange)
        self.wake()

    def drop(self, trial: TrialRow) -> None:
        """Note that a trial will not be sent in this start."""
        self.pairing.begin(trial.route_id, trial.position)
        self.wake()

    def pause(self, route_id: str, *, paused: bool) -> None:
        """Note that a route sends nothing until tomorrow, or goes on."""
        self.pairing.away(route_id, away=paused)
        self.wake()

    async def leave(self, route_id: str) -> None:
        """Note that a route sends nothing more."""
        self._ended.add(route_id)
        self.pairing.away(route_id)
        self.ledger.leave(route_id)
        self.wake()

    def wake(self) -> None:
        """Let everybody who waits look again."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

"""Whose turn it is: a trial is sent when somebody needs it, the budget allows it, and its pairs have kept up."""

import asyncio
from enum import Enum, auto

from probe.runs.budget import Budget
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


class Turns:
    """Asked before every request, told after every trial. Without questions and budget everything is sent at once."""

    def __init__(self, budget: Budget | None = None, questions: Questions | None = None) -> None:
        self._budget = budget or Budget(None, {})
        self._questions = questions
        self._ended: set[str] = set()
        self._changed = asyncio.Condition()

    async def turn(self, trial: TrialRow, abreast: int, *, take: bool) -> Turn:
        """Wait until a trial may be sent, or need not be; ``take``: the request counts as sent from here on.

        With questions, a hosted route begins no more than ``abreast`` traces ahead of those that were counted: where
        the twin is slow, requests would be spent on pairs that are not there when the question is answered.
        """
        async with self._changed:
            while True:
                if self._questions is not None and not self._questions.needed(trial):
                    return Turn.SPARE
                if trial.route_id in self._ended or (self._budget.limits(trial.route_id) and self._budget.gone):
                    return Turn.LEAVE
                if self._budget.may(trial.route_id) and not self._ahead(trial, abreast):
                    break
                await self._changed.wait()
            if take:
                if self._questions is not None:
                    self._questions.begin(trial)
                self._budget.spend(trial.route_id)
                self._changed.notify_all()
            return Turn.SEND

    def _ahead(self, trial: TrialRow, abreast: int) -> bool:
        if self._questions is None:
            return False
        twin = self._questions.twin_of(trial)
        # A twin that sends nothing more, because it is done or out of order, is not waited for.
        return twin is not None and twin not in self._ended and self._questions.waiting(trial) >= abreast

    async def end(self, trial: TrialRow, exchange: Exchange | None) -> None:
        """Note the answer of a trial; ``None``: it was given up."""
        if self._questions is not None:
            self._questions.tell(trial, exchange)
        async with self._changed:
            self._changed.notify_all()

    async def leave(self, route_id: str) -> None:
        """Note that a route sends nothing more."""
        self._ended.add(route_id)
        self._budget.leave(route_id)
        async with self._changed:
            self._changed.notify_all()

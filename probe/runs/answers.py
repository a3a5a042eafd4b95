"""Which exchanges answer a trial, and which say that the route cannot be used."""

import re
from enum import Enum, auto

from probe.wire.values import Exchange


class Answer(Enum):
    """What an exchange means for its trial."""

    ANSWERED = auto()
    """The route answered, be it with a block or half an answer: it is not sent again."""
    RETRY = auto()
    """Nothing was answered: a fault or a limit; it may be sent again."""
    REFUSED_KEY = auto()
    """The key is missing or wrong: no trial of this route can be answered."""
    UNKNOWN_MODEL = auto()
    """The route does not have the model."""


_RETRY = frozenset({402, 408, 409, 425, 429})
_MODEL = re.compile(
    rb"(?i)model[^.\n]{0,120}(not found|does not exist|not exist|unknown)"
    rb"|not a valid model|model_not_found|no endpoints found"
)


def classify(exchange: Exchange) -> Answer:
    """Say what an exchange means for its trial.

    An answer that broke off after some of its bytes had come counts as answered: it was paid for, and a platform that
    cuts streams looks exactly like this. Its outcome is ``cut``.
    """
    status = exchange.status
    if status is None:
        return Answer.RETRY
    if status == 401:
        return Answer.REFUSED_KEY
    if status in {400, 404} and _MODEL.search(exchange.response_body):
        return Answer.UNKNOWN_MODEL
    if status in _RETRY or status == 404 or status >= 500:
        return Answer.RETRY
    # It was us who left (Ctrl-C, the proxy was stopped): half an answer is not the route's then.
    came = exchange.state == "complete" or (exchange.response_body and exchange.state != "client_gone")
    return Answer.ANSWERED if came else Answer.RETRY

"""The draws of a lab platform: the same seed gives the same deeds per request, whatever comes in between."""

import random
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from probe.ids import json_hash


class Draws:
    """The draws for one request; each purpose has a generator of its own, so that none disturbs another."""

    def __init__(self, key: str) -> None:
        self._key = key

    def of(self, purpose: str) -> random.Random:
        """Return the generator for one purpose; asked twice it starts anew."""
        return random.Random(f"{self._key}:{purpose}")


class Chances:
    """Gives out the draws of a platform by what was asked, and how often it was asked before.

    The order in which different requests arrive changes nothing. Of equal requests under way together, any may be the
    first.
    """

    def __init__(self, seed: int, platform: str) -> None:
        self._key = f"{seed}:{platform}"
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    def of(self, messages: Sequence[Mapping[str, Any]], sampling: Mapping[str, Any]) -> Draws:
        """Return the draws for the next request with this conversation and sampling."""
        asked = json_hash({"messages": list(messages), "sampling": dict(sampling)})
        with self._lock:
            repeat = self._asked[asked]
            self._asked[asked] += 1
        return Draws(f"{self._key}:{asked}:{repeat}")

    def of_platform(self) -> Draws:
        """Return draws that are the same for every request of the platform."""
        return Draws(self._key)

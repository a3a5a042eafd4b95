"""How many requests may be under way at once: slow start, additive increase, multiplicative decrease.

As TCP's congestion control does it (RFC 5681, section 3.1): up to the threshold each answer adds one, above it a whole
window of answers adds one; a sign of overload halves the window, once for all requests that were under way together,
because they met the same overload.
"""

FIRST = 4
"""Requests at once in the beginning, where as many are allowed."""


class Window:
    """Between 1 and ``most``; times are monotonic seconds."""

    def __init__(self, most: int) -> None:
        self._most = max(1, most)
        self._size = float(min(FIRST, self._most))
        self._threshold = float(self._most)
        self._decreased_at = float("-inf")

    @property
    def size(self) -> int:
        """Requests that may be under way at once."""
        return int(self._size)

    @property
    def most(self) -> int:
        """The most that there may ever be."""
        return self._most

    def grow(self) -> None:
        """Note an answer."""
        step = 1.0 if self._size < self._threshold else 1.0 / self._size
        self._size = min(float(self._most), self._size + step)

    def shrink(self, sent_at: float, now: float) -> bool:
        """Note a sign of overload for a request sent at ``sent_at``; return whether the window was halved for it."""
        if sent_at < self._decreased_at:
            return False
        self._size = max(1.0, self._size / 2)
        self._threshold = max(1.0, self._size)
        self._decreased_at = now
        return True

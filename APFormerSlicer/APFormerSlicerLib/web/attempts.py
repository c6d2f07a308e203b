"""Wrong tokens, counted by the address that they come from."""

from __future__ import annotations

import time
from collections.abc import Callable

MOST = 10  # wrong tokens of one address, until it has to wait
SECONDS = 60.0
_MOST_ADDRESSES = 4096  # that are remembered; an attacker may have many


class Attempts:
    """Who tried too often has to wait; it counts against one address only, and right tokens are not counted."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: dict[str, tuple[int, float]] = {}  # address -> how many, since when

    def too_many(self, address: str) -> bool:
        """Whether the address has to wait."""
        count, since = self._wrong.get(address, (0, 0.0))
        return count >= MOST and self._clock() - since < SECONDS

    def add(self, address: str) -> None:
        """One more wrong token."""
        now = self._clock()
        count, since = self._wrong.pop(address, (0, now))
        if now - since >= SECONDS:
            count, since = 0, now
        self._wrong[address] = (count + 1, since)
        while len(self._wrong) > _MOST_ADDRESSES:
            del self._wrong[next(iter(self._wrong))]  # the one whose last attempt was longest ago

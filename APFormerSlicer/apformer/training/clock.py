"""Seconds of work, whatever the computer's clocks do meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
# A computer that sleeps does no work, but on some systems its monotonic clock goes on (Windows; virtual machines that
# are paused). Work asks for the time far more often than this.
SLEEP_SECONDS = 300.0
SLEEP_TIMES = 10.0  # the longest stretch of work between two questions until then


class WorkClock:
    """Seconds of work since it was made; asking is what keeps it right, so ask often.

    A gap between two questions that is longer than `SLEEP_SECONDS` and `SLEEP_TIMES` any before it was sleep: it counts
    as the longest of those. A clock that is set back costs nothing.

    Args:
        now: seconds, from any beginning.
    """

    def __init__(self, now: Clock = time.monotonic) -> None:
        self._now = now
        self._last = now()
        self._longest = 0.0
        self._worked = 0.0

    def __call__(self) -> float:
        now = self._now()
        gap = max(0.0, now - self._last)
        if gap > max(SLEEP_SECONDS, SLEEP_TIMES * self._longest):
            gap = self._longest
        self._last = now
        self._longest = max(self._longest, gap)
        self._worked += gap
        return self._worked

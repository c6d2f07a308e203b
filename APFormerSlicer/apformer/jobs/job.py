"""One job while it runs: what its handler may tell, and where it may be stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .logs import JobLog
from .messages import LOG, METRICS, PROGRESS, Event, Request

if TYPE_CHECKING:
    from .warm import Warm

_QUIET_SECONDS = 0.1  # between two progress events of one step: a bar needs no more
_ETA_AFTER_SECONDS = 0.5  # earlier, start-up dominates
_ETA_AFTER_FRACTION = 0.02

Clock = Callable[[], float]


class Cancelled(BaseException):
    """Raised inside a job whose end was asked for.

    Not an Exception, as with KeyboardInterrupt: code that survives a bad case (`except Exception`) must not survive
    this.
    """


class Pace:
    """Seconds left, from how far a job has come since it began or last fell back."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._begun, self._first, self._last = clock(), 0.0, 0.0

    def eta_s(self, fraction: float) -> float | None:
        """Seconds left at `fraction` of 1; None while there is too little to go by."""
        if fraction == 0.0 or fraction < self._last:  # still preparing, or all is run again without pruning
            self._begun, self._first = self._clock(), fraction
        self._last = fraction
        elapsed, done = self._clock() - self._begun, fraction - self._first
        if elapsed < _ETA_AFTER_SECONDS or done < _ETA_AFTER_FRACTION:
            return None
        return round(elapsed * (1.0 - fraction) / done, 1)


class Job:
    """Given to a job's handler.

    Attributes:
        request: what was asked, `arguments`: the same, parsed by the handler.
        log_path: the job's log file, if it has one.
        warm: what is kept between jobs.
        log: open while the job runs.
    """

    def __init__(
        self,
        request: Request,
        arguments: Any,
        send: Callable[[Event], None],
        warm: Warm,
        log_path: Path | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.request, self.arguments, self.warm, self.log_path = request, arguments, warm, log_path
        self.log = JobLog(2)
        self._send, self._clock = send, clock
        self._cancelled = threading.Event()
        self._pace = Pace(clock)
        self._told = (-1.0, "")  # when, and which step

    @property
    def id(self) -> str:
        return self.request.id

    def cancel(self) -> None:
        """Ask for the end of the job; `check` raises from now on. Callable from any thread."""
        self._cancelled.set()

    def check(self) -> None:
        """Raises Cancelled when the job's end was asked for; to be called at least every second."""
        if self._cancelled.is_set():
            raise Cancelled

    def progress(self, fraction: float, message: str = "", eta_s: float | None = None) -> None:
        """Tell how far the job is (0 to 1) and what it does; raises Cancelled, like `check`.

        Args:
            eta_s: seconds left, where the job knows; otherwise they follow from its pace.
        """
        self.check()
        fraction = min(1.0, max(0.0, float(fraction)))
        pace_s, now = self._pace.eta_s(fraction), self._clock()
        eta_s = pace_s if eta_s is None else eta_s
        told_at, step = self._told
        if message == step and fraction < 1.0 and now - told_at < _QUIET_SECONDS:
            return
        self._told = (now, message)
        self._send(Event(PROGRESS, self.id, {"fraction": round(fraction, 4), "message": message, "eta_s": eta_s}))

    def say(self, message: str) -> None:
        """A line for the user, in the log too; raises Cancelled, like `check`."""
        self.check()
        self.log.write(message)
        self._send(Event(LOG, self.id, {"message": message}))

    def metrics(self, values: Mapping[str, Any]) -> None:
        """Measured values, such as an epoch's losses; raises Cancelled, like `check`."""
        self.check()
        self._send(Event(METRICS, self.id, dict(values)))

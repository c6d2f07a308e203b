"""What a host is told while a fine-tuning runs: plain data that can be sent as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..training.clock import Clock, WorkClock

Listener = Callable[[dict[str, Any]], None]
# Without a time, training is most of the work; measuring before and after share the rest.
TRAINING_SHARE = (0.05, 0.9)


class Teller:
    """Tells progress as one number from 0 to 1, whatever the training's parts are.

    Args:
        seconds: the time given; None when the amount of work is given instead.
        clock: seconds of work; a change of the computer's clock, or its sleep, does not matter.
    """

    def __init__(self, listener: Listener, seconds: float | None, clock: Clock | None = None) -> None:
        self._listener, self._seconds, self._clock = listener, seconds, clock or WorkClock()
        self._spent, self._told = 0.0, 0.0
        self._started = self._clock()

    @property
    def used(self) -> float:
        """Seconds of work so far."""
        return self._spent + self._clock() - self._started

    def resumed(self, spent: float) -> None:
        """`spent` seconds of work were done by an earlier process."""
        self._spent += spent

    def progress(self, message: str, share: float) -> None:
        """Tell what is being done. `share` is how much of all work is done; with a time given, the clock tells."""
        left = None
        if self._seconds is not None and share < 1.0:
            left = round(max(0.0, self._seconds - self.used), 1)
            share = min(0.999, self.used / self._seconds)
        self._told = max(self._told, share)  # a bar that goes back tells nothing
        self._listener({"event": "progress", "fraction": round(self._told, 4), "message": message, "eta_s": left})

    def training(self, message: str, done: float) -> None:
        """Progress of the training itself, `done` from 0 to 1."""
        first, last = TRAINING_SHARE
        self.progress(message, first + (last - first) * done)

    def say(self, message: str) -> None:
        """A line for the user."""
        self._listener({"event": "log", "message": message})

    def measured(self, which: str, labels: Mapping[str, Any]) -> None:
        """Figures of the model "before" or "after"."""
        self._listener({"event": "measured", "which": which, "labels": dict(labels)})

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch's log row, with its losses together."""
        losses = {key.removeprefix("loss_"): value for key, value in row.items() if key.startswith("loss_")}
        kept = losses.pop("kept", None)
        rest = {key: value for key, value in row.items() if not key.startswith("loss_")}
        left = None if self._seconds is None else round(max(0.0, self._seconds - self.used), 1)
        told = {"dice": None, **rest, "losses": losses, "kept": kept, "eta_s": left}
        self._listener({"event": "epoch", **told})

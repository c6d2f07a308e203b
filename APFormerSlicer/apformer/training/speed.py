"""How fast a machine takes the steps of a training, as these tell it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from statistics import median_low
from typing import Any

RECENT_SECONDS, MOST_RECENT = 45.0, 7  # of steps, and steps, that tell how fast the machine is now
FIRST_STEPS = 3  # that tell how fast it was when a stage began
LONG_STEP = 15.0  # seconds: one tells enough
SURPRISE = 1.3  # times the expected seconds of a step: that much, a machine is the likelier reason than other gates
SLOWEST = 10.0  # times slower than at first, that is believed


class Speed:
    """How long steps take now, and how much slower than at first, over the stages, whose steps differ.

    What is recent is a median, so that no single step that had to wait decides.

    Args:
        guesses: seconds of a step of each stage.
    """

    def __init__(self, guesses: Sequence[float]) -> None:
        self._guesses = tuple(max(1e-6, guess) for guess in guesses)
        self._stage = 0
        self._until_now = 1.0  # how much slower than at first the machine was when the stage began
        self._coming = self._guesses[0]  # seconds of a step, before any of the stage was taken
        self._expected = self._coming  # the same, if the machine is as slow as it was `_until_now`
        self._surprises = False  # whether what is expected comes from steps, not from a guess
        self._first: list[float] = []
        self._recent: deque[float] = deque(maxlen=MOST_RECENT)

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {
            "until_now": self._until_now,
            "coming": self._coming,
            "expected": self._expected,
            "surprises": self._surprises,
            "first": list(self._first),
            "recent": list(self._recent),
        }

    def restore(self, stage: int, state: Mapping[str, Any]) -> None:
        """From the checkpoint."""
        self._stage, self._surprises = stage, bool(state["surprises"])
        self._until_now, self._coming, self._expected = (
            max(1e-6, float(state[name])) for name in ("until_now", "coming", "expected")
        )
        self._first = [float(seconds) for seconds in state["first"]]
        self._recent = deque((float(seconds) for seconds in state["recent"]), maxlen=MOST_RECENT)

    def enter(self, stage: int) -> None:
        """Another stage has begun: its steps are to the last one's as the guesses are."""
        ratio = self._guesses[stage] / self._guesses[self._stage]
        told = self._tells or not self._surprises
        self._coming = self.step * ratio
        self._expected, self._until_now = ratio * (self.step if told else self._expected), self.slower
        self._surprises = self._surprises or bool(self._recent)
        self._stage, self._first = stage, []
        self._recent.clear()

    @property
    def _tells(self) -> bool:
        """Whether enough steps of the stage were taken, or long ones, to tell how fast the machine is."""
        return len(self._first) >= FIRST_STEPS or (bool(self._first) and self.step >= LONG_STEP)

    def took(self, seconds: float) -> None:
        """A step took so long."""
        self._first += [seconds] if len(self._first) < FIRST_STEPS else []
        self._recent.append(seconds)

    @property
    def step(self) -> float:
        """Seconds of the next one."""
        if not self._recent:
            return self._coming
        usual = max(1e-9, median_low(self._recent))
        return median_low(list(self._recent)[-max(1, int(RECENT_SECONDS / usual)) :])

    @property
    def slower(self) -> float:
        """Times slower than at first. The first steps of a stage tell how fast the machine was then, unless they
        take so much longer than expected that this cannot be the stage's doing."""
        if not self._tells:
            return self._until_now
        if self._surprises and self.step > SURPRISE * self._expected:
            return self._until_now * min(SLOWEST, self.step / self._expected)
        return self._until_now * min(SLOWEST, self.step / min(self._first))

"""A training by its work: so many steps, whatever time they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from .config import TrainingConfig
from .schedule import Moment


@dataclass(frozen=True)
class Stretch:
    """Steps of one stage, and whether a validation follows."""

    stage: int
    steps: int
    validates: bool


class Counted:
    """So many steps, whatever time they take: the same run every time."""

    def __init__(self, stretches: Sequence[Stretch]) -> None:
        self._stretches = tuple(stretches)
        self._number = 0  # stretches that are over
        self._done = 0  # steps of the present one
        self._total = sum(each.steps for each in stretches)
        self._of_stage = {each.stage: 0 for each in stretches}
        for each in stretches:
            self._of_stage[each.stage] += each.steps

    @classmethod
    def by_epochs(cls, config: TrainingConfig, cases: int) -> Counted:
        """Whole passes over the cases, as the stages name them; what fills no batch waits for the next one."""
        stretches: list[Stretch] = []
        for number, stage in enumerate(config.stages):
            for _ in range(stage.epochs):
                last = len(stretches) + 1 == config.epochs
                validates = last or (len(stretches) + 1) % stage.validate_every == 0
                stretches.append(Stretch(number, max(1, cases // stage.batch_size), validates))
        return cls(stretches)

    @classmethod
    def by_steps(cls, shares: Sequence[float], steps: int, each: int, validates: bool = True) -> Counted:
        """`steps` in all, at least one in each stage of these shares; a validation, if any, after every `each`."""
        stretches = []
        ends = [round(steps * end) for end in accumulate(shares)]
        ends[-1] = steps
        for stage, (begin, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            left = max(1, end - begin)
            stretches += [Stretch(stage, min(each, left - done), validates) for done in range(0, left, each)]
        return cls(stretches)

    def coming(self) -> int | None:
        """See `Schedule`."""
        return self._stretches[self._number].stage if self._number < len(self._stretches) else None

    def step(self) -> Moment | None:
        """See `Schedule`."""
        stretch = self._stretches[self._number]
        if self._done == stretch.steps:
            self._number, self._done = self._number + 1, 0
            return None
        before = self._stretches[: self._number]
        own = sum(each.steps for each in before if each.stage == stretch.stage)
        done = self._done + 1
        return Moment(
            stretch.stage,
            (own + done) / self._of_stage[stretch.stage],
            (sum(each.steps for each in before) + done) / self._total,
            1 / self._total,
        )

    def stepped(self) -> None:
        """See `Schedule`."""
        self._done += 1

    def changed(self) -> None:
        """See `Schedule`."""

    def validates(self) -> bool:
        """See `Schedule`."""
        return self._stretches[self._number - 1].validates

    def validation(self) -> AbstractContextManager[float | None]:
        """See `Schedule`."""
        return nullcontext()

    def state(self) -> dict[str, Any]:
        """See `Schedule`."""
        return {"stretches": self._number}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Schedule`."""
        number = int(state["stretches"])
        if not 0 <= number <= len(self._stretches):
            raise ValueError(f"{number} stretches of {len(self._stretches)}")
        self._number = number

"""Where a training is: phases, rates and validations follow the share of the work (`counted`), or of the time
(`timed`), that is used."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Moment:
    """Where a step lies, counted to its end, so that the last one is taken at the final rate.

    Attributes:
        stage: number of its stage, from 0.
        within: how much of the stage is done; share: of all; both 0 to 1.
        passed: how much of all is this step's own.
    """

    stage: int
    within: float
    share: float
    passed: float


class Schedule(Protocol):
    """Decides when what happens. A training is a row of stretches: steps of one stage between two lines of its log."""

    def coming(self) -> int | None:
        """The stage of the next stretch; None when there is none."""

    def step(self) -> Moment | None:
        """The next step; None when the stretch is over. What happens until `stepped` is the step's."""

    def stepped(self) -> None:
        """The step is done."""

    def changed(self) -> None:
        """From now on steps take another time, and it is not the machine's doing: gates have opened."""

    def validates(self) -> bool:
        """Whether the stretch that is over is followed by a validation."""

    def validation(self) -> AbstractContextManager[float | None]:
        """Around a validation: the seconds that it may take, if that is limited."""

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """From the checkpoint. Raises LookupError, TypeError or ValueError where it does not fit."""

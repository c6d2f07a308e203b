"""How many steps an epoch has: one pass over the cases, or what a given time allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .config import Stage

Rows = Sequence[Mapping[str, Any]]
LONGEST_EPOCH = 1.25  # of an even share of the time: time saved by an early stop is saved, not spent elsewhere
RECENT_EPOCHS = 2  # that tell the present speed of the machine


class Pace(Protocol):
    """Decides the length of epochs, from the log alone: a resumed run decides alike."""

    def steps(self, epoch: int, stage: Stage, rows: Rows) -> int:
        """Optimiser steps of `epoch` (from 0), given the log rows of the epochs before it."""


@dataclass(frozen=True)
class WholePasses:
    """Every case once an epoch; an incomplete last batch is dropped unless it is the only one."""

    cases: int

    def steps(self, epoch: int, stage: Stage, rows: Rows) -> int:
        """See `Pace`."""
        return max(1, self.cases // stage.batch_size)


@dataclass(frozen=True)
class Timed:
    """A fixed number of epochs that together take a given time, however fast the machine turns out to be.

    Args:
        seconds: for all epochs, validations included.
        stages: the whole schedule.
        step_seconds: a first guess of the seconds one step of a stage takes; corrected by what is measured.
        validation_seconds: the same for one validation.
        settling_seconds: the same for setting thresholds, once, before gates become hard.
    """

    seconds: float
    stages: tuple[Stage, ...]
    step_seconds: Callable[[Stage], float]
    validation_seconds: float
    settling_seconds: float = 0.0

    def steps(self, epoch: int, stage: Stage, rows: Rows) -> int:
        """See `Pace`."""
        owners = [owner for owner in self.stages for _ in range(owner.epochs)]
        left = self.seconds - sum(row["seconds"] for row in rows)
        if not any("settle_seconds" in row for row in rows):
            left -= self.settling_seconds
        checks = sum(validates(number, owners) for number in range(epoch, len(owners)))
        share = (left - checks * self._validation(rows)) / (len(owners) - epoch)
        share = min(share, LONGEST_EPOCH * self.seconds / len(owners))
        return max(1, int(share / self._step(stage, owners, rows)))

    def _validation(self, rows: Rows) -> float:
        measured = [
            row["seconds"] - row["train_seconds"] - row.get("settle_seconds", 0.0) for row in rows if "dice" in row
        ]
        return measured[-1] if measured else self.validation_seconds

    def _step(self, stage: Stage, owners: Sequence[Stage], rows: Rows) -> float:
        """Seconds a step of `stage` takes: as measured, else the guess, corrected by how wrong others' guesses were."""
        own = [row for row in rows if owners[row["epoch"] - 1] is stage][-RECENT_EPOCHS:]
        if own:
            return sum(row["train_seconds"] for row in own) / sum(row["steps"] for row in own)
        recent = rows[-RECENT_EPOCHS:]
        guessed = sum(self.step_seconds(owners[row["epoch"] - 1]) * row["steps"] for row in recent)
        wrong = sum(row["train_seconds"] for row in recent) / guessed if guessed else 1.0
        return self.step_seconds(stage) * wrong


def validates(epoch: int, owners: Sequence[Stage]) -> bool:
    """Whether there is a validation after `epoch` (from 0); always after the last one."""
    return epoch + 1 == len(owners) or (epoch + 1) % owners[epoch].validate_every == 0

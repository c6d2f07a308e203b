"""How much training fits into a given time on this machine: steps are timed before the plan is made."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import ConfigError
from ..training.config import Stage
from ..training.gates import GATING
from .recipe import Effort

TIMED_STEPS = 2
EPOCH_SECONDS = 20.0  # how often there is news, a checkpoint, and a chance to correct the pace
FEWEST_EPOCHS, MOST_EPOCHS = 12, 60
FEWEST_STEPS = 4  # of an epoch
FEWEST_STEPS_IN_ALL = 24  # below, nothing is learned that could be judged
VALIDATION_SHARE = 0.12  # of the time
BFLOAT16_GAIN = 0.95  # of float32's time: below it, bfloat16 is worth its rounding
REHEARSAL_COST = 1.25  # a step with a forward pass of the base, relative to one without


class StepTimer:
    """Seconds of one training step of a stage; each kind of step is timed once, on a copy of the network.

    Args:
        network: with the weights that training begins with: what its gates prune decides the time.
        rehearsal: whether the base is asked in every step.
    """

    def __init__(
        self, network: nn.Module, channels: int, device: torch.device, rehearsal: bool, check: Callable[[], None]
    ) -> None:
        self._network = copy.deepcopy(network).to(device).train()
        self._channels, self._device, self._check = channels, device, check
        self._factor = REHEARSAL_COST if rehearsal else 1.0
        self._known: dict[tuple[object, ...], float] = {}
        self.precision = "float32"

    def choose_precision(self, stage: Stage) -> str:
        """ "bfloat16" where this machine computes it faster, else "float32"."""
        seconds = {}
        for self.precision in ("float32", "bfloat16"):
            seconds[self.precision] = self._time(stage)
        faster = seconds["bfloat16"] < BFLOAT16_GAIN * seconds["float32"]
        self.precision = "bfloat16" if faster else "float32"
        self._known = {_kind(stage): seconds[self.precision]}
        return self.precision

    def __call__(self, stage: Stage) -> float:
        kind = _kind(stage)
        if kind not in self._known:
            self._known[kind] = self._time(stage)
        return self._known[kind] * self._factor

    def _time(self, stage: Stage) -> float:
        if hasattr(self._network, "gating"):
            self._network.gating = GATING[stage.gates]  # type: ignore[assignment]
        image = torch.randn(stage.batch_size, self._channels, *stage.size, device=self._device)
        seconds = []
        for number in range(1 + TIMED_STEPS):
            self._check()
            started = time.perf_counter()
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                logits = self._network(image)
            F.cross_entropy(logits.float(), logits.argmax(1)).backward()
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            if number:  # the first one also sets up
                seconds.append(time.perf_counter() - started)
        return min(seconds)


def _kind(stage: Stage) -> tuple[object, ...]:
    return GATING[stage.gates], stage.batch_size, *stage.size


def least_seconds(step_s: float) -> float:
    """Seconds of the shortest training that `plan_effort` does not refuse, by the seconds of a step."""
    return (1 + 1e-9) * FEWEST_STEPS_IN_ALL * step_s / (1 - VALIDATION_SHARE)  # a little more: it is rounded down


def plan_effort(seconds: float, step_s: float, validation_s: float, precision: str, shares: int = 1) -> Effort:
    """Epochs and validations for a training of `seconds`.

    Args:
        step_s: seconds of a step, on average over the stages' epochs; validation_s: of one validation.
        shares: trainings, this one included, among which more time would be divided.

    Raises:
        ConfigError: too little time for anything.
    """
    steps = int(seconds * (1 - VALIDATION_SHARE) / step_s)
    if steps < FEWEST_STEPS_IN_ALL:
        more = shares * (least_seconds(step_s) - seconds)
        raise ConfigError(
            f"The time that is left for training, {max(0.0, seconds):.0f} s, holds {max(0, steps)} steps here.",
            f"With fewer than {FEWEST_STEPS_IN_ALL}, nothing is learned.",
            f"Give at least {_minutes(more)} more, or train on a GPU.",
        )
    epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, round(seconds / EPOCH_SECONDS)), max(6, steps // FEWEST_STEPS))
    every = max(1, math.ceil(validation_s * epochs / (VALIDATION_SHARE * seconds)))
    return Effort(epochs, steps, min(every, epochs), precision)


def _minutes(seconds: float) -> str:
    return f"{math.ceil(seconds)} s" if seconds < 90 else f"{math.ceil(seconds / 60)} min"

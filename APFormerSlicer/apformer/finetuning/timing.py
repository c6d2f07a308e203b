"""How long a training step takes on this machine, and whether a time is enough for any training."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from ..bundles.preprocessing import Preprocessing
from ..datasets import SiteCase
from ..errors import ConfigError
from ..networks import build_network
from ..training.clock import Clock
from ..training.config import Stage
from ..training.gates import GATING, READY
from ..training.timed import VALIDATION_SHARE
from .measured import FEWEST_MEASURED, in_turn
from .recipe import BATCH
from .setup import Setup

FEWEST_STEPS_IN_ALL = 24  # below, nothing is learned that could be judged
BFLOAT16_GAIN = 0.95  # of float32's time: below it, bfloat16 is worth its rounding
REHEARSAL_COST = 1.25  # a step with a forward pass of the base, relative to one without
QUICK_PASSES, QUICK_SECONDS = 4, 3.0  # at most, of the first look
SPARE = 1.05  # of what is asked for: what is kept for the end is measured anew, and never quite the same
FORWARD_SHARE = 1 / 3  # of a step: going back takes twice as long


class StepTimer:
    """Seconds of a training step of each stage, from two steps, on a copy of the network.

    Args:
        network: with the weights that training begins with: what its gates prune decides the time.
        rehearsal: whether the base is asked in every step.
    """

    def __init__(
        self,
        network: nn.Module,
        channels: int,
        device: torch.device,
        rehearsal: bool,
        check: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._network = copy.deepcopy(network).to(device).train()
        self._channels, self._device, self._check, self._clock = channels, device, check, clock
        self._factor = REHEARSAL_COST if rehearsal else 1.0

    def measure(self, stages: Sequence[Stage]) -> tuple[tuple[float, ...], str]:
        """Seconds of a step of each, and the number format that is faster here in the last one: "bfloat16" is tried
        only where the machine has it in hardware. Steps are not to each other as their voxels: attention goes with the
        square of the tokens."""
        seconds, half = self._time(stages[-1], half=False), False
        if has_bfloat16(self._device):
            shorter = self._time(stages[-1], half=True)
            half = shorter < BFLOAT16_GAIN * seconds
            seconds = shorter if half else seconds
        each = [*(self._time(stage, half) for stage in stages[:-1]), seconds]
        return tuple(one * self._factor for one in each), "bfloat16" if half else "float32"

    def _time(self, stage: Stage, half: bool) -> float:
        """Of the second of two steps; the first one also sets up."""
        if hasattr(self._network, "gating"):
            gating = "off" if stage.gates == READY else GATING[stage.gates]
            self._network.gating = gating  # type: ignore[assignment]
        image = torch.randn(stage.batch_size, self._channels, *stage.size, device=self._device)
        seconds = 0.0
        for _ in range(2):
            self._check()
            started = self._clock()
            with torch.autocast(self._device.type, torch.bfloat16, enabled=half):
                logits = self._network(image)
            F.cross_entropy(logits.float(), logits.argmax(1)).backward()
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            seconds = self._clock() - started
        return seconds


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 faster than float32, as far as it says."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    known = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(asked is not None and asked() for asked in known)


def least_seconds(step_s: float) -> float:
    """Seconds of the shortest training that `check_time` does not refuse, by the seconds of a step."""
    return (1 + 1e-9) * FEWEST_STEPS_IN_ALL * step_s / (1 - VALIDATION_SHARE)  # a little more: it is rounded down


def check_time(seconds: float, step_s: float, shares: int = 1) -> None:
    """Refuse a training that is too short to learn anything.

    Args:
        seconds: for its steps and validations. step_s: of a step, on average over the stages.
        shares: trainings, this one included, among which more time would be divided.

    Raises:
        ConfigError: too little time for anything.
    """
    steps = int(seconds * (1 - VALIDATION_SHARE) / max(step_s, 1e-9))
    if steps >= FEWEST_STEPS_IN_ALL:
        return
    more = shares * (SPARE * least_seconds(step_s) - seconds)
    raise ConfigError(
        f"The time that is left for training, {max(0.0, seconds):.0f} s, holds {max(0, steps)} steps here.",
        f"With fewer than {FEWEST_STEPS_IN_ALL}, nothing is learned.",
        f"Give at least {_minutes(more)} more, or train on a GPU.",
    )


def check_beforehand(given: float, needed: float) -> None:
    """Refuse a time that is far from enough, before anything long is begun.

    Args:
        given, needed: seconds, for everything; `needed` is an estimate, so that only half of it is insisted on.

    Raises:
        ConfigError: it is less than half of what is needed.
    """
    if given < needed / 2:
        raise ConfigError(
            f"A time of {given:.0f} s was given; measuring and {FEWEST_STEPS_IN_ALL} steps take about "
            f"{_minutes(needed)} here.",
            f"With fewer than {FEWEST_STEPS_IN_ALL} steps, nothing is learned.",
            f"Give at least {_minutes(1.25 * needed)}, or train on a GPU.",
        )


@torch.no_grad()
def quick_estimate(setup: Setup) -> float:
    """Seconds that measuring and the fewest steps will take at least, from a few passes of a part of a patch."""
    settings, batch = setup.source.preprocessing, BATCH[setup.source.preprocessing.spatial_dims]
    patch = settings.patch_size
    small = [max(16, n // 2) for n in patch]
    network = build_network(setup.form.network, setup.form.arguments).to(setup.device).eval()
    image = torch.zeros(1, setup.source.channels, *small, device=setup.device)
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) < QUICK_PASSES and sum(seconds) < QUICK_SECONDS):
        started = time.perf_counter()
        network(image)
        if setup.device.type == "cuda":
            torch.cuda.synchronize(setup.device)
        seconds.append(time.perf_counter() - started)
    # The first pass also sets up, which takes long on a busy machine.
    forward = min(seconds) * math.prod(patch) / math.prod(small)
    models = 1 if setup.remembered is None else 2
    judging = in_turn([site for fold in range(setup.split.rounds) for site in setup.divided(fold)[1]])
    patches = sum(_patches(site, settings) for site in judging[:FEWEST_MEASURED])
    trainings = setup.split.rounds + 1 if setup.split.is_cross_validation else 1
    return forward * (models * patches + trainings * FEWEST_STEPS_IN_ALL * batch / FORWARD_SHARE)


def _patches(site: SiteCase, settings: Preprocessing) -> float:
    """About how many patches a case is."""
    image = site.image
    if settings.spacing_mm is None:
        return float(min(image.shape_kji))
    extent = math.prod(n * step for n, step in zip(image.shape_kji, reversed(image.spacing_ijk), strict=True))
    own = math.prod(n * step for n, step in zip(settings.patch_size, reversed(settings.spacing_mm), strict=True))
    slices = max(image.spacing_ijk) if settings.spatial_dims == 2 else 1.0
    return extent / (own * slices)


def _minutes(seconds: float) -> str:
    return f"{math.ceil(seconds)} s" if seconds < 90 else f"{math.ceil(seconds / 60)} min"

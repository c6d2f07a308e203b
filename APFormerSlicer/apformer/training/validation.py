"""Dice and loss on the frozen validation cases, at the model's own resolution, while training runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..metrics import Overlap, over_cases
from .augment import fit
from .cases import UNKNOWN, PreparedCases
from .clock import Clock
from .config import Stage, TrainingConfig
from .marginal import marginal_entropy

T = TypeVar("T")
LARGEST_WHOLE = 2.0  # patches: a larger volume is seen window by window, as the Segmenter does
WITHOUT = 4  # of the windows, every so-manieth is one without foreground, while both last


@dataclass(frozen=True)
class Window:
    """A part of an item. start: its first voxel; None for the whole item."""

    item: int
    start: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Judged:
    """What a validation found. dice: pooled, by label name; None for a label that no case has: nothing judges it (see
    `metrics`). loss: cross-entropy and one minus soft Dice. windows: how many were seen."""

    dice: dict[str, float | None]
    loss: float
    windows: int


class Validation:
    """The validation cases as windows, always in the same order. Each judges what was outlined in its case, where it is
    known what is there.

    The first windows of every case come before the second ones, those with foreground before most of those without: so
    whichever number of them is looked at is a fair sample.

    Args:
        limit: look at no more than so many windows; None: at all of them. The first validation that is stopped by its
            time sets it, so that all later ones look at the same.
    """

    def __init__(self, cases: PreparedCases, config: TrainingConfig, device: torch.device) -> None:
        self.cases, self.config, self.device = cases, config, device
        self.limit: int | None = None
        self._windows: list[Window] | None = None

    @property
    def windows(self) -> list[Window]:
        """All of them, in order."""
        if self._windows is None:
            self._windows = list(_in_turns(_windows_by_case(self.cases)))
        return self._windows

    @torch.inference_mode()
    def __call__(
        self,
        network: nn.Module,
        check: Callable[[], None],
        seconds: float | None,
        clock: Clock,
        stage: Stage | None = None,
    ) -> Judged:
        """See `Judged`: intersections and sizes are summed over all windows before dividing.

        Args:
            check: may stop it by raising, between two windows.
            seconds: it may take, if that is limited: after them no further window is looked at, now or later.
            stage: where it shows images shrunk, they are judged so: a network that never saw them at their size would
                look as if it had learned nothing.
        """
        network.eval()
        windows = self.windows[: self.limit]  # finding them takes time once, and none of the validation's
        sums, began, seen = _Sums(self.config), clock(), 0
        scale = self._scale(stage)
        if seconds is not None:
            seconds *= math.prod(scale)  # so that as many windows can be looked at later, at their size
        for window in windows:
            check()
            image, label = self._cut(window)
            found = fit(self._logits(network, fit(image, self._size(image))[None], scale), image.shape[1:])
            sums.add(found, label, self.cases.missing(window.item))
            seen += 1
            if self.limit is None and seconds is not None and clock() - began > seconds:
                self.limit = seen
                break
        return Judged(sums.dice(), sums.loss(), seen)

    def _scale(self, stage: Stage | None) -> list[float]:
        """How much smaller than at the model's resolution images are seen, per axis."""
        patch = self.config.preprocessing.patch_size
        if stage is None or stage.cuts(len(patch)):
            return [1.0] * len(patch)
        return [small / size for small, size in zip(stage.size, patch, strict=True)]

    def _logits(self, network: nn.Module, image: Tensor, scale: Sequence[float]) -> Tensor:
        """(1, C, *size) -> (classes, *size), float32, on the CPU."""
        size = image.shape[2:]
        if any(share != 1 for share in scale):
            small = [max(1, round(n * share)) for n, share in zip(size, scale, strict=True)]
            image = F.interpolate(image, size=small, mode="bilinear", antialias=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            logits = network(image.to(self.device)).float().cpu()
        return (logits if logits.shape[2:] == size else F.interpolate(logits, size=size, mode="bilinear"))[0]

    def _size(self, image: Tensor) -> list[int]:
        return [max(a, b) for a, b in zip(image.shape[1:], self.config.preprocessing.patch_size, strict=True)]

    def _cut(self, window: Window) -> tuple[Tensor, Tensor]:
        image, label = self.cases.item(window.item)
        if window.start is None:
            return image, label
        patch = self.config.preprocessing.patch_size
        place = (slice(None), *(slice(s, s + n) for s, n in zip(window.start, patch, strict=True)))
        return image[place], label[place]


class _Sums:
    """Voxels and probabilities, summed over windows."""

    def __init__(self, config: TrainingConfig) -> None:
        self.labels = config.labels
        self.counts = {label.name: [0, 0, 0] for label in config.labels}
        self.soft = torch.zeros(3, len(config.labels), dtype=torch.float64)  # both, predicted, reference
        self.entropy, self.voxels = 0.0, 0

    def add(self, logits: Tensor, maps: Tensor, missing: Tensor | None) -> None:
        """Of one window: (classes, *size), labels and marks (1 or 2, *size), and what its case leaves out (256,)."""
        known = maps[1] != UNKNOWN if len(maps) > 1 else torch.ones_like(maps[0], dtype=torch.bool)
        label, predicted, log = maps[0], logits.argmax(0), logits.log_softmax(0)
        target = label.clamp_max(logits.shape[0] - 1).long()
        entropy = marginal_entropy(log[None], target[None, None], None if missing is None else missing[None])
        self.entropy += float(entropy[0, 0][known].sum())
        self.voxels += int(known.sum())
        chances = log.exp()[1:] * known
        for number, entry in enumerate(self.labels):
            if missing is not None and missing[entry.value]:
                continue
            a, b = (predicted == entry.value) & known, (label == entry.value) & known
            found = (int(mask.sum()) for mask in (a & b, a, b))
            self.counts[entry.name] = [sum(pair) for pair in zip(self.counts[entry.name], found, strict=True)]
            chance = chances[number]
            self.soft[:, number] += torch.tensor(
                [float((chance * b).sum()), float(chance.sum()), float(b.sum())], dtype=torch.float64
            )

    def dice(self) -> dict[str, float | None]:
        """By label name."""
        pooled = {name: over_cases([Overlap(*count)]).pooled_dice for name, count in self.counts.items()}
        return {name: None if dice is None else round(dice, 5) for name, dice in pooled.items()}

    def loss(self) -> float:
        """Mean cross-entropy, and one minus soft Dice on average over the labels that occur."""
        both, predicted, reference = self.soft
        there = reference > 0
        dice = (2 * both / (predicted + reference).clamp_min(1e-9))[there]
        entropy = self.entropy / max(1, self.voxels)
        return round(entropy + (float(1 - dice.mean()) if len(dice) else 0.0), 6)


def _windows_by_case(cases: PreparedCases) -> list[list[Window]]:
    """Of each case its windows, each next one far from those before."""
    by_case: dict[str, list[tuple[Window, bool]]] = {}
    for item in range(len(cases)):
        label = cases.label(item)
        found = by_case.setdefault(cases.case(item).name, [])
        patch = cases.preprocessing.patch_size
        for start in _starts(label.shape[1:], patch):
            place = () if start is None else tuple(slice(s, s + n) for s, n in zip(start, patch, strict=True))
            found.append((Window(item, start), bool(label[0][place].any())))
    return [_mixed(found) for found in by_case.values()]


def _starts(shape: Sequence[int], patch: Sequence[int]) -> Iterator[tuple[int, ...] | None]:
    """Where windows of a patch's size begin that cover a volume; None: it is seen whole."""
    if len(shape) == 2 or math.prod(shape) <= LARGEST_WHOLE * math.prod(patch):
        yield None
        return
    lines = []
    for size, step in zip(shape, patch, strict=True):
        count = max(1, math.ceil(size / step))
        lines.append([round(n * max(0, size - step) / max(1, count - 1)) for n in range(count)])
    yield from itertools.product(*lines)


def _mixed(windows: Sequence[tuple[Window, bool]]) -> list[Window]:
    """Those with foreground first, one without after every few."""
    inside = spread([window for window, there in windows if there])
    outside = spread([window for window, there in windows if not there])
    mixed: list[Window] = []
    while inside or outside:
        take = outside if outside and (not inside or len(mixed) % WITHOUT == WITHOUT - 1) else inside
        mixed.append(take.pop(0))
    return mixed


def spread(items: Sequence[T]) -> list[T]:
    """In an order in which every beginning lies evenly over the whole: by multiples of the golden ratio."""
    golden = (5**0.5 - 1) / 2
    order = sorted(range(len(items)), key=lambda n: (n * golden + 0.5) % 1)
    ranks = sorted(range(len(order)), key=order.__getitem__)
    return [items[n] for n in ranks]


def _in_turns(by_case: Sequence[Sequence[Window]]) -> Iterator[Window]:
    """The first of every case, then the second of every case, and so on."""
    for turn in itertools.zip_longest(*by_case):
        yield from (window for window in turn if window is not None)

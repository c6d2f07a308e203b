"""Setting the query threshold of a network for new images: what it prunes must not be what it is to find.

A threshold that was learned on one site's images prunes too much on another's, where the prune head is less sure
(`left-ventricle-cine-mr` 1.1.0 on ACDC: pooled Dice 0.833 pruned, 0.883 dense). Labels tell which tokens matter.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..networks import APFormer, LeanFormer, build_network
from ..pruning.boxes import boxes_around
from ..pruning.budget import Budget, dense_macs
from ..pruning.flops import count_macs
from ..pruning.gates import dilate
from ..pruning.plugin import PrunedNetwork
from ..pruning.threshold import find_holding_threshold, find_threshold, kept_share, recorded_margins
from .augment import fit
from .cases import PreparedCases

Prunable = APFormer | LeanFormer | PrunedNetwork
IMAGES = 96  # at most: over which a threshold is set in the end, evenly over the cases
FEW_IMAGES = 32  # while it trains, and to see whether gates can open, which happens more often
# What must be inside what is kept, safety ring included, whatever the budget: tokens that hold foreground, and its
# voxels. Of `left-ventricle-cine-mr` on 40 slices of ACDC, before it learned from them, 15 % of the tokens hold 99.8
# and 99.9 % of them; to keep 99.8 % of the first *without* the ring, it would have to keep 39 %.
CELLS_KEPT = 0.998
VOXELS_KEPT = 0.995
CELLS_FOUND = 0.99  # of the tokens that hold foreground, that a prune head must find before gates open ...
EXCESS = 1.5  # ... while no more is kept than this times what a perfect one would keep, or than the budget


class Calibration:
    """Sets query thresholds so that a budget is met on the training cases and their foreground is not lost.

    Args:
        cases: tells the training cases as far as they are prepared.
        share: of all tokens, that is kept on average, safety ring included, if the foreground allows it.
    """

    def __init__(self, cases: Callable[[], PreparedCases], share: float) -> None:
        self.cases, self.share = cases, share

    @classmethod
    def to_budget(
        cls,
        cases: Callable[[], PreparedCases],
        budget: str,
        name: str,
        arguments: Mapping[str, Any],
        shape: Sequence[int],
    ) -> Calibration:
        """To a budget in words, of the network that is registered as `name`, for images (C, *size) of that shape.

        Raises:
            ConfigError: the budget is out of reach.
        """
        network: Any = build_network(name, arguments).eval()
        network.gating = "off"
        with torch.no_grad():
            tokens = network(torch.zeros(1, *shape), auxiliaries=True)[1].kept.numel()
        rest = count_macs(network, (1, *shape)).total - dense_macs(network.costs, tokens)
        return cls(cases, Budget.parse(budget).kept_share(network.costs, tokens, round(rest)))

    def set_threshold(self, network: nn.Module, images: int = FEW_IMAGES) -> None:
        """Set the threshold by so many images; a network without gates stays as it is."""
        if isinstance(network, Prunable):
            set_threshold(network, self.cases(), self.share, images=images)

    def is_ready(self, network: nn.Module) -> bool:
        """Whether the network's prune head knows where the foreground is: finding nearly all of it does not mean
        keeping much else."""
        if not isinstance(network, Prunable):
            return False
        margins, voxels = _look(network, self.cases(), FEW_IMAGES)
        cells = _holding(voxels)
        if not any(bool(holding.any()) for holding in cells):
            return False
        assert network.query_gate is not None
        ring = network.query_gate.ring
        finding = kept_share(margins, find_holding_threshold(margins, cells, CELLS_FOUND, ring), ring)
        perfect = statistics.fmean(float(dilate(holding, ring).mean()) for holding in cells)
        return finding <= max(self.share, EXCESS * perfect)


@torch.no_grad()
def set_threshold(
    network: Prunable, cases: PreparedCases, share: float | None, cells: float = CELLS_KEPT, images: int = IMAGES
) -> None:
    """Set the threshold so that `share` of all tokens are kept on average, the safety ring included; then lower it, if
    need be, until those are `cells` of the tokens that hold foreground, and hold `VOXELS_KEPT` of its voxels.

    Args:
        share: None leaves the threshold where it is, but for what the foreground asks.
        images: at most, evenly over the cases.
    """
    gate = network.query_gate
    assert gate is not None
    margins, voxels = _look(network, cases, images)
    if not margins:  # none of the cases can be read any more, which the batches tell
        return
    if share is not None:
        gate.threshold.fill_(find_threshold(margins, share, gate.ring))
    if any(bool(count.any()) for count in voxels):
        for held, least in ((_holding(voxels), cells), (voxels, VOXELS_KEPT)):
            gate.threshold.clamp_(max=find_holding_threshold(margins, held, least, gate.ring))


def foreground_inside(network: Prunable, cases: PreparedCases, images: int = IMAGES) -> float | None:
    """The share of the foreground's voxels that lie in cells which the network works on; None without foreground.

    These are the kept cells, safety ring included, and for LeanFormer the boxes around them, since it finds nothing
    outside; of images larger than a patch, which are segmented piece by piece and have more boxes, the kept ones alone.
    """
    assert network.query_gate is not None
    margins, voxels = _look(network, cases, images)
    patch = [-(-size // step) for size, step in zip(cases.preprocessing.patch_size, network.token_stride, strict=True)]
    inside = everything = 0.0
    for margin, count in zip(margins, voxels, strict=True):
        kept = dilate((margin > network.query_gate.threshold.cpu()).float(), network.query_gate.ring)
        if isinstance(network, LeanFormer) and network.config.prune_decoder and list(kept.shape[1:]) == patch:
            kept = _filled(kept, network.config.halo)
        inside += float((kept * count).sum())
        everything += float(count.sum())
    return inside / everything if everything else None


def _filled(kept: Tensor, halo: int) -> Tensor:
    """(1, *grid), 1 where cells are kept -> the same, 1 in the box around them."""
    inside = torch.zeros_like(kept)
    for boxes in boxes_around(kept, halo):
        place = inside[0]
        for axis, (start, length) in enumerate(zip(boxes.starts[0], boxes.extent, strict=True)):
            place = place.narrow(axis, start, length)
        place.fill_(1.0)
    return inside


def voxels_with_foreground(labels: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Labels (B, 1, *size) -> how many voxels of each cell (of `stride` voxels) are foreground: (B, 1, *grid)."""
    padding: list[int] = []
    for size, step in zip(reversed(labels.shape[2:]), reversed(stride), strict=True):
        padding += [0, -size % step]
    pool = F.avg_pool2d if labels.ndim == 4 else F.avg_pool3d
    return math.prod(stride) * pool(F.pad((labels > 0).float(), padding), tuple(stride))


def _holding(voxels: Sequence[Tensor]) -> list[Tensor]:
    """1 where a token holds any foreground, else 0."""
    return [(count > 0).float() for count in voxels]


@torch.no_grad()
def _look(network: Prunable, cases: PreparedCases, images: int) -> tuple[list[Tensor], list[Tensor]]:
    """What the gate compares with its threshold, and how much foreground is where: (1, *grid) per image, on the CPU."""
    training, gating = network.training, network.gating
    network.eval()
    network.gating = "hard"
    device = next(network.parameters()).device
    assert network.query_gate is not None
    voxels = []
    try:
        gate = network.query_gate
        with recorded_margins(gate) as margins, gate.register_forward_pre_hook(_stop):  # once it is recorded
            for image, label in _images(cases, images):
                with suppress(_Heard):
                    network(image[None].to(device))
                voxels.append(voxels_with_foreground(label[None, :1], network.token_stride)[0])
    finally:
        network.gating = gating
        network.train(training)
    return margins, voxels


class _Heard(Exception):  # noqa: N818 - nothing is wrong
    """The prune head has spoken: what else the network makes of the image is of no interest."""


def _stop(module: nn.Module, inputs: Any) -> None:
    raise _Heard


def _images(cases: PreparedCases, images: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Evenly over the cases. One that has become unreadable meanwhile tells nothing here: the batches name it."""
    patch = cases.preprocessing.patch_size
    for index in range(0, len(cases), math.ceil(len(cases) / images) or 1):
        try:
            image, label = cases.item(index)
        except InputError:
            continue
        size = [max(a, b) for a, b in zip(image.shape[1:], patch, strict=True)]
        yield fit(image, size), fit(label.float(), size)

"""Setting the query threshold of a network for new images: what it prunes must not be what it is to find.

A threshold that was learned on one site's images prunes too much on another's, where the prune head is less sure
(`left-ventricle-cine-mr` 1.1.0 on ACDC: pooled Dice 0.833 pruned, 0.883 dense). Labels tell which tokens matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..networks import APFormer, LeanFormer
from ..pruning.plugin import PrunedNetwork
from ..pruning.threshold import find_threshold, recorded_margins
from .augment import fit
from .cases import PreparedCases
from .losses import cells_with_foreground

IMAGES = 96  # at most: over which a threshold is set, evenly over the cases


@torch.no_grad()
def set_threshold(
    network: APFormer | LeanFormer | PrunedNetwork, cases: PreparedCases, share: float | None, recall: float
) -> None:
    """Set the threshold so that `share` of all tokens are kept on average, the safety ring included; then lower it, if
    need be, until `recall` of the tokens that hold foreground are kept without the ring.

    Args:
        share: None leaves the threshold where it is, but for what `recall` asks.
    """
    gate = network.query_gate
    assert gate is not None
    margins, cells = _look(network, cases)
    if share is not None:
        gate.threshold.fill_(find_threshold(margins, share, gate.ring))
    found = torch.cat([margin[cell > 0] for margin, cell in zip(margins, cells, strict=True)])
    if found.numel():
        gate.threshold.clamp_(max=float(found.quantile(1 - recall)) - 1e-4)


def _look(network: APFormer | LeanFormer | PrunedNetwork, cases: PreparedCases) -> tuple[list[Tensor], list[Tensor]]:
    """What the gate compares with its threshold, and where foreground is: (1, *grid) per image, on the CPU."""
    training = network.training
    network.eval()
    device = next(network.parameters()).device
    assert network.query_gate is not None
    cells = []
    try:
        with recorded_margins(network.query_gate) as margins:
            for image, label in _images(cases):
                network(image[None].to(device))
                cells.append(cells_with_foreground(label[None, :1], network.token_stride)[0])
    finally:
        network.train(training)
    return margins, cells


def _images(cases: PreparedCases) -> Iterator[tuple[Tensor, Tensor]]:
    patch = cases.preprocessing.patch_size
    for index in range(0, len(cases), math.ceil(len(cases) / IMAGES) or 1):
        image, label = cases.item(index)
        size = [max(a, b) for a, b in zip(image.shape[1:], patch, strict=True)]
        yield fit(image, size), fit(label.float(), size)

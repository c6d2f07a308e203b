"""Teaching the network one structure, on the slices that were outlined.

What it will be asked is how the outline between two slices differs from the interpolated one. An outlined slice that is
interpolated from its outlined neighbours shows this at twice the gap, where interpolation errs about four times as
much: learned from that, the network moves outlines too far. So the interpolated outline is pulled part of the way to
the true one, to where it errs as much as the interpolation between two slices does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .edge_network import DISTANCES, GREY, Channel, EdgeNetwork
from .interpolation import Outline, interpolated
from .outlined import Outlined

BATCH = 6
RATE, WARM_UP = 1e-3, 5
BOTH_SIDES = 0.7  # of examples that have outlined slices on both sides are interpolated from both
LEAST_ERROR, MOST_ERROR = 0.5, 1.7  # times what is expected
ONE_SIDED = 0.5  # an outline taken from one neighbour errs less than in proportion: half, near the middle of a gap
TURN, ZOOM, SHIFT, BEND = 0.35, 1.18, 0.06, 1.2  # radians, factor, half images, px of a smooth field
CONTRAST, BRIGHTNESS, PER_SLICE, NOISE = (0.8, 1.25), 0.25, 0.06, 0.15


class Draw:
    """Random numbers that one seed decides."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def between(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator)

    def number(self, low: float = 0.0, high: float = 1.0) -> float:
        return float(self.between(low, high))

    def index(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self.generator))

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)


def learn(
    network: EdgeNetwork,
    structure: Outlined,
    slices: Sequence[int],
    *,
    steps: int,
    draw: Draw,
    go_on: Callable[[], bool] = lambda: True,
    rate: float = RATE,
) -> int:
    """Teach the network in place; how many steps it took.

    Args:
        slices: outlined ones to learn from.
        go_on: asked before each step; what it raises passes through.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-4)
    network.train()
    for step in range(steps):
        if not go_on():
            return step
        falling = 0.05 + 0.5 * (1 + np.cos(np.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / WARM_UP) * falling
        seen, inside = changed(*_examples(structure, slices, draw), draw)
        loss = segmentation_loss(network(seen), inside)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    return steps


def segmentation_loss(logits: Tensor, inside: Tensor) -> Tensor:
    """1 - Dice, a mean over slices, plus cross-entropy.

    Args:
        logits, inside: (B, rows, columns); inside: the share of a pixel that is.
    """
    found = logits.sigmoid()
    common, size = (found * inside).sum((1, 2)), (found + inside).sum((1, 2))
    return (1 - (2 * common + 1) / (size + 1)).mean() + F.binary_cross_entropy_with_logits(logits, inside)


def asked_anew(structure: Outlined, index: int, draw: Draw) -> np.ndarray:
    """An outlined slice as if it lay between two that are: what the network sees, (`Channel`, rows, columns).

    Args:
        index: of the slice; at least one more has an outline.
    """
    first, second = structure.neighbours(index, [other for other in structure.drawn if other != index])
    gap, step = _a_gap(structure.slices, draw)
    if first != second and draw.number() < BOTH_SIDES:
        prior = structure.prior(index, first, second)
        # The error of a linear interpolation grows with the distances to both ends, multiplied.
        expected = step * (gap - step) / ((index - first) * (second - index))
    else:
        only = first if draw.number() < 0.5 else second
        prior = structure.prior(index, only, only)
        expected = ONE_SIDED * min(step, gap - step) / abs(index - only)
    error = min(1.0, expected * draw.number(LEAST_ERROR, MOST_ERROR))
    pulled = interpolated(structure.outline[index], Outline(prior < 0), error)
    return structure.channels(index, pulled, first, second, without=index)


def _a_gap(slices: Sequence[int], draw: Draw) -> tuple[int, int]:
    """How far apart two outlined slices are, and a place between them; (2, 1) where they touch."""
    number = draw.index(len(slices) - 1)
    gap = max(2, slices[number + 1] - slices[number])
    return gap, 1 + draw.index(gap - 1)


def _examples(structure: Outlined, slices: Sequence[int], draw: Draw) -> tuple[Tensor, Tensor]:
    """(B, `Channel`, rows, columns) and what is inside, (B, rows, columns)."""
    chosen = [slices[draw.index(len(slices))] for _ in range(BATCH)]
    seen = np.stack([asked_anew(structure, index, draw) for index in chosen])
    return torch.from_numpy(seen), torch.from_numpy(np.stack([structure.share[index] for index in chosen]))


def changed(seen: Tensor, inside: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """Turned, zoomed, moved and bent a little, and in other grey values; new tensors of the same shapes."""
    seen, inside = _moved(seen, inside, draw)
    count = len(seen)
    grey = seen[:, GREY]
    grey = grey * draw.between(*CONTRAST, count, 1, 1, 1) + draw.between(-BRIGHTNESS, BRIGHTNESS, count, 1, 1, 1)
    own = (count, len(GREY), 1, 1)
    grey = grey * (1 + PER_SLICE * draw.normal(*own)) + PER_SLICE * draw.normal(*own)
    seen[:, GREY] = grey + draw.normal(*grey.shape) * draw.between(0, NOISE, count, 1, 1, 1)
    seen[:, Channel.LIKENESS] *= draw.between(0.7, 1.2, count, 1, 1)
    return seen, inside


def _moved(seen: Tensor, inside: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    count, (rows, columns) = len(seen), seen.shape[2:]
    turn, zoom = draw.between(-TURN, TURN, count), draw.between(1 / ZOOM, ZOOM, count)
    across, along = turn.cos() * zoom, turn.sin() * zoom
    # grid_sample measures both sides from -1 to 1: a turn in pixels needs their ratio.
    theta = torch.stack([across, -along * rows / columns, along * columns / rows, across], dim=1).reshape(count, 2, 2)
    theta = torch.cat([theta, SHIFT * draw.normal(count, 2, 1)], dim=2)
    grid = F.affine_grid(theta, [count, 1, rows, columns], align_corners=False)
    bent = F.interpolate(draw.normal(count, 2, 4, 4), size=(rows, columns), mode="bicubic").permute(0, 2, 3, 1)
    grid = grid + BEND * bent * torch.tensor([2 / columns, 2 / rows])
    moved = F.grid_sample(torch.cat([seen, inside[:, None]], dim=1), grid, padding_mode="border", align_corners=False)
    moved[:, DISTANCES] = (moved[:, DISTANCES] / zoom[:, None, None, None]).clamp(-1, 1)
    return moved[:, :-1], moved[:, -1]


@torch.inference_mode()
def answered(network: EdgeNetwork, seen: np.ndarray) -> np.ndarray:
    """Logits (rows, columns) of one slice, (`Channel`, rows, columns)."""
    return network.eval()(torch.from_numpy(seen)[None])[0].numpy()

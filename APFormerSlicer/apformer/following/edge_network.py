"""A small U-Net that moves an interpolated outline to the edges of the image.

It sees one slice between two that were outlined: the image there and on both sides, the interpolated outline, how much
the grey values are like those of the structure, and both outlined slices. Its answer is added to the interpolated
outline, and begins at nothing: a network that has learned nothing proposes the interpolation.
"""

from __future__ import annotations

from enum import IntEnum, auto
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..bundles.weights import unpack
from ..networks.parts import crop_to, pad_to_cells

START = Path(__file__).with_name("edge_network.safetensors")
REACH = 8.0  # px: from an outline on, distances are told apart; beyond, all are the same
STEEPNESS = 0.7  # logits per px of distance: the answer is unsure over about as much as an interpolation errs


class Channel(IntEnum):
    """What the network sees, (channels, rows, columns). Distances are divided by `REACH` and end at -1 and 1."""

    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[int]) -> int:
        return count

    IMAGE = auto()
    IMAGE_BEFORE = auto()
    IMAGE_AFTER = auto()
    PRIOR = auto()
    LIKENESS = auto()
    FIRST_IMAGE = auto()
    FIRST_OUTLINE = auto()
    SECOND_IMAGE = auto()
    SECOND_OUTLINE = auto()
    SHARE = auto()


GREY = [Channel.IMAGE, Channel.IMAGE_BEFORE, Channel.IMAGE_AFTER, Channel.FIRST_IMAGE, Channel.SECOND_IMAGE]
DISTANCES = [Channel.PRIOR, Channel.FIRST_OUTLINE, Channel.SECOND_OUTLINE]


class EdgeNetwork(nn.Module):
    """Slices (B, `Channel`, rows, columns) of any size to logits (B, rows, columns)."""

    def __init__(self, widths: tuple[int, ...] = (12, 24, 48)) -> None:
        super().__init__()
        self.down = nn.ModuleList(_convolutions(a, b) for a, b in zip((len(Channel), *widths), widths, strict=False))
        self.up = nn.ModuleList(_convolutions(a + b, a) for a, b in pairwise(widths))
        self.head = nn.Conv2d(widths[0], 1, kernel_size=1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, slices: Tensor) -> Tensor:
        features = pad_to_cells(slices, [2 ** len(self.up)] * 2)
        passed: list[Tensor] = []
        for level, block in enumerate(self.down):
            features = block(F.max_pool2d(features, 2) if level else features)
            passed.append(features)
        for block, finer in zip(reversed(self.up), reversed(passed[:-1]), strict=True):
            features = block(torch.cat([finer, F.interpolate(features, scale_factor=2.0)], dim=1))
        moved = crop_to(self.head(features), slices.shape[2:])[:, 0]
        return moved - slices[:, Channel.PRIOR] * (REACH * STEEPNESS)


def _convolutions(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.GroupNorm(4, outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def started(path: Path = START) -> EdgeNetwork:
    """A network that has learned on other structures and images how outlines follow edges.

    Raises:
        BundleError: the file is damaged.
    """
    network = EdgeNetwork()
    network.load_state_dict(unpack(path.read_bytes()))
    return network

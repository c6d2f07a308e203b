"""A patient whom a model reads wrongly in the same way on every slice: all that following needs to be tried.

The model calls bright what lies above a threshold. In this patient the structure reaches further into the dark than the
model believes, so that every slice is found too small; who corrects one slice tells the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from apformer.bundles import Bundle, Preprocessing
from apformer.inference import Segmenter
from apformer.volume import Volume
from bundle_samples import LABELS, save_sample
from torch import Tensor, nn

STEEPNESS = 200.0  # of a class's logit towards the threshold; it makes small steps of the weights count
SLOPE = 0.03
GRID = np.diag([-1.0, -1.0, 4.0, 1.0])
BELIEVED, TRUE = 1.2, 0.8  # deviations above the mean: where the model begins, and where the structure does


class Thresholds(nn.Module):
    """Images (B, 1, *size) to logits: class n + 1 where the value lies above the nth threshold."""

    way_up = ("head",)

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, at: Sequence[float]) -> None:
        super().__init__()
        self.head = (nn.Conv2d if spatial_dims == 2 else nn.Conv3d)(in_channels, out_channels, 1)
        with torch.no_grad():
            bias = [-SLOPE * sum(at[:above]) for above in range(out_channels)]
            slopes = [SLOPE * above for above in range(out_channels)]
            self.head.weight.copy_(torch.tensor(slopes).reshape(self.head.weight.shape))
            self.head.bias.copy_(torch.tensor(bias))

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, classes, *size)."""
        return STEEPNESS * self.head(image)


def save_thresholds(directory: Path, at: Sequence[float] = (BELIEVED,), spatial_dims: int = 2) -> Bundle:
    """A bundle of `Thresholds`, which must be registered under "thresholds"."""
    arguments: dict[str, Any] = {
        "spatial_dims": spatial_dims,
        "in_channels": 1,
        "out_channels": len(at) + 1,
        "at": list(at),
    }
    settings = Preprocessing(
        spatial_dims=spatial_dims,
        orientation="acquired" if spatial_dims == 2 else "LPS",
        spacing_mm=None,
        patch_size=(32, 32) if spatial_dims == 2 else (16, 32, 32),
        intensity={"kind": "percentile", "lower": 0.0, "upper": 100.0},
    )
    return save_sample(
        directory,
        labels=LABELS[: len(at)],
        preprocessing=settings,
        network_name="thresholds",
        network_arguments=arguments,
        state_dict=Thresholds(**arguments).state_dict(),
    )


def a_patient(shape: tuple[int, int, int] = (7, 32, 32)) -> Volume:
    """A bright cone, (k, j, i): brightest in the middle of each slice and darker outwards, with some noise."""
    _, rows, columns = shape
    j, i = np.mgrid[:rows, :columns]
    distance = np.hypot(j - rows / 2, i - columns / 2)
    noise = np.random.default_rng(3).normal(0, 2, shape)
    return Volume((np.clip(120 - 8 * distance, 0, None) + noise).astype(np.float32), GRID, "MR")


def truth(volume: Volume, at: Sequence[float] = (TRUE,)) -> np.ndarray:
    """Where the structures really are, uint8 (k, j, i)."""
    scaled = (volume.array - volume.array.mean()) / volume.array.std()
    return np.sum([scaled > threshold for threshold in at], axis=0).astype(np.uint8)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Over all voxels that are not 0."""
    common = np.count_nonzero((first == second) & (first > 0))
    return 2 * common / (np.count_nonzero(first) + np.count_nonzero(second))


def corrected(proposal: np.ndarray, right: np.ndarray, *slices: int) -> np.ndarray:
    """`proposal` with these slices as in `right`."""
    labels = proposal.copy()
    labels[list(slices)] = right[list(slices)]
    return labels


def segmenter(bundle: Bundle) -> Segmenter:
    """Ready on the CPU."""
    return Segmenter(bundle, "cpu")

"""From a stored volume to what a network sees. Training and inference both pass through here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..bundles.preprocessing import ACQUIRED, Preprocessing
from ..volume import Reorientation, Volume

# Percentiles are read from at most this many voxels, evenly strided: exact enough, and a whole CT is not sorted.
MOST_VOXELS_FOR_PERCENTILES = 2_000_000
SMALLEST_DEVIATION = 1e-6


@dataclass(frozen=True)
class IntensityScaling:
    """Clip to [lower, upper], then (x - offset) * factor."""

    lower: float
    upper: float
    offset: float
    factor: float

    @staticmethod
    def for_array(array: np.ndarray, intensity: Mapping[str, Any]) -> IntensityScaling:
        """The scaling a bundle's `intensity` asks for; percentiles are those of `array`."""
        if intensity["kind"] == "window":
            lower, upper = float(intensity["lower"]), float(intensity["upper"])
            return IntensityScaling(lower, upper, lower, 1.0 / (upper - lower))
        sample = array.reshape(-1)
        sample = sample[:: max(1, sample.size // MOST_VOXELS_FOR_PERCENTILES)].astype(np.float32)
        lower, upper = (float(v) for v in np.percentile(sample, (intensity["lower"], intensity["upper"])))
        clipped = np.clip(sample, lower, upper)
        deviation = max(float(clipped.std()), SMALLEST_DEVIATION)
        return IntensityScaling(lower, upper, float(clipped.mean()), 1.0 / deviation)

    def apply(self, array: np.ndarray) -> Tensor:
        """`array` of any numeric type -> scaled float32 tensor of the same shape."""
        tensor = torch.from_numpy(np.array(array, dtype=np.float32))
        return tensor.clamp_(self.lower, self.upper).sub_(self.offset).mul_(self.factor)


def model_axes(volume: Volume, preprocessing: Preprocessing) -> Reorientation:
    """The change of axes from `volume` to what the model expects; its `undo` brings results back, exactly.

    "acquired" 2D models cut slices along the coarsest axis (k on ties) and flip nothing.
    """
    if preprocessing.orientation != ACQUIRED:
        return volume.reorientation(preprocessing.orientation)
    spacing = np.asarray(volume.spacing_ijk)
    through = 2 if spacing[2] >= 0.999 * spacing.max() else int(spacing.argmax())
    first, second = (axis for axis in (0, 1, 2) if axis != through)
    return Reorientation((first, second, through), (False, False, False))


def model_size(volume: Volume, preprocessing: Preprocessing, change: Reorientation) -> tuple[int, ...]:
    """Size at the model's spacing, (rows, columns) in 2D or (k, j, i) in 3D, once `change` is applied to `volume`.

    A picture has no spacing: its longer side is brought to the patch size.
    """
    dims = preprocessing.spatial_dims
    sizes = tuple(reversed(volume.spatial_shape))  # i, j, k
    shape = [sizes[axis] for axis in change.order[:dims]]
    if volume.source.kind == "picture":
        scale = max(preprocessing.patch_size) / max(shape)
        target = [n * scale for n in shape]
    elif preprocessing.spacing_mm is None:
        target = [float(n) for n in shape]
    else:
        stored = [volume.spacing_ijk[axis] for axis in change.order[:dims]]
        target = [n * old / new for n, old, new in zip(shape, stored, preprocessing.spacing_mm, strict=True)]
    return tuple(max(1, round(n)) for n in reversed(target))


def resize(image: Tensor, size: tuple[int, ...]) -> Tensor:
    """(B, C, *spatial) to `size` by linear interpolation, smoothed first where it shrinks by more than a half."""
    if tuple(image.shape[2:]) == tuple(size):
        return image
    if image.ndim == 4:
        return F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)
    if all(old >= 1.5 * new for old, new in zip(image.shape[2:], size, strict=True)):
        return F.interpolate(image, size=size, mode="area")  # antialias does not exist for volumes
    return F.interpolate(image, size=size, mode="trilinear", align_corners=False)

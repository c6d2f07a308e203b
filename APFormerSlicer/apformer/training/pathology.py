"""Random changes inside what is labelled: the appearances of an organ that few training cases show.

A fatty liver is darker than a spleen, a cyst is darker than both, and each still is liver. Among seventy patients there
are a handful of either; a network that saw few takes such parts for something else. Both transforms follow MONAI's
conventions for random dictionary transforms.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import monai.transforms as mt
import torch
from torch import Tensor
from torch.nn import functional as F

BRIGHTER_LESIONS = 0.2  # share; most are darker than what is around them
MOST_LESIONS = 3
LESION_RADIUS = (0.02, 0.16)  # of the image's shorter side
LESION_EDGE = 0.2  # of the radius, over which a lesion fades on each side of its border


class RandOrganShiftd(mt.RandomizableTransform, mt.MapTransform):
    """Adds a random amount to the image where the label is not 0, as fat, iron or another contrast phase do.

    Args:
        shifts: least and most of what is added, in units of the image.

    Takes and returns {"image": (C, *size) float, "label": (1 or more, *size)}; only the image changes.
    """

    def __init__(self, prob: float, shifts: tuple[float, float]) -> None:
        mt.MapTransform.__init__(self, ["image"])
        mt.RandomizableTransform.__init__(self, prob)
        self.shifts = shifts
        self._shift = 0.0

    def randomize(self, data: Any | None = None) -> None:
        super().randomize(None)
        if self._do_transform:
            self._shift = float(self.R.uniform(*self.shifts))

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        changed = dict(data)
        self.randomize()
        if self._do_transform:
            changed["image"] = data["image"] + self._shift * _softened(data["label"])
        return changed


class RandLesionsd(mt.RandomizableTransform, mt.MapTransform):
    """Puts up to `MOST_LESIONS` darker or brighter ellipsoids with soft edges into what is labelled.

    Args:
        shifts: how far the darkest and the brightest are from what is around them, in units of the image: (-, +).

    Takes and returns what `RandOrganShiftd` does. The label stays: a lesion of an organ is part of it.
    """

    def __init__(self, prob: float, shifts: tuple[float, float]) -> None:
        mt.MapTransform.__init__(self, ["image"])
        mt.RandomizableTransform.__init__(self, prob)
        self.shifts = shifts

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        changed = dict(data)
        self.randomize(None)
        inside = data["label"][0].nonzero() if self._do_transform else torch.empty(0)
        if not len(inside):
            return changed
        shape = data["image"].shape[1:]
        added = torch.zeros(shape)
        for _ in range(self.R.randint(1, MOST_LESIONS + 1)):
            centre = inside[self.R.randint(len(inside))]
            radii = [min(shape) * float(self.R.uniform(*LESION_RADIUS)) for _ in shape]
            brighter = self.R.random() < BRIGHTER_LESIONS
            shift = float(self.R.uniform(0, self.shifts[1 if brighter else 0]))
            added += shift * _ellipsoid(shape, centre, radii)
        changed["image"] = data["image"] + added * _softened(data["label"])
        return changed


def _softened(label: Tensor) -> Tensor:
    """(1, *size): 1 inside, 0 outside, halfway at the border, so that no edge is sharper than an image's."""
    pool = F.avg_pool2d if label.ndim == 3 else F.avg_pool3d
    return pool((label[:1] > 0).float(), 3, stride=1, padding=1, count_include_pad=False)


def _ellipsoid(shape: tuple[int, ...], centre: Tensor, radii: list[float]) -> Tensor:
    """1 inside, 0 outside, fading around the border."""
    square = torch.zeros(shape)
    for axis, (size, middle, radius) in enumerate(zip(shape, centre, radii, strict=True)):
        line = ((torch.arange(size) - middle) / radius) ** 2
        square = square + line.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return torch.sigmoid((1 - square.sqrt()) / LESION_EDGE * 4)  # 0.98 an edge inside the border, 0.02 an edge outside

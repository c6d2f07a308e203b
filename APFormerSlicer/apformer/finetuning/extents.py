"""What a model from nothing is laid out for: how large a site's structures are, how thin and how bright."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .. import files
from ..datasets import SiteCase

LOOKED_AT = 12  # cases whose files are read
BRIGHTNESS = (0.5, 99.5)  # per cent


@dataclass(frozen=True)
class Extent:
    """Of one structure in one case, along the axes i, j, k of its image.

    Attributes:
        value: its number in the label map.
        box_mm: edges of the box around it.
        chord_mm: how long, on average, a line of voxels through it is: the diameter of a tube across it, times 0.79.
    """

    value: int
    box_mm: np.ndarray
    chord_mm: np.ndarray


@dataclass(frozen=True)
class Seen:
    """One case.

    Attributes:
        shape_kji: voxels. matrix: 4x4, ijk to RAS, mm.
        structures: those that occur; none where the labels were not read.
        brightness: by value, what `BRIGHTNESS` per cent of the voxels in a structure are below; none where the image
            was not read.
    """

    shape_kji: tuple[int, int, int]
    matrix: np.ndarray
    is_picture: bool
    structures: tuple[Extent, ...] = ()
    brightness: Mapping[int, tuple[float, float]] = field(default_factory=dict)

    @property
    def spacing_ijk(self) -> np.ndarray:
        return np.linalg.norm(self.matrix[:3, :3], axis=0)

    @property
    def field_ijk(self) -> np.ndarray:
        """The whole image along i, j, k, in mm."""
        return self.spacing_ijk * self.shape_kji[::-1]


def look_at(
    sites: Sequence[SiteCase], values: Sequence[int], bright: bool, check: Callable[[], None] = lambda: None
) -> list[Seen]:
    """What the cases are like; the files of `LOOKED_AT` of them are read, spread over all.

    Args:
        values: in their label maps, of what is learned.
        bright: whether their intensities are asked for, too.
        check: called before each file; stops by raising.

    Raises:
        InputError: a file cannot be read.
    """
    read = {site.name for site in sites[:: max(1, len(sites) // LOOKED_AT)][:LOOKED_AT]}
    return [_see(site, values, bright, check) if site.name in read else _glance(site) for site in sites]


def _glance(site: SiteCase) -> Seen:
    return Seen(site.image.shape_kji, site.image.matrix, site.image.is_picture)


def _see(site: SiteCase, values: Sequence[int], bright: bool, check: Callable[[], None]) -> Seen:
    assert site.labels_path is not None  # completed cases have
    check()
    labels = files.read_volume(site.labels_path).array
    found = extents(labels, values, np.array(site.image.spacing_ijk))
    brightness = {}
    if bright and found:
        check()
        image = files.read_volume(site.image_path).array
        for extent in found:
            low, high = np.percentile(image[labels == extent.value], BRIGHTNESS)
            brightness[extent.value] = float(low), float(high)
    return replace(_glance(site), structures=found, brightness=brightness)


def extents(labels: np.ndarray, values: Sequence[int], spacing_ijk: np.ndarray) -> tuple[Extent, ...]:
    """Of the structures that occur in a label map (k, j, i)."""
    measured = (_extent(value, labels == value, spacing_ijk) for value in values)
    return tuple(extent for extent in measured if extent is not None)


def _extent(value: int, mask: np.ndarray, spacing_ijk: np.ndarray) -> Extent | None:
    box = []
    for axis in range(3):
        occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if not occupied.size:
            return None
        box.append(slice(occupied[0], occupied[-1] + 1))
    inside = mask[tuple(box)]
    voxels = np.count_nonzero(inside)
    lines = np.array([np.count_nonzero(inside.any(axis=axis)) for axis in (2, 1, 0)])  # along i, j, k
    return Extent(value, np.array(inside.shape[::-1]) * spacing_ijk, voxels / lines * spacing_ijk)

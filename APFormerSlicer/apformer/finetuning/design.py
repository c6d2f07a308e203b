"""A model from nothing: which preprocessing and network suit a site's cases, read off the cases alone.

The rules are few and in the open: volumes of nearly cubic voxels get a 3D network, everything else a 2D one; the
network is the published APFormer (3D: with heads half as wide, as the bundled hippocampus model has).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from .. import files
from ..bundles.preprocessing import ACQUIRED, Preprocessing
from ..datasets import SiteCase

LARGEST_ANISOTROPY = 2.5  # of voxel sizes; above it, neighbouring slices tell a 3D convolution little
FEWEST_SLICES = 16  # two tokens along the axis, at three halvings
LARGEST_PATCH_2D = 256  # the published input size
LARGEST_PATCH_VOXELS_3D = 64**3  # what a training step on a CPU can afford
MULTIPLE = 8  # a token is 8 voxels wide
LOOKED_AT = 12  # cases whose intensities are read
WINDOW_MARGIN = 0.1  # of the window's width, on both sides: other scanners, other contrast phases
PERCENTILES = {"kind": "percentile", "lower": 0.5, "upper": 99.5}


@dataclass(frozen=True)
class Design:
    """What a model is before it is trained. `arguments` are the network's, without its outputs."""

    modality: str
    channels: int
    preprocessing: Preprocessing
    network: str
    arguments: dict[str, Any]


def design(sites: Sequence[SiteCase], labelled: Sequence[int], check: Callable[[], None] = lambda: None) -> Design:
    """A model for these cases.

    Args:
        labelled: the values in their label maps that are learned: a CT window is put around their intensities.
        check: called between the files that are read; stops by raising.
    """
    channels = sites[0].image.channels
    modality = "RGB" if channels == 3 else _commonest([site.modality for site in sites]) or "MR"
    flat = _is_flat(sites)
    spacing, size = _flat_grid(sites) if flat else _solid_grid(sites)
    pictures = all(site.image.is_picture for site in sites)
    preprocessing = Preprocessing(
        spatial_dims=2 if flat else 3,
        orientation=("LPS" if modality == "CT" and not pictures else ACQUIRED) if flat else "RAS",
        spacing_mm=None if pictures else spacing,
        patch_size=size,
        intensity=_window(sites, labelled, check) if modality == "CT" else dict(PERCENTILES),
    )
    arguments: dict[str, Any] = {
        "spatial_dims": preprocessing.spatial_dims,
        "in_channels": channels,
        "image_size": list(size),
    }
    if not flat:
        arguments["head_dim"] = 64
    return Design(modality, channels, preprocessing, "apformer", arguments)


def _commonest(values: Sequence[str | None]) -> str | None:
    known = [value for value in values if value in ("CT", "MR")]
    return max(known, key=known.count) if known else None


def _is_flat(sites: Sequence[SiteCase]) -> bool:
    slices = median(min(site.image.shape_kji) for site in sites)
    ratio = median(max(site.image.spacing_ijk) / min(site.image.spacing_ijk) for site in sites)
    return any(site.image.is_picture for site in sites) or slices < FEWEST_SLICES or ratio > LARGEST_ANISOTROPY


def _flat_grid(sites: Sequence[SiteCase]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """In-plane (spacing (i, j) in mm, patch (j, i)); images too large for the patch are shrunk as a whole."""
    steps, lengths = [], []
    for site in sites:
        through = int(np.argmax(site.image.spacing_ijk)) if max(site.image.shape_kji) > 1 else 2
        through = 2 if len(set(site.image.spacing_ijk)) == 1 else through
        plane = [axis for axis in range(3) if axis != through]
        steps.append([site.image.spacing_ijk[axis] for axis in plane])
        lengths.append([site.image.shape_kji[2 - axis] for axis in plane])
    spacing, size = np.median(steps, axis=0), np.median(lengths, axis=0)
    shrink = max(1.0, float(size.max()) / LARGEST_PATCH_2D)
    patch = [_up(min(LARGEST_PATCH_2D, n / shrink)) for n in size]
    return tuple(round(float(s * shrink), 4) for s in spacing), (patch[1], patch[0])


def _solid_grid(sites: Sequence[SiteCase]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """(spacing (R, A, S) in mm, patch (S, A, R)) of volumes laid along the patient's axes."""
    steps, lengths = [], []
    for site in sites:
        along = [int(np.argmax(np.abs(site.image.matrix[axis, :3]))) for axis in range(3)]  # i, j or k for R, A, S
        steps.append([site.image.spacing_ijk[axis] for axis in along])
        lengths.append([site.image.shape_kji[2 - axis] for axis in along])
    spacing, size = np.median(steps, axis=0), np.median(lengths, axis=0)
    patch = [_up(n) for n in size]
    while np.prod(patch) > LARGEST_PATCH_VOXELS_3D:
        patch[int(np.argmax(patch))] -= MULTIPLE
    return tuple(round(float(s), 4) for s in spacing), (patch[2], patch[1], patch[0])


def _up(length: float) -> int:
    return max(2 * MULTIPLE, int(-(-length // MULTIPLE) * MULTIPLE))


def _window(sites: Sequence[SiteCase], labelled: Sequence[int], check: Callable[[], None]) -> dict[str, Any]:
    """The intensities of what is learned, with a margin: what is far from them need not be told apart."""
    found = []
    for site in sites[:: max(1, len(sites) // LOOKED_AT)][:LOOKED_AT]:
        assert site.labels_path is not None
        check()
        inside = np.isin(files.read_volume(site.labels_path).array, labelled)
        check()
        values = files.read_volume(site.image_path).array[inside]
        if values.size:
            found.append(np.percentile(values, (0.5, 99.5)))
    low, high = np.min(found, axis=0)[0], np.max(found, axis=0)[1]
    margin = WINDOW_MARGIN * max(1.0, high - low)
    return {"kind": "window", "lower": round(float(low - margin), 2), "upper": round(float(high + margin), 2)}

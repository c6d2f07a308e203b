"""Removing what cannot be the organ: all but the largest component, or components that are too small."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk


def clean_up(labels: np.ndarray, *, largest_component: bool, minimum_voxels: float) -> np.ndarray:
    """Clean each label by itself, in place.

    Args:
        labels: uint8 (k, j, i).
        largest_component: keep one component per label (face-connected). Ignored for a single slice, where an organ
            may well show as two pieces.
        minimum_voxels: components below this size are removed.
    """
    only_largest = largest_component and labels.shape[0] > 1
    if not only_largest and minimum_voxels <= 1:
        return labels
    for value in np.unique(labels):
        if value:
            _clean_label(labels, int(value), only_largest, minimum_voxels)
    return labels


def _clean_label(labels: np.ndarray, value: int, only_largest: bool, minimum_voxels: float) -> None:
    inside = labels == value
    box = tuple(slice(int(hit.min()), int(hit.max()) + 1) for hit in np.nonzero(inside))
    part = np.ascontiguousarray(inside[box]).astype(np.uint8)
    components = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(part)))
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    kept = sizes >= minimum_voxels
    if only_largest:
        kept &= np.arange(sizes.size) == sizes.argmax()
    kept[0] = True
    labels[box][~kept[components]] = 0

"""Removing what cannot be the organ: all but the largest component, or components that are too small."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk


def clean_up(
    labels: np.ndarray, *, largest_component: bool, one_piece_per_slice: bool, minimum_voxels: float
) -> np.ndarray:
    """Clean each label by itself, in place.

    Args:
        labels: uint8 (k, j, i), slices along the first axis.
        largest_component: keep one component per label (face-connected). Ignored for a single slice, where an organ
            may well show as two pieces.
        one_piece_per_slice: then keep one component per label in each slice, for organs that every slice cuts once.
        minimum_voxels: components below this size are removed.
    """
    only_largest = largest_component and labels.shape[0] > 1
    for value in (int(value) for value in np.unique(labels) if value):
        if only_largest or minimum_voxels > 1:
            _clean_label(labels, value, only_largest, minimum_voxels)
        if one_piece_per_slice:
            for k in range(labels.shape[0]):
                _clean_label(labels[k : k + 1], value, True, 0)
    return labels


def _clean_label(labels: np.ndarray, value: int, only_largest: bool, minimum_voxels: float) -> None:
    inside = labels == value
    if not inside.any():
        return
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

"""Writing results: the format is chosen by suffix, and a file appears complete or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import OutputError
from ..volume import Volume
from . import metaimage, nifti, nrrd, picture, slicer_segmentation
from .atomic import atomic_path
from .dicom import seg
from .formats import LABEL_SUFFIXES, SCALAR_SUFFIXES, suffix_of

if TYPE_CHECKING:
    from ..bundles.labels import Label

_PLAIN_WRITERS = {".nii.gz": nifti.write, ".nii": nifti.write, ".nrrd": nrrd.write, ".mha": metaimage.write}


def write_labels(
    path: Path | str,
    labels: Volume,
    label_definitions: Sequence[Label],
    *,
    reference: Volume,
    provenance: Mapping[str, str] | None = None,
) -> None:
    """Write a label map of whole numbers, (k, j, i), on its own grid; label values stay as they are.

    .seg.nrrd and .dcm (DICOM SEG) carry names, colours and terminology; .png takes one slice with the label values as
    gray. Geometry is exact in NRRD, to one rounding in MHA, in float32 in NIfTI. Missing parent folders are created.

    Args:
        reference: the image that was segmented; DICOM SEG refers to its files.
        provenance: free text by key, kept in the header where the format has a place; "model" and "model_version"
            name the algorithm in a DICOM SEG.

    Raises:
        OutputError: unknown suffix, not a label map, another grid than `reference`, values without a definition where
            the format needs one, a format that cannot hold it, or a place that cannot be written to.
    """
    suffix, notes = suffix_of(path), dict(provenance or {})
    if suffix not in LABEL_SUFFIXES:
        raise _unknown(path, LABEL_SUFFIXES)
    labels = _checked_labels(labels, reference)
    if suffix in (".seg.nrrd", ".dcm"):
        _check_named(labels.array, label_definitions)
    with atomic_path(path) as temporary:
        if suffix == ".seg.nrrd":
            slicer_segmentation.write(temporary, labels, label_definitions, notes)
        elif suffix == ".dcm":
            seg.write(temporary, labels, label_definitions, reference, notes)
        elif suffix == ".png":
            picture.write(temporary, labels.array)
        else:
            _PLAIN_WRITERS[suffix](temporary, labels, notes)


def write_scalar(path: Path | str, volume: Volume) -> None:
    """Write a map of real numbers, (k, j, i), such as uncertainty from 0 to 1; .png stores one slice as 65535 times
    the value, in 16 bit.

    Raises:
        OutputError: unknown suffix, several channels, values outside 0 to 1 for a PNG, or a place that cannot be
            written to.
    """
    suffix = suffix_of(path)
    if suffix not in SCALAR_SUFFIXES:
        raise _unknown(path, SCALAR_SUFFIXES)
    if volume.array.ndim != 3:
        raise OutputError(
            f"An array of shape {volume.array.shape} is no scalar map.",
            "One value per voxel can be written.",
            "Write one channel at a time.",
        )
    with atomic_path(path) as temporary:
        if suffix == ".png":
            picture.write(temporary, _sixteen_bit(volume.array))
        else:
            _PLAIN_WRITERS[suffix](temporary, volume, {})


def _sixteen_bit(array: np.ndarray) -> np.ndarray:
    if not (np.min(array) >= 0 and np.max(array) <= 1):  # NaN fails too
        raise OutputError(
            "The values are not between 0 and 1.", "A PNG would not tell them apart.", "Write .nrrd or .nii.gz instead."
        )
    return np.rint(array * 65535.0).astype(np.uint16)


def _checked_labels(labels: Volume, reference: Volume) -> Volume:
    array = labels.array
    if array.ndim != 3 or array.dtype.kind not in "bui":
        raise OutputError(
            f"An array of {array.dtype} with shape {array.shape} is no label map.",
            "A label map has axes (k, j, i) and whole numbers.",
            "Convert it first, for example to uint8.",
        )
    same_place = np.allclose(labels.ijk_to_ras, reference.ijk_to_ras, rtol=1e-6, atol=1e-4)
    if labels.spatial_shape != reference.spatial_shape or not same_place:
        raise OutputError(
            f"The labels ({labels.spatial_shape}) are not on the grid of the image ({reference.spatial_shape}).",
            "They would be shown in the wrong place.",
            "Bring them back to the grid of the image before writing.",
        )
    return replace(labels, array=array.astype(np.uint8)) if array.dtype.kind == "b" else labels


def _check_named(array: np.ndarray, definitions: Sequence[Label]) -> None:
    """Formats made of named segments would lose, or leave unnamed, a value without a definition."""
    present = {int(value) for slab in array for value in np.unique(slab)}
    unnamed = sorted(present - {0} - {label.value for label in definitions})
    if unnamed:
        raise OutputError(
            f"The label map holds values without a name: {', '.join(map(str, unnamed))}.",
            "Every segment needs a name and terminology in this format.",
            "Write .nii.gz or .nrrd, or define these labels.",
        )


def _unknown(path: Path | str, suffixes: Sequence[str]) -> OutputError:
    return OutputError(
        f"{path} names no format that can be written.",
        "The format follows from how the name ends.",
        f"End the name in one of {', '.join(suffixes)}.",
    )

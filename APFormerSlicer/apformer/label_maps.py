"""Label maps as files have them: whole numbers from 0 up, also where a format or a program has made fractions of them.

Every place that reads labels (data sets, training, evaluation) goes through here, so that the same file is the same
label map everywhere.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from .errors import InputError
from .files import read_segment_names, read_volume, suffix_of
from .names import twice
from .volume import Volume

# Scaled integers of NIfTI (scl_slope) and resampling leave 0.996 or 2.0000001; probabilities are not all so close.
WHOLE_WITHIN = 0.01
_JPEG = b"\xff\xd8\xff"
WHITE = 255  # of a mask kept as a picture


def read_label_map(path: Path, *, threshold: bool = False) -> Volume:
    """The label map in a file: an integer type, (k, j, i); `notes` say what was done to its values.

    Args:
        threshold: take a gray picture, JPEG too, as a mask: 255 where it is at least half white, else 0.

    Raises:
        InputError: the file cannot be read, is no label map, or is a JPEG and `threshold` was not asked for.
    """
    volume = read_volume(path)
    if volume.source.kind == "picture" and threshold:
        return whole_numbers(_thresholded(volume, path))
    if _is_jpeg(path):
        raise InputError(
            f"{path} is a JPEG picture, with {len(np.unique(volume.array))} different values.",
            "JPEG changes values, most of all at the edges of a mask: which label they were cannot be told.",
            "Save the mask as PNG, which keeps them. For a black and white mask, `apformer evaluate` and `apformer "
            "dataset` have --threshold, which takes what is at least half white.",
        )
    return whole_numbers(volume)


def names_in(path: Path) -> dict[int, str] | None:
    """Label value -> name as the file itself has them (.seg.nrrd); None where the format has no names.

    Raises:
        InputError: damaged, or two segments have the same name (see `names`).
    """
    if suffix_of(path) != ".seg.nrrd":
        return None
    found = read_segment_names(path)
    repeated = twice(found.values())
    if repeated is not None:
        raise InputError(
            f"{path} has two segments named {repeated[0]!r} and {repeated[1]!r}.",
            "Labels are matched by name, whatever its case and blanks, so these two would be one.",
            "Rename one of them in Slicer's Segment Editor, or merge them, and save again.",
        )
    return found


def whole_numbers(labels: Volume) -> Volume:
    """The label map (k, j, i) in an integer type; numbers within 0.01 of a whole one are rounded, which a note says.

    Raises:
        InputError: several channels, or values that no label map has.
    """
    name = labels.source.path or "The label map"
    array = labels.array
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3:
        raise InputError(
            f"{name} has {labels.channels} channels.",
            "A label map has one whole number per voxel; colours are not label values.",
            "Save the labels as a gray picture or label map.",
        )
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    notes = labels.notes
    if array.dtype.kind == "f":
        array, apart = _rounded(array, str(name))
        if apart > 0:
            notes += (f"{name} holds label values up to {apart:.2g} beside whole numbers; they were rounded",)
    if array.size and int(array.min()) < 0:
        raise InputError(
            f"{name} has negative values (down to {int(array.min())}).",
            "It is an image rather than a label map: labels are whole numbers from 0, which is background.",
            "Pass the label map, or give what is negative a value of its own.",
        )
    return replace(labels, array=array, notes=notes)


def _rounded(array: np.ndarray, name: str) -> tuple[np.ndarray, float]:
    """Whole numbers (k, j, i), and how far the farthest was from one; slab by slab, so that no full-size copy is made.

    Raises:
        InputError: one is farther than `WHOLE_WITHIN` from any, or is no number.
    """
    farthest, highest = 0.0, 0.0
    for slab in array:
        if not np.isfinite(slab).all():
            raise InputError(
                f"{name} has voxels that are no numbers (NaN) or infinite.",
                "It is an image or a damaged file: labels are whole numbers from 0, which is background.",
                "Pass the label map, or export it again.",
            )
        whole = np.rint(slab)
        farthest = max(farthest, float(np.abs(slab - whole).max(initial=0.0)))
        highest = max(highest, float(np.abs(whole).max(initial=0.0)))
        if farthest > WHOLE_WITHIN:
            raise InputError(
                f"{name} has voxels that are no whole numbers.",
                "It is an image or a probability map, not a label map.",
                "Pass the label map; resample label maps by nearest neighbour, and cut a probability map at the "
                "probability you mean.",
            )
    small = np.int16 if highest <= np.iinfo(np.int16).max else np.int64
    return np.stack([np.rint(slab).astype(small) for slab in array]) if len(array) else array.astype(small), farthest


def _thresholded(volume: Volume, path: Path) -> Volume:
    if volume.channels != 1:
        return volume  # refused as what it is
    half = (np.iinfo(volume.array.dtype).max + 1) // 2
    mask = np.where(volume.array >= half, np.uint8(WHITE), np.uint8(0))
    return replace(volume, array=mask, notes=(*volume.notes, f"{path}: all that is at least half white was taken"))


def _is_jpeg(path: Path) -> bool:
    """By content: the name need not tell."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(_JPEG)) == _JPEG

"""Slicer's segmentations (.seg.nrrd): segments with name, colour and terminology, through slicerio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..volume import Source, Volume
from . import itk, nrrd
from .formats import damaged

if TYPE_CHECKING:
    from ..bundles.labels import Code, Label

_TERMINOLOGY = "Segmentation category and type - 3D Slicer General Anatomy list"
_ANATOMY = "Anatomic codes - DICOM master list"


def read(path: Path) -> Volume:
    """A label map (k, j, i). Several layers are merged; where they use the same values, segments are numbered anew in
    the order of the file, which `notes` says.

    Raises:
        InputError: damaged, not a segmentation, or segments that overlap.
    """
    volume = replace(nrrd.read(path), source=Source(path, kind="seg.nrrd"))
    if volume.array.dtype.kind not in "bui":
        raise damaged(path, f"its voxels are {volume.array.dtype}, not label values")
    if volume.channels == 1:
        return replace(volume, array=volume.array.reshape(volume.spatial_shape))
    segments = _segments(path)
    values = [int(segment["labelValue"]) for segment in segments]
    notes = volume.notes
    if len(set(values)) < len(values):
        values = list(range(1, len(values) + 1))
        renamed = ", ".join(f"{value} {segment['name']}" for value, segment in zip(values, segments, strict=True))
        notes += (f"{path.name}: layers reuse label values, so segments were numbered anew: {renamed}",)
    return replace(volume, array=_flatten(path, volume.array, segments, values), notes=notes)


def read_segment_names(path: Path | str) -> dict[int, str]:
    """Label value -> segment name, with the values that `read_volume` gives.

    Raises:
        InputError: damaged, or not a segmentation.
    """
    segments = _segments(Path(path))
    values = [int(segment["labelValue"]) for segment in segments]
    if len(set(values)) < len(values):
        values = list(range(1, len(values) + 1))
    return {value: str(segment["name"]) for value, segment in zip(values, segments, strict=True)}


def _segments(path: Path) -> list[dict[str, Any]]:
    import slicerio
    from nrrd.errors import NRRDError

    try:
        segments = slicerio.read_segmentation(str(path), skip_voxels=True).get("segments", [])
    except (OSError, ValueError, KeyError, IndexError, NRRDError) as error:
        raise damaged(path, str(error)) from error
    return [{"layer": 0, "labelValue": 1, "name": f"Segment {n}", **found} for n, found in enumerate(segments, 1)]


def _flatten(path: Path, layers: np.ndarray, segments: Sequence[dict[str, Any]], values: Sequence[int]) -> np.ndarray:
    flat = np.zeros(layers.shape[1:], np.uint8 if max(values, default=0) < 256 else np.uint16)
    for segment, value in zip(segments, values, strict=True):
        layer = int(segment["layer"])
        if not 0 <= layer < layers.shape[0]:
            raise damaged(path, f"segment {segment['name']} names layer {layer} of {layers.shape[0]}")
        mask = layers[layer] == int(segment["labelValue"])
        overlap = int(np.count_nonzero(flat[mask]))
        if overlap:
            raise InputError(
                f"Segment {segment['name']} of {path} overlaps other segments in {overlap} voxels.",
                "A label map holds one label per voxel.",
                "In Slicer's Segment Editor turn off overlap (Masking > Modify other segments) and save it again.",
            )
        flat[mask] = value
    return flat


def write(path: Path, volume: Volume, labels: Sequence[Label], provenance: Mapping[str, str]) -> None:
    """Write (k, j, i) labels with one segment per label, present in the array or not, on the exact grid."""
    import slicerio

    lps = itk.flip_lps_ras(volume.ijk_to_ras)
    segmentation = {
        "voxels": volume.array.transpose(2, 1, 0),
        "ijkToLPS": lps,
        "encoding": "gzip",
        "containedRepresentationNames": ["Binary labelmap"],
        "conversionParameters": [
            {
                "name": "Reference image geometry",
                "value": _reference_geometry(volume),
                "description": "Geometry of the image that was segmented.",
            }
        ],
        "segments": [_segment(label) for label in labels],
        **nrrd.key_values(provenance),
    }
    slicerio.write_segmentation(str(path), segmentation, compression_level=4)


def _reference_geometry(volume: Volume) -> str:
    """Slicer's text: 16 numbers of ijkToRAS row by row, then the inclusive extent along i, j, k."""
    numbers = [repr(float(number)) for number in volume.ijk_to_ras.ravel()]
    extent = [str(end) for length in reversed(volume.spatial_shape) for end in (0, length - 1)]
    return ";".join(numbers + extent) + ";"


def _segment(label: Label) -> dict[str, Any]:
    terminology: dict[str, Any] = {
        "contextName": _TERMINOLOGY,
        "category": _triplet(label.category),
        "type": _triplet(label.type),
        "anatomicContextName": _ANATOMY,
    }
    if label.modifier is not None:
        terminology["typeModifier"] = _triplet(label.modifier)
    return {
        "id": f"Segment_{label.value}",
        "name": label.name,
        "nameAutoGenerated": False,
        "color": [round(part / 255, 6) for part in label.color],
        "colorAutoGenerated": False,
        "labelValue": label.value,
        "layer": 0,
        "status": "inprogress",  # a network's proposal, not yet reviewed
        "terminology": terminology,
    }


def _triplet(code: Code) -> list[str]:
    return [code.scheme, code.value, code.meaning]

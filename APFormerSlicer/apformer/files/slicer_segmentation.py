"""Slicer's segmentations (.seg.nrrd): segments with name, colour and terminology as key/value pairs of a NRRD header.

The keys are those of vtkMRMLSegmentationStorageNode
(https://slicer.readthedocs.io/en/latest/developer_guide/mrml_overview.html, "Segmentation").
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..volume import Volume
from . import nrrd
from .formats import damaged

if TYPE_CHECKING:
    from ..bundles.labels import Code, Label

_TERMINOLOGY = "Segmentation category and type - 3D Slicer General Anatomy list"
_ANATOMY = "Anatomic codes - DICOM master list"
_GEOMETRY_TEXT = "Geometry of the image that was segmented."
_KEY = re.compile(r"Segment([0-9]{1,6})_(\w+)")


@dataclass(frozen=True)
class Segment:
    """A segment of a file: where its voxels are `stored` in `layer`; None: all that are not 0, as Slicer up to 4.10
    wrote it, with a layer for each. `value`: the one it has in the label map that is read."""

    name: str
    layer: int
    stored: int | None
    value: int


def read(path: Path) -> Volume:
    """A label map (k, j, i). Several layers are merged; where they use the same values, segments are numbered anew in
    the order of the file, which `notes` says.

    Raises:
        InputError: damaged, not a segmentation, or segments that overlap.
    """
    header = nrrd.read_header(path)
    volume = nrrd.read_voxels(header, nrrd.layer_axes(header), "seg.nrrd")
    if volume.array.dtype.kind not in "ui":
        raise damaged(path, f"its voxels are {volume.array.dtype}, not label values")
    segments, notes = _segments(header), list(volume.notes)
    layers = volume.array.reshape(-1, *volume.spatial_shape)
    if not segments:
        if len(layers) > 1:
            raise damaged(path, f"it holds {len(layers)} layers and does not say which segments are in them")
        notes.append(f"{path.name}: the file names no segments; the values of its voxels are their labels")
        return replace(volume, array=layers[0], notes=tuple(notes))
    if any(segment.stored not in (None, segment.value) for segment in segments):
        renamed = ", ".join(f"{segment.value} {segment.name}" for segment in segments)
        notes.append(f"{path.name}: layers reuse label values, so segments were numbered anew: {renamed}")
    labels = _flatten(path, layers, segments)
    unnamed = np.count_nonzero(layers.any(axis=0) & (labels == 0))
    if unnamed:
        notes.append(f"{path.name}: {unnamed} voxels have values that belong to no segment; they were left out")
    return replace(volume, array=labels, notes=tuple(notes))


def read_segment_names(path: Path | str) -> dict[int, str]:
    """Label value -> segment name, with the values that `read_volume` gives.

    Raises:
        InputError: damaged, or not a segmentation.
    """
    return {segment.value: segment.name for segment in _segments(nrrd.read_header(Path(path)))}


def _segments(header: nrrd.Header) -> list[Segment]:
    """In the order of the file."""
    found: dict[int, dict[str, str]] = {}
    for key, text in header.pairs.items():
        match = _KEY.fullmatch(key)
        if match:
            found.setdefault(int(match[1]), {})[match[2]] = text
    # Segments that share layers have values; without any, each has a layer of its own.
    valued = any("LabelValue" in fields or "Layer" in fields for fields in found.values())
    read: list[Segment] = []
    for number, fields in sorted(found.items()):
        name = fields.get("Name") or fields.get("ID") or f"Segment {number + 1}"
        layer = _whole(header.path, fields, "Layer", 0 if valued else len(read))
        stored = _whole(header.path, fields, "LabelValue", 1) if valued else None
        if stored is not None and stored < 1:
            raise damaged(header.path, f"segment {name[:60]} has the label value {stored}")
        read.append(Segment(name, layer, stored, stored or 0))
    values = [segment.value for segment in read]
    if not valued or len(set(values)) < len(values):
        return [replace(segment, value=number) for number, segment in enumerate(read, 1)]
    return read


def _whole(path: Path, fields: Mapping[str, str], key: str, default: int) -> int:
    try:
        return int(fields.get(key, default))
    except ValueError as error:
        raise damaged(path, f"{key} of a segment is not a whole number") from error


def _flatten(path: Path, layers: np.ndarray, segments: Sequence[Segment]) -> np.ndarray:
    flat = np.zeros(layers.shape[1:], np.min_scalar_type(max(segment.value for segment in segments)))
    for segment in segments:
        if not 0 <= segment.layer < layers.shape[0]:
            raise damaged(path, f"segment {segment.name[:60]} names layer {segment.layer} of {layers.shape[0]}")
        layer = layers[segment.layer]
        mask = layer != 0 if segment.stored is None else layer == segment.stored
        overlap = int(np.count_nonzero(flat[mask]))
        if overlap:
            raise InputError(
                f"Segment {segment.name[:60]} of {path} overlaps other segments in {overlap} voxels.",
                "A label map holds one label per voxel.",
                "In Slicer's Segment Editor turn off overlap (Masking > Modify other segments) and save it again.",
            )
        flat[mask] = segment.value
    return flat


def write(path: Path, volume: Volume, labels: Sequence[Label], provenance: Mapping[str, str]) -> None:
    """Write (k, j, i) labels with one segment per label, present in the array or not, on the exact grid."""
    extent = " ".join(str(end) for length in reversed(volume.spatial_shape) for end in (0, length - 1))
    pairs = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
        "Segmentation_ConversionParameters": f"Reference image geometry|{_geometry(volume)}|{_GEOMETRY_TEXT}&",
        **nrrd.key_values(provenance),
    }
    for number, label in enumerate(labels):
        pairs |= {f"Segment{number}_{key}": text for key, text in _fields(label, extent).items()}
    nrrd.write_voxels(path, volume.array, volume.ijk_to_ras, pairs)


def _geometry(volume: Volume) -> str:
    """Slicer's text: 16 numbers of ijkToRAS row by row, then the inclusive extent along i, j, k."""
    numbers = [repr(float(number)) for number in volume.ijk_to_ras.ravel()]
    extent = [str(end) for length in reversed(volume.spatial_shape) for end in (0, length - 1)]
    return ";".join(numbers + extent) + ";"


def _fields(label: Label, extent: str) -> dict[str, str]:
    none = "^^"
    modifier = none if label.modifier is None else _triplet(label.modifier)
    terminology = [_TERMINOLOGY, _triplet(label.category), _triplet(label.type), modifier, _ANATOMY, none, none]
    return {
        "ID": f"Segment_{label.value}",
        "Name": label.name,
        "NameAutoGenerated": "0",
        "Color": " ".join(f"{part / 255:.6g}" for part in label.color),
        "ColorAutoGenerated": "0",
        "LabelValue": str(label.value),
        "Layer": "0",
        "Extent": extent,
        # "inprogress": a network's proposal, not yet reviewed
        "Tags": f"Segmentation.Status:inprogress|TerminologyEntry:{'~'.join(terminology)}|",
    }


def _triplet(code: Code) -> str:
    return "^".join((code.scheme, code.value, code.meaning))

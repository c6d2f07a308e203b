"""A volume node as the engine's `Volume`."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any

import numpy as np
import slicer
from apformer.errors import InputError
from apformer.volume import Source, Volume

from .geometry import ijk_to_local, local_to_world
from .hierarchy import dicom_modality, dicom_series
from .images import array_of

# Attributes of nodes that the engine read instead of Slicer; see `loading`.
NOTES, PICTURE = "APFormer.Notes", "APFormer.Picture"
_PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg"}  # of the engine's IMAGE_SUFFIXES, those that have no voxel size
_MOST_GRAYS = 100
_grays: dict[int, bool] = {}  # time of the last change -> whether a colour image is gray
_HOUNSFIELD = "[hnsf'U]"  # UCUM; the DICOM module gives it to CT volumes


def to_volume(node: Any, placed_by: Any = None) -> Volume:
    """The voxels of a volume node, where they lie in the patient.

    Args:
        node: vtkMRMLScalarVolumeNode (gray) or vtkMRMLVectorVolumeNode (colour; transparency is dropped).
        placed_by: take the parent transform from this node instead of `node`; see `sequences`.

    Returns:
        array: (k, j, i), or (3, k, j, i) with modality "RGB"; a view of the node's memory that cannot be written to.
            Use it before the node changes. ijk_to_ras: parent transforms applied. source.kind: "picture" for a
            photograph, whose voxels have no size, else "memory". notes: what the header of its file leaves open.

    Raises:
        InputError: no node; not an image; a label map; no voxels; vectors that are no colours; a transform that is
            not linear.
    """
    _check_kind(node)
    image = node.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0 or image.GetPointData().GetScalars() is None:
        raise InputError(
            f"{node.GetName()} has no image data.",
            "There are no voxels to segment.",
            "Load the image again, or choose another volume.",
        )
    array = _gray_or_rgb(node, array_of(image))
    modality = "RGB" if array.ndim == 4 else _modality(node)
    source = Source(None, series_uid=dicom_series(node), kind="picture" if _is_picture(node, array) else "memory")
    return Volume(array, _ijk_to_world(node, placed_by or node), modality, source, _file_notes(node))


def check_volume_node(node: Any) -> None:
    """Raises InputError when `node` is no volume that a result could be placed on."""
    _check_kind(node)
    if node.GetImageData() is None or node.GetScene() is None:
        raise InputError(
            f"{node.GetName()} is not in the scene, or has no image data.",
            "A result cannot be placed on it.",
            "Load the image again, or choose another volume.",
        )


def shape_kji(volume_node: Any) -> tuple[int, int, int]:
    """The number of voxels along k, j, i."""
    i, j, k = volume_node.GetImageData().GetDimensions()
    return k, j, i


def first_ijk(volume_node: Any) -> tuple[int, int, int]:
    """The index of the first voxel: not 0 in images that VTK filters have cropped."""
    i, _, j, _, k, _ = volume_node.GetImageData().GetExtent()
    return i, j, k


def _check_kind(node: Any) -> None:
    if node is None:
        raise InputError("No volume is chosen.", "There is nothing to segment.", "Load an image and choose it.")
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        raise InputError(
            f"{node.GetName()} is a label map.",
            "Segmenting a label map gives a meaningless result.",
            "Choose the image it was made from; if it is an image, convert it to a scalar volume (Volumes module).",
        )
    if not node.IsA("vtkMRMLScalarVolumeNode"):
        raise InputError(
            f"{node.GetName()} is not a volume ({node.GetNodeTagName()}).",
            "Only images can be segmented.",
            "Choose a scalar volume or a colour image.",
        )


def _gray_or_rgb(node: Any, array: np.ndarray) -> np.ndarray:
    """(k, j, i), or (3, k, j, i); colours that are all gray are gray, as in the engine's reader of pictures."""
    components = 1 if array.ndim == 3 else array.shape[3]
    if components == 1:
        return array.reshape(array.shape[:3])
    if not node.IsA("vtkMRMLVectorVolumeNode") or components not in (3, 4) or _is_spatial(node):
        raise InputError(
            f"{node.GetName()} has {components} numbers in each voxel that are not red, green and blue.",
            "A model sees gray or colour images only.",
            "Choose one component or frame as a scalar volume.",
        )
    return array[..., 0] if _is_gray(node, array) else np.moveaxis(array[..., :3], -1, 0)


def _is_gray(node: Any, array: np.ndarray) -> bool:
    """Whether red, green and blue, (k, j, i, 3 or 4), are equal everywhere; looked at once for the same voxels."""
    changed = int(node.GetImageData().GetMTime())  # no two VTK objects share a time
    if changed not in _grays:
        if len(_grays) >= _MOST_GRAYS:
            _grays.clear()
        _grays[changed] = all(  # the first slice that has colours ends it
            np.array_equal(plane[..., 0], plane[..., 1]) and np.array_equal(plane[..., 1], plane[..., 2])
            for plane in array
        )
    return _grays[changed]


def _is_spatial(node: Any) -> bool:
    kinds = slicer.vtkMRMLVolumeNode
    return node.GetVoxelVectorType() in (kinds.VoxelVectorTypeSpatial, kinds.VoxelVectorTypeSpatialCovariant)


def _modality(node: Any) -> str | None:
    units = node.GetVoxelValueUnits()
    if units is not None and units.GetCodeValue() == _HOUNSFIELD:
        return "CT"
    return dicom_modality(node)


def _is_picture(node: Any, array: np.ndarray) -> bool:
    """One slice, and in colour or read from a picture file."""
    if array.shape[-3] != 1:
        return False
    storage = node.GetStorageNode()
    name = (storage.GetFileName() if storage is not None else None) or ""
    return array.ndim == 4 or bool(node.GetAttribute(PICTURE)) or PurePath(name).suffix.lower() in _PICTURE_SUFFIXES


def _file_notes(node: Any) -> tuple[str, ...]:
    """What the file of a volume that is as it was read leaves open about its place."""
    kept = _kept_notes(node)
    if kept:
        return kept
    from apformer.files import header_notes

    storage = node.GetStorageNode()
    name = storage.GetFileName() if storage is not None else None
    return header_notes(name) if name and not node.GetModifiedSinceRead() else ()


def _kept_notes(node: Any) -> tuple[str, ...]:
    try:
        notes = json.loads(node.GetAttribute(NOTES) or "[]")
    except ValueError:  # edited by hand
        return ()
    return tuple(map(str, notes)) if isinstance(notes, list) else ()


def _ijk_to_world(node: Any, placed_by: Any) -> np.ndarray:
    """From array indices, which begin at 0, to the patient."""
    matrix = ijk_to_local(node)
    first = first_ijk(node)
    if any(first):
        matrix[:3, 3] += matrix[:3, :3] @ np.array(first, dtype=np.float64)
    if placed_by.GetParentTransformNode() is None:
        return matrix
    return local_to_world(placed_by) @ matrix

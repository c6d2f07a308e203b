"""Labels on the voxels of their image, never resampled: the same grid, its axes in another order, or a part of it.

One rule for data sets, training and evaluation: a tenth of a voxel at the far corner changes no result, so grids that
lie so close are one, and notes tell of it where more than rounding lies between them. A place that was lost on the way
(an origin of 0, 0, 0, or no geometry at all, in one of two files of the same size) is refused: what such a header says
would put the labels elsewhere in the image.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .errors import InputError
from .volume import Volume

TOLERANCE_VOXELS = 0.1
# NIfTI keeps its matrix in float32 and NRRD as text: two files of one grid differ by about 1e-5 voxels at the far
# corner, after several conversions by some more.
EXACT_VOXELS = 0.002
_STORED_VOXELS = 0.01  # what a file of our own may differ by from what was written to it
_ZERO_MM = 1e-9


def same_grid(first: Volume, second: Volume, within: float = _STORED_VOXELS) -> bool:
    """Whether the voxels of both are the same places, to `within` voxels."""
    return first.spatial_shape == second.spatial_shape and _far_corner(first, second) <= within


def check_same_grid(prediction: Volume, reference: Volume) -> None:
    """Raise InputError unless both have one channel, the same shape, and the same place to a tenth of a voxel."""
    for role, volume in (("prediction", prediction), ("reference", reference)):
        if volume.array.ndim != 3:
            raise _not_comparable(f"The {role} has {volume.channels} channels.", "A label map has one.")
    if prediction.spatial_shape != reference.spatial_shape:
        shapes = f"{prediction.spatial_shape} and {reference.spatial_shape} voxels (k, j, i)"
        raise _not_comparable(f"The grids differ: {shapes}.", "Voxels cannot be compared one by one.")
    apart = _far_corner(prediction, reference)
    if not apart <= TOLERANCE_VOXELS:  # "not <=" refuses NaN too
        raise _not_comparable(
            f"The grids lie up to {apart:.4g} voxels apart, or their spacings or directions differ.",
            "The same voxel is another place in the patient, so agreement would be misjudged.",
        )


def _not_comparable(what: str, meaning: str) -> InputError:
    remedy = "Compare files made from the same image, or resample one of them onto the other's grid first."
    return InputError(what, meaning, remedy)


def put_on_grid(labels: Volume, image: Volume) -> Volume:
    """`labels` (k, j, i) on exactly the grid of `image`; no voxel value is interpolated. `notes` are those of `labels`,
    and what the user should know of its place.

    Raises:
        InputError: they lie on different grids, labels reach outside the image, or one has lost its place.
    """
    if labels.array.ndim != 3:
        raise _mismatch(labels, image)
    turned = labels.oriented(image.orientation)
    for candidate in (labels, turned):
        if same_grid(candidate, image, TOLERANCE_VOXELS):
            return _placed(labels, image, candidate.array, _far_corner(candidate, image))
    lost = _lost_place(labels, turned, image)
    if lost is not None or turned.spatial_shape == image.spatial_shape:  # a part would be smaller
        raise lost or _mismatch(labels, image)
    offset = np.linalg.solve(image.ijk_to_ras[:3, :3], turned.ijk_to_ras[:3, 3] - image.ijk_to_ras[:3, 3])
    start = np.rint(offset).astype(int)
    moved = image.ijk_to_ras.copy()
    moved[:3, 3] += image.ijk_to_ras[:3, :3] @ start
    apart = _far_corner(turned, Volume(np.empty(turned.spatial_shape, np.bool_), moved))
    if not apart <= TOLERANCE_VOXELS:
        raise _mismatch(labels, image)
    whole = np.zeros(image.spatial_shape, turned.array.dtype)
    into, out_of = [], []
    for begin, there, here in zip(start[::-1], turned.spatial_shape, image.spatial_shape, strict=True):
        low, high = max(0, int(begin)), min(here, int(begin) + there)
        into.append(slice(low, max(low, high)))
        out_of.append(slice(low - int(begin), max(low, high) - int(begin)))
    part = turned.array[tuple(out_of)]
    if int(np.count_nonzero(part)) < int(np.count_nonzero(turned.array)):
        raise _mismatch(labels, image)
    whole[tuple(into)] = part
    return _placed(labels, image, whole, apart)


def _placed(labels: Volume, image: Volume, array: np.ndarray, apart: float) -> Volume:
    """`array` on the grid of the image, with a note when more than rounding (in voxels) lay between the grids."""
    notes = labels.notes
    if apart > EXACT_VOXELS:
        notes += (f"{_name(labels)} lies {apart:.2g} voxels beside the grid of the image; it was taken as on it",)
    return replace(image.with_array(np.ascontiguousarray(array)), source=labels.source, notes=notes)


def _far_corner(first: Volume, second: Volume) -> float:
    """The largest distance between equal indices of two grids, in voxels of the second."""
    shape = np.maximum(first.spatial_shape, second.spatial_shape)[::-1] - 1.0
    corners = np.array([[i, j, k, 1.0] for i in (0, shape[0]) for j in (0, shape[1]) for k in (0, shape[2])])
    apart = (first.ijk_to_ras - second.ijk_to_ras) @ corners.T
    return float(np.max(np.abs(np.linalg.solve(second.ijk_to_ras[:3, :3], apart[:3]))))


def _lost_place(labels: Volume, turned: Volume, image: Volume) -> InputError | None:
    """What to say when one of the two has lost its origin or all of its geometry, by the signs that this leaves.

    `turned`: the labels with the axes of the image.
    """
    same_steps = np.allclose(turned.ijk_to_ras[:3, :3], image.ijk_to_ras[:3, :3], atol=1e-3 * min(image.spacing_ijk))
    same_size = labels.spatial_shape == image.spatial_shape or turned.spatial_shape == image.spatial_shape
    for lost, whole, role in ((labels, image, "label map"), (image, labels, "image")):
        if not same_size and role == "image":  # cut out of an image that begins at 0, 0, 0: nothing is wrong with that
            continue
        if same_size and _has_no_geometry(lost) and not _has_no_geometry(whole):
            sign = "has no geometry (voxels of 1 mm along the axes, from 0, 0, 0)"
        elif same_steps and _has_no_origin(lost) and not _has_no_origin(whole):
            sign = "has the origin 0, 0, 0"
        else:
            continue
        return InputError(
            f"The {role} {sign}, the other file has not; {_name(labels)} is not on the grid of the image: "
            f"{_describe(labels)} against {_describe(image)}.",
            "Its place in the patient seems to be lost. Taken at its word, the labels would be shifted in the image.",
            "Export the segmentation again with the image as its reference geometry, or "
            + ("export the image again." if role == "image" else "copy the image's geometry into its header."),
        )
    return None


def _has_no_origin(volume: Volume) -> bool:
    return bool(np.all(np.abs(volume.ijk_to_ras[:3, 3]) <= _ZERO_MM))


def _has_no_geometry(volume: Volume) -> bool:
    return _has_no_origin(volume) and np.array_equal(np.abs(volume.ijk_to_ras[:3, :3]), np.eye(3))


def _mismatch(labels: Volume, image: Volume) -> InputError:
    return InputError(
        f"{_name(labels)} is not on the grid of the image: {_describe(labels)} against {_describe(image)}.",
        "Its labels cannot be matched to voxels of the image.",
        "Export the segmentation with the image as its reference geometry, or pass the image it was drawn on.",
    )


def _name(labels: Volume) -> str:
    return str(labels.source.path or "The label map")


def _describe(volume: Volume) -> str:
    size = " x ".join(str(n) for n in reversed(volume.spatial_shape))
    spacing = " x ".join(f"{step:.4g}" for step in volume.spacing_ijk)
    origin = ", ".join(f"{x:.1f}" for x in volume.ijk_to_ras[:3, 3])
    return f"{size} voxels of {spacing} mm ({volume.orientation}) from ({origin})"

"""Labels on the voxels of their image, never resampled: the same grid, its axes in another order, or a part of it."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..volume import Volume

# NIfTI keeps its matrix in float32, so two files of one grid differ by about 1e-5 voxels at the far corner.
_TOLERANCE_VOXELS = 0.01


def same_grid(first: Volume, second: Volume) -> bool:
    """Whether the voxels of both are the same places."""
    return first.spatial_shape == second.spatial_shape and _far_corner(first, second) <= _TOLERANCE_VOXELS


def put_on_grid(labels: Volume, image: Volume) -> Volume:
    """`labels` on exactly the grid of `image`; no voxel value is interpolated.

    Raises:
        InputError: they lie on different grids, or labels reach outside the image.
    """
    if same_grid(labels, image):
        return image.with_array(labels.array)
    if labels.array.ndim != 3:
        raise _mismatch(labels, image)
    turned = labels.oriented(image.orientation)
    if same_grid(turned, image):
        return image.with_array(np.ascontiguousarray(turned.array))
    offset = np.linalg.solve(image.ijk_to_ras[:3, :3], turned.ijk_to_ras[:3, 3] - image.ijk_to_ras[:3, 3])
    start = np.rint(offset).astype(int)
    moved = image.ijk_to_ras.copy()
    moved[:3, 3] += image.ijk_to_ras[:3, :3] @ start
    expected = Volume(np.empty(turned.spatial_shape, np.bool_), moved)
    if _far_corner(turned, expected) > _TOLERANCE_VOXELS:
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
    return image.with_array(whole)


def _far_corner(first: Volume, second: Volume) -> float:
    """The largest distance between equal indices of two grids, in voxels of the second."""
    shape = np.maximum(first.spatial_shape, second.spatial_shape)[::-1] - 1.0
    corners = np.array([[i, j, k, 1.0] for i in (0, shape[0]) for j in (0, shape[1]) for k in (0, shape[2])])
    apart = (first.ijk_to_ras - second.ijk_to_ras) @ corners.T
    return float(np.max(np.abs(np.linalg.solve(second.ijk_to_ras[:3, :3], apart[:3]))))


def _mismatch(labels: Volume, image: Volume) -> InputError:
    return InputError(
        f"{labels.source.path or 'The label map'} is not on the grid of the image: "
        f"{_describe(labels)} against {_describe(image)}.",
        "Its labels cannot be matched to voxels of the image.",
        "Export the segmentation with the image as its reference geometry, or pass the image it was drawn on.",
    )


def _describe(volume: Volume) -> str:
    size = " x ".join(str(n) for n in reversed(volume.spatial_shape))
    spacing = " x ".join(f"{step:.4g}" for step in volume.spacing_ijk)
    origin = ", ".join(f"{x:.1f}" for x in volume.ijk_to_ras[:3, 3])
    return f"{size} voxels of {spacing} mm ({volume.orientation}) from ({origin})"

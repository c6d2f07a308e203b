"""A segment on one grid, read on another one to the nearest voxel: NumPy alone, for any thread.

Slicer's own way (GenerateMergedLabelmapInReferenceGeometry) needs the nodes, so the main thread, for seconds on a CT.
"""

from __future__ import annotations

import itertools

import numpy as np

Box = tuple[slice, ...]


def nearest(
    voxels: np.ndarray, value: int, to_indices: np.ndarray, shape_kji: tuple[int, ...]
) -> tuple[Box, np.ndarray]:
    """Where `voxels` are `value`, on a grid of `shape_kji`: the box that can hold any of it, and the mask within it.

    Args:
        voxels: (k, j, i). to_indices: 4x4, from (i, j, k) of the wanted grid to those of `voxels`.
    """
    box = _reached(voxels.shape, to_indices, shape_kji)
    ranges = [np.arange(part.start, part.stop) for part in box]
    mask = np.zeros([len(one) for one in ranges], bool)
    if not mask.size:
        return box, mask
    # One slice at a time: what is computed for all voxels at once would be 50 times as large as the voxels.
    along_k, along_j, along_i = (to_indices[:3, axis, None] * one for axis, one in zip((2, 1, 0), ranges, strict=True))
    for number in range(len(mask)):
        start = along_k[:, number] + to_indices[:3, 3] + 0.5  # the index of a voxel is that of its centre
        i, j, k = (
            np.floor(start[axis] + along_j[axis][:, None] + along_i[axis][None]).astype(np.intp) for axis in range(3)
        )
        inside = np.ones(i.shape, bool)
        for index, length in zip((k, j, i), voxels.shape, strict=True):
            inside &= (index >= 0) & (index < length)
        mask[number][inside] = voxels[k[inside], j[inside], i[inside]] == value
    return box, mask


def _reached(shape: tuple[int, ...], to_indices: np.ndarray, shape_kji: tuple[int, ...]) -> Box:
    """The box of the wanted grid around an array of `shape`."""
    ends = [(-0.5, length - 0.5) for length in shape[::-1]]
    back = np.linalg.inv(to_indices)
    corners = np.array(list(itertools.product(*ends))) @ back[:3, :3].T + back[:3, 3]
    low, high = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0)) + 1
    start, stop = (np.clip(end, 0, shape_kji[::-1]).astype(int) for end in (low, high))
    return tuple(slice(int(a), int(max(a, b))) for a, b in zip(start[::-1], stop[::-1], strict=True))

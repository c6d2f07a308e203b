"""SimpleITK images to volumes and back. ITK's world is LPS; a Volume's is RAS.

SimpleITK is imported where it is used: it takes a moment to load, in a window that shows a data set.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError, OutputError
from .formats import damaged, four_dimensional

if TYPE_CHECKING:
    import SimpleITK as sitk

LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # its own inverse


def read_image(path: Path) -> sitk.Image:
    """A 2D or 3D image; a trailing fourth axis of length 1 is dropped.

    Raises:
        InputError: damaged, or more than three dimensions.
    """
    import SimpleITK as sitk

    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise damaged(path, _last_line(error)) from error
    size = image.GetSize()
    while len(size) > 3 and size[-1] == 1:
        image = image[(*[slice(None)] * (len(size) - 1), 0)]
        size = image.GetSize()
    if len(size) > 3:
        raise four_dimensional(path, size)
    if image.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise InputError(
            f"{path} has complex voxels.", "Only real numbers can be segmented.", "Export the magnitude image."
        )
    return image


def array_of(image: sitk.Image) -> np.ndarray:
    """(k, j, i), or (C, k, j, i) for vector voxels; a 2D image becomes one slice."""
    import SimpleITK as sitk

    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.ascontiguousarray(np.moveaxis(array, -1, 0))
    return array if image.GetDimension() == 3 else array[..., np.newaxis, :, :]


def matrix_of(image: sitk.Image) -> np.ndarray:
    """4x4, (i, j, k) to RAS in mm; a 2D image lies in the plane S = 0 with a slice of 1 mm."""
    n = image.GetDimension()
    matrix = np.eye(4)
    matrix[:n, :n] = np.array(image.GetDirection()).reshape(n, n) * np.array(image.GetSpacing())
    matrix[:n, 3] = image.GetOrigin()
    return flip_lps_ras(matrix)


def flip_lps_ras(matrix: np.ndarray) -> np.ndarray:
    """Change the world of a 4x4 matrix between LPS and RAS, exactly (sign changes only, no negative zeros)."""
    flipped = matrix.copy()
    flipped[:2] = 0.0 - flipped[:2]
    return flipped + 0.0


def image_of(array: np.ndarray, ijk_to_ras: np.ndarray) -> sitk.Image:
    """(k, j, i) on its grid, ready to write."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    lps = flip_lps_ras(ijk_to_ras)
    columns = [split_step(lps[:3, axis]) for axis in range(3)]
    image.SetSpacing([length for length, _ in columns])
    image.SetDirection(np.stack([direction for _, direction in columns], axis=1).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def split_step(step: np.ndarray) -> tuple[float, np.ndarray]:
    """Length and direction with length * direction == step to the bit wherever such numbers exist near the true ones.

    Files that store spacing and direction apart would otherwise come back with a matrix one rounding off.
    """
    norm = float(np.linalg.norm(step))
    near = [norm]
    up = down = norm
    for _ in range(4):
        up, down = float(np.nextafter(up, np.inf)), float(np.nextafter(down, 0.0))
        near += [up, down]
    for length in [float(f"{norm:.{digits}g}") for digits in (6, 9, 12, 15)] + near:
        if abs(length - norm) > 1e-14 * norm:
            continue
        guess = step / length
        choices = np.stack([guess, np.nextafter(guess, -np.inf), np.nextafter(guess, np.inf)])
        exact = choices * length == step
        if exact.any(axis=0).all():
            return length, np.take_along_axis(choices, exact.argmax(axis=0)[None], axis=0)[0] + 0.0
    return norm, step / norm


def write_image(image: sitk.Image, path: Path, *, compress: bool = True) -> None:
    """Raises OutputError when ITK cannot write (it does not say why; a full disk is the usual reason)."""
    import SimpleITK as sitk

    try:
        sitk.WriteImage(image, str(path), useCompression=compress)
    except RuntimeError as error:
        raise OutputError(
            f"The image could not be written: {_last_line(error)}.",
            "Nothing was saved.",
            "Check the free space and the permissions of the output folder.",
        ) from error


def _last_line(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "unknown reason"

"""A synthetic abdominal CT: the size and look of a real one, without a patient."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..volume import Volume

IN_PLANE_MM = 409.6  # 512 pixels of 0.8 mm
NOISE_HU = 12.0  # standard deviation, as in a portal venous scan of ordinary dose
AIR_HU, FAT_HU, MUSCLE_HU = -1000, -100, 55


class _Ellipsoid(NamedTuple):
    """Centre and half axes in mm: x to the patient's left, y to the back, z up, from the middle of the volume."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    hu: int


# Later ones are painted over earlier ones. Portal venous phase.
_ORGANS = (
    _Ellipsoid((-75.0, -10.0, 150.0), (65.0, 75.0, 110.0), -850),  # right lung
    _Ellipsoid((75.0, -10.0, 150.0), (65.0, 75.0, 110.0), -850),  # left lung
    _Ellipsoid((-70.0, -15.0, 10.0), (75.0, 75.0, 75.0), 110),  # liver
    _Ellipsoid((-20.0, -50.0, 15.0), (60.0, 35.0, 40.0), 110),  # its left lobe
    _Ellipsoid((-85.0, 5.0, 0.0), (14.0, 14.0, 14.0), 60),  # a lesion in it
    _Ellipsoid((100.0, 40.0, 20.0), (30.0, 40.0, 50.0), 120),  # spleen
    _Ellipsoid((55.0, -45.0, 10.0), (40.0, 35.0, 40.0), 30),  # stomach
    _Ellipsoid((55.0, -62.0, 10.0), (25.0, 14.0, 25.0), -950),  # gas in it
    _Ellipsoid((-60.0, 60.0, -45.0), (28.0, 26.0, 52.0), 170),  # right kidney
    _Ellipsoid((62.0, 60.0, -35.0), (28.0, 26.0, 52.0), 170),  # left kidney
    _Ellipsoid((15.0, -50.0, -90.0), (70.0, 35.0, 45.0), 40),  # bowel
    _Ellipsoid((30.0, -60.0, -90.0), (20.0, 12.0, 20.0), -900),  # gas in it
)
_COLUMNS = (  # (x, y, radius x, radius y, HU), through all slices
    (0.0, 75.0, 24.0, 20.0, 250),  # vertebral bodies
    (0.0, 100.0, 8.0, 14.0, 400),  # spinous processes
    (8.0, 45.0, 11.0, 11.0, 160),  # aorta
    (-18.0, 42.0, 12.0, 10.0, 140),  # inferior vena cava
)


def body_phantom(slices: int = 78, size: int = 512, slice_mm: float = 2.5, seed: int = 0) -> Volume:
    """A CT of int16 HU, `slices` x `size` x `size` (k, j, i), 409.6 mm wide, stored as a scanner does (LPS).

    An elliptic body with fat, muscle, spine, vessels, lungs, liver with a lesion, spleen, kidneys, stomach and bowel
    with gas, and noise.
    """
    pixel = IN_PLANE_MM / size
    across = ((np.arange(size) - (size - 1) / 2) * pixel).astype(np.float32)
    x, y = across[None, :], across[:, None]
    plane = _body(x, y)
    generator = np.random.default_rng(seed)
    array = np.empty((slices, size, size), np.int16)
    for k in range(slices):
        z = (k - (slices - 1) / 2) * slice_mm
        painted = plane.copy()
        for organ in _ORGANS:
            height = 1 - ((z - organ.centre[2]) / organ.radii[2]) ** 2
            if height > 0:
                painted[_ellipse(x, y, *organ.centre[:2], *organ.radii[:2]) < height] = organ.hu
        noise = generator.standard_normal(painted.shape, dtype=np.float32) * NOISE_HU
        array[k] = np.clip(painted + noise, -1024, 3071)
    matrix = np.diag([-pixel, -pixel, slice_mm, 1.0])
    matrix[:3, 3] = (IN_PLANE_MM - pixel) / 2, (IN_PLANE_MM - pixel) / 2, -(slices - 1) / 2 * slice_mm
    return Volume(array, matrix, "CT")


def _ellipse(x: np.ndarray, y: np.ndarray, cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    """Below 1 inside."""
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2


def _body(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What is the same in all slices: float32 HU (j, i)."""
    plane = np.full(np.broadcast_shapes(x.shape, y.shape), AIR_HU, np.float32)
    plane[_ellipse(x, y, 0, 0, 180, 130) < 1] = FAT_HU
    plane[_ellipse(x, y, 0, 0, 160, 112) < 1] = MUSCLE_HU
    plane[_ellipse(x, y, 0, -5, 145, 95) < 1] = FAT_HU  # between the organs
    for cx, cy, rx, ry, hu in _COLUMNS:
        plane[_ellipse(x, y, cx, cy, rx, ry) < 1] = hu
    plane[(np.abs(y - 140) < 3) & (np.abs(x) < 190)] = -300  # the table
    return plane


def write_uncompressed(path: Path, volume: Volume) -> None:
    """Write a phantom so that reading it back costs disk time, not unpacking: `path` ends in .nii or .mha."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(volume.array)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.ijk_to_ras
    spacing = np.asarray(volume.spacing_ijk)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(path), useCompression=False)

"""The files of a case: an image stored without loss on its own grid and proved so, and its label maps beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import steps
from ..bundles.labels import Label
from ..errors import OutputError
from ..files import atomic_path, nifti, nrrd, read_volume, write_labels
from ..files import itk as itk_files
from ..files.formats import suffix_of
from ..grid import same_grid
from ..volume import Source, Volume
from .case import SiteCase, StoredImage
from .identity import file_hash, voxel_hash

# What long work on a case is at; see `steps`.
STORING, PROVING, LABELLING = "storing the image", "reading it back to prove it", "storing the labels"
NIFTI_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


def anonymous(volume: Volume) -> Volume:
    """The volume with nothing but its voxels, grid and modality; a type that files hold, in this machine's order."""
    array = volume.array
    array = array[0] if array.ndim == 4 and array.shape[0] == 1 else array
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    elif array.dtype == np.float16:
        array = array.astype(np.float32)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return Volume(array, volume.ijk_to_ras, volume.modality, Source(None, kind=volume.source.kind))


def write_case_image(folder: Path, volume: Volume, hashed: str) -> StoredImage:
    """Write `volume` (see `anonymous`) as image.png, image.nii.gz or image.nrrd, whichever keeps it exactly, and read
    it back to be sure. `hashed` is its `voxel_hash`.

    Raises:
        OutputError: the folder cannot be written, or what was read back differs.
    """
    path = folder / f"image{_suffix_for(volume)}"
    steps.begin(STORING)
    with atomic_path(path) as temporary:
        if path.suffix == ".png":
            _write_picture(temporary, volume)
        elif path.suffix == ".nrrd" and volume.channels > 1:
            _write_channels(temporary, volume)
        elif path.suffix == ".nrrd":
            nrrd.write(temporary, volume, {})
        else:
            nifti.write(temporary, volume, {})
    steps.begin(PROVING)
    again = read_volume(path)
    if not same_grid(again, volume) or again.channels != volume.channels or voxel_hash(again) != hashed:
        raise OutputError(
            f"{path} does not hold what was written to it.",
            "The disk or a library is at fault; the case was not added.",
            "Check the disk, then try again.",
        )
    return StoredImage(
        file=path.name,
        sha256=file_hash(path),
        voxels=hashed,
        shape_kji=volume.spatial_shape,
        channels=volume.channels,
        dtype=str(volume.array.dtype),
        ijk_to_ras=tuple(float(number) for number in volume.ijk_to_ras.ravel()),
        low=float(volume.array.min()),
        high=float(volume.array.max()),
    )


def write_case_labels(folder: Path, number: int, labels: Volume, image: StoredImage, table: Sequence[Label]) -> Path:
    """Write version `number` of the labels, uint8 on the grid of the image, in the format of the image.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    path = folder / f"labels-{number}{suffix_of(image.file)}"
    steps.begin(LABELLING)
    plain = replace(labels, array=labels.array.astype(np.uint8), source=Source(None), notes=())
    write_labels(path, plain, table, reference=plain)
    return path


def grid_of(image: StoredImage) -> Volume:
    """The grid of a stored image without its voxels: only shape and matrix mean anything."""
    return Volume(np.broadcast_to(np.uint8(0), image.shape_kji), image.matrix)


def stored_grid(case: SiteCase) -> Volume:
    """The grid that the labels of a case are on, as `grid_of`."""
    return grid_of(case.image)


def is_same_image(image: StoredImage, other: Volume, voxels: str) -> bool:
    """Whether `other`, whose `voxel_hash` is `voxels`, is the stored image: same values, same places.

    The axes may be in another order, as conversion between formats leaves them.
    """
    if image.voxels != voxels:
        return False
    here, there = grid_of(image), other
    there = there if there.array.ndim == 3 else replace(there, array=there.array[0])
    return same_grid(there.oriented("RAS"), here.oriented("RAS"))


def _suffix_for(volume: Volume) -> str:
    flat_picture = volume.source.kind == "picture" and volume.spatial_shape[0] == 1
    if flat_picture and volume.array.dtype in (np.uint8, np.uint16) and volume.channels in (1, 3):
        return ".png"
    in_float32 = volume.ijk_to_ras.astype(np.float32).astype(np.float64)
    small = max(volume.array.shape) <= 32767
    if volume.channels == 1 and small and str(volume.array.dtype) in NIFTI_TYPES:
        return ".nii.gz" if np.array_equal(in_float32, volume.ijk_to_ras) else ".nrrd"
    return ".nrrd"


def _write_picture(path: Path, volume: Volume) -> None:
    import SimpleITK as sitk

    slice_ = volume.array[..., 0, :, :]
    pixels = slice_ if slice_.ndim == 2 else np.moveaxis(slice_, 0, -1)
    itk_files.write_image(sitk.GetImageFromArray(np.ascontiguousarray(pixels), isVector=pixels.ndim == 3), path)


def _write_channels(path: Path, volume: Volume) -> None:
    """Several channels as the components of each voxel."""
    import SimpleITK as sitk

    placed = itk_files.image_of(np.zeros(volume.spatial_shape, np.uint8), volume.ijk_to_ras)
    image = sitk.GetImageFromArray(np.ascontiguousarray(np.moveaxis(volume.array, 0, -1)), isVector=True)
    image.CopyInformation(placed)
    itk_files.write_image(image, path)

"""Images of several channels as data sets keep them: Decathlon's four-dimensional NIfTI, nnU-Net's file per channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import itk, nifti, read_volume, suffix_of
from ..files.formats import require_file
from ..grid import same_grid
from ..volume import Volume

_NIFTI = (".nii.gz", ".nii")


def read_channels(path: Path) -> Volume:
    """An image; the fourth axis of a NIfTI file, in which Decathlon keeps modalities, becomes channels.

    Raises:
        InputError: as `read_volume`.
    """
    require_file(path)
    return nifti.read(path, series_as_channels=True) if suffix_of(path) in _NIFTI else read_volume(path)


def stack_channels(paths: Sequence[Path]) -> Volume:
    """One volume with the channels of several files, in their order.

    Raises:
        InputError: they are on different grids, or one cannot be read.
    """
    volumes = [read_volume(path) for path in paths]
    for path, volume in zip(paths, volumes, strict=True):
        if volume.channels != 1 or not same_grid(volume, volumes[0]):
            raise InputError(
                f"{path} is not on the grid of {paths[0].name}, or has channels of its own.",
                "The channels of an image must show the same voxels.",
                "Resample them to one grid first.",
            )
    array = np.stack([volume.array.reshape(volume.spatial_shape) for volume in volumes])
    return replace(volumes[0], array=array)


def write_channels_nifti(path: Path, volume: Volume) -> None:
    """(C, k, j, i) as NIfTI with the channels along the fourth axis, as Decathlon has them."""
    import SimpleITK as sitk

    channels = [itk.image_of(channel, volume.ijk_to_ras) for channel in volume.array]
    itk.write_image(sitk.JoinSeries(channels), path)

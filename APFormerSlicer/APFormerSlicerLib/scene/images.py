"""VTK images and NumPy arrays. Array axes are (k, j, i), or (k, j, i, component) where there are several."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from .geometry import vtk_matrix

# Slicer's exporter of DICOM segmentations looks the voxels up by this name, and takes a segment without it for empty.
# https://github.com/QIICR/QuantitativeReporting/blob/master/DICOMPlugins/DICOMSegmentationPlugin.py (isSegmentEmpty)
_SCALARS = "ImageScalars"


def array_of(image: Any) -> np.ndarray:
    """The voxels of a vtkImageData without a copy, not to be written to."""
    scalars = image.GetPointData().GetScalars()
    i, j, k = image.GetDimensions()
    voxels = vtk_to_numpy(scalars)
    array = voxels.reshape(k, j, i) if voxels.ndim == 1 else voxels.reshape(k, j, i, voxels.shape[1])
    array.setflags(write=False)
    return array


def image_of(array: np.ndarray, copy: bool = True) -> Any:
    """A vtkImageData with `array`, (k, j, i), as vtkMRMLVolumeNode holds it: no spacing, no origin.

    Args:
        copy: False shares the memory of a contiguous array, which lives as long as the image does; so an array that is
            mapped from a file is read where it is looked at, and costs nothing before.
    """
    return _filled(vtk.vtkImageData(), array, (0, 0, 0), copy)


def oriented_image(array: np.ndarray, ijk_to_local: np.ndarray, start_ijk: tuple[int, int, int] = (0, 0, 0)) -> Any:
    """A vtkOrientedImageData with a copy of `array`, (k, j, i), whose first voxel has index `start_ijk`.

    Args:
        ijk_to_local: from indices (not counted from `start_ijk`) to the frame of the segmentation.
    """
    image = _filled(slicer.vtkOrientedImageData(), array, start_ijk, copy=True)
    image.SetImageToWorldMatrix(vtk_matrix(ijk_to_local))
    return image


def _filled(image: Any, array: np.ndarray, start_ijk: tuple[int, int, int], copy: bool) -> Any:
    ends = zip(start_ijk, reversed(array.shape), strict=True)
    image.SetExtent([end for start, length in ends for end in (start, start + length - 1)])
    scalars = numpy_to_vtk(np.ascontiguousarray(array).ravel(), deep=copy)
    scalars.SetName(_SCALARS)
    image.GetPointData().SetScalars(scalars)
    return image

"""What slice views show of volumes, by Slicer's own slice logic and without a graphics library: for the README."""

from __future__ import annotations

from typing import Any

import numpy as np
from vtk.util.numpy_support import vtk_to_numpy


def slice_array(logic: Any, side: int) -> np.ndarray:
    """The layers of a vtkMRMLSliceLogic blended, uint8 (side, side, 3); segments and crosshair are not among them."""
    offset = logic.GetSliceOffset()
    logic.ResizeSliceNode(side, side)
    logic.FitSliceToAll()
    logic.SetSliceOffset(offset)
    port = logic.GetImageDataConnection()
    port.GetProducer().Update()
    image = port.GetProducer().GetOutputDataObject(port.GetIndex())
    columns, rows, _ = image.GetDimensions()
    scalars = vtk_to_numpy(image.GetPointData().GetScalars())
    return np.ascontiguousarray(scalars.reshape(rows, columns, -1)[::-1, :, :3])

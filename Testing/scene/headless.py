"""What Slicer's application provides and a bare MRML library does not: a scene with its modules' logic.

The scene room asks for no global scene, so none is set in the `slicer` package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

VolumeMaker = Callable[..., Any]  # the fixture `make_volume_node`


@dataclass(frozen=True)
class Host:
    """A scene and the logic that was attached to it, which must live as long."""

    scene: Any
    application: Any
    segmentations: Any
    sequences: Any
    colors: Any
    terminologies: Any

    def close(self) -> None:
        self.scene.Clear(True)


def start() -> Host:
    """A scene of its own. Attaching a logic registers its node classes, and those of segmentations the conversion to
    surfaces. Slicer's own terminologies are files of the application, so their logic stays without a scene."""
    scene = slicer.vtkMRMLScene()
    application = slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(scene)
    attached = [
        slicer.vtkSlicerSegmentationsModuleLogic(),
        slicer.vtkSlicerSequencesLogic(),
        slicer.vtkMRMLColorLogic(),
        slicer.vtkSlicerMarkupsLogic(),
    ]
    for logic in attached:
        logic.SetMRMLScene(scene)
    segmentations, sequences, colors, _ = attached
    colors.AddDefaultColorNodes()
    return Host(scene, application, segmentations, sequences, colors, slicer.vtkSlicerTerminologiesModuleLogic())


def matrix_of(volume_node: Any) -> Any:
    """The volume's ijkToRAS, a vtkMatrix4x4."""
    matrix = vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(matrix)
    return matrix


def add_volume(scene: Any, array: np.ndarray, name: str, kind: str = "vtkMRMLScalarVolumeNode") -> Any:
    """A volume node with the array, (k, j, i) or (k, j, i, components), of voxels of 1 mm."""
    image = vtk.vtkImageData()
    k, j, i = array.shape[:3]
    image.SetDimensions(i, j, k)
    scalars = array.ravel() if array.ndim == 3 else array.reshape(-1, array.shape[3])
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(scalars), deep=True))
    node = scene.AddNewNodeByClass(kind, name)
    node.SetAndObserveImageData(image)
    return node


def segment_mask(segmentation_node: Any, segment_id: str, shape_kji: tuple[int, int, int]) -> np.ndarray:
    """The voxels of a segment by their indices in the layer, found by VTK's means alone: uint8, (k, j, i)."""
    image = slicer.vtkOrientedImageData()
    segmentation_node.GetBinaryLabelmapRepresentation(segment_id, image)
    whole = np.zeros(shape_kji, np.uint8)
    i0, i1, j0, j1, k0, k1 = image.GetExtent()
    if i1 >= i0:
        part = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
        whole[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1] = part
    return whole


def draw(segmentation_node: Any, name: str, mask: np.ndarray, matrix: Any) -> str:
    """A segment drawn by hand, as the Segment Editor stores it; returns its ID."""
    segment_id = segmentation_node.GetSegmentation().AddEmptySegment("", name)
    redraw(segmentation_node, segment_id, mask, matrix)
    return str(segment_id)


def redraw(segmentation_node: Any, segment_id: str, mask: np.ndarray, matrix: Any) -> None:
    """Replace the voxels of a segment."""
    image = slicer.vtkOrientedImageData()
    k, j, i = mask.shape
    image.SetDimensions(i, j, k)
    scalars = numpy_to_vtk(np.ascontiguousarray(mask, dtype=np.uint8).ravel(), deep=True)
    scalars.SetName("ImageScalars")
    image.GetPointData().SetScalars(scalars)
    image.SetImageToWorldMatrix(matrix)
    slicer.vtkSlicerSegmentationsModuleLogic.SetBinaryLabelmapToSegment(image, segmentation_node, segment_id)

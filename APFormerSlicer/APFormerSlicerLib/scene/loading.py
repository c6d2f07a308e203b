"""A volume that was read by the engine, as a node of the scene."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import slicer
import vtk
from apformer.volume import Volume
from vtk.util.numpy_support import numpy_to_vtk

from .geometry import vtk_matrix
from .volumes import NOTES, PICTURE


def new_volume_node(scene: Any, volume: Volume, name: str, image: Any = None) -> Any:
    """A vtkMRMLScalarVolumeNode, or vtkMRMLVectorVolumeNode for colours, with the voxels and their place.

    The modality, where it is known, is told to the subject hierarchy, where `to_volume` finds it; what the header
    leaves open, and that it is a picture, are kept on the node.

    Args:
        volume: its memory becomes the node's where it is contiguous, and must be nobody else's then.
        image: of the voxels, where `image_data` made it already, as in another thread; then no voxel is touched here.
    """
    colour = volume.channels == 3
    kind = "vtkMRMLVectorVolumeNode" if colour else "vtkMRMLScalarVolumeNode"
    node = scene.AddNewNodeByClass(kind, scene.GenerateUniqueName(name))
    node.SetAndObserveImageData(image_data(volume) if image is None else image)
    node.SetIJKToRASMatrix(vtk_matrix(volume.ijk_to_ras))
    if colour:
        node.SetVoxelVectorType(node.VoxelVectorTypeColorRGB)
    if volume.notes:
        node.SetAttribute(NOTES, json.dumps(volume.notes))
    if volume.source.kind == "picture":
        node.SetAttribute(PICTURE, "1")
    node.CreateDefaultDisplayNodes()
    if volume.modality is not None and not colour:
        _tell_modality(node, volume.modality)
    return node


def image_data(volume: Volume) -> Any:
    """A vtkImageData that shares the voxels' memory where they are contiguous; colours as components, which are copied.
    It may be made in any thread."""
    k, j, i = volume.spatial_shape
    image = vtk.vtkImageData()
    image.SetDimensions(i, j, k)
    array = volume.array if volume.array.ndim == 4 else volume.array[None]
    scalars = np.ascontiguousarray(np.moveaxis(array, 0, -1).reshape(-1, array.shape[0]))
    image.GetPointData().SetScalars(numpy_to_vtk(scalars))
    return image


def _tell_modality(node: Any, modality: str) -> None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    item = hierarchy.GetItemByDataNode(node)
    if item == hierarchy.GetInvalidItemID():  # without Slicer's Qt plugins, nodes get no items by themselves
        item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
    name = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
    hierarchy.SetItemAttribute(item, name, modality)


def unload(nodes: Iterable[Any]) -> None:
    """Remove nodes from their scene, with what only shows or stores them: Slicer leaves that behind."""
    for node in nodes:
        scene = node.GetScene()
        if scene is None:
            continue
        kept = [node.GetNthDisplayNode(number) for number in range(node.GetNumberOfDisplayNodes())]
        kept += [node.GetNthStorageNode(number) for number in range(node.GetNumberOfStorageNodes())]
        scene.RemoveNode(node)
        for part in kept:
            if part is not None and part.GetScene() is scene:
                scene.RemoveNode(part)

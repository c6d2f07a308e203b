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
from .images import image_of
from .volumes import NOTES, PICTURE


def new_volume_node(scene: Any, volume: Volume, name: str, copy: bool = True) -> Any:
    """A vtkMRMLScalarVolumeNode, or vtkMRMLVectorVolumeNode for colours, with the voxels and their place.

    The modality, where it is known, is told to the subject hierarchy, where `to_volume` finds it; what the header
    leaves open, and that it is a picture, are kept on the node.

    Args:
        copy: False shares the memory of gray voxels, which must be contiguous and nobody else's.
    """
    colour = volume.channels == 3
    kind = "vtkMRMLVectorVolumeNode" if colour else "vtkMRMLScalarVolumeNode"
    node = scene.AddNewNodeByClass(kind, scene.GenerateUniqueName(name))
    node.SetAndObserveImageData(_image(volume, copy))
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


def _image(volume: Volume, copy: bool) -> Any:
    """A vtkImageData with the voxels; colours as components."""
    if volume.channels == 1:
        return image_of(volume.array.reshape(volume.spatial_shape), copy)
    k, j, i = volume.spatial_shape
    image = vtk.vtkImageData()
    image.SetDimensions(i, j, k)
    scalars = np.ascontiguousarray(np.moveaxis(volume.array, 0, -1).reshape(-1, volume.channels))
    image.GetPointData().SetScalars(numpy_to_vtk(scalars, deep=True))
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

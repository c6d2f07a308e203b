"""Patients, studies and what belongs to them: the subject hierarchy, where the scene has one."""

from __future__ import annotations

from typing import Any

import slicer


def place_beside(node: Any, volume_node: Any) -> bool:
    """Put `node` into the folder or study of `volume_node`, and tell on which DICOM images it was made.

    The second is what Slicer's DICOM export asks for. False when the scene has no hierarchy, or not this volume.
    """
    hierarchy, volume = _item(volume_node)
    if hierarchy is None:
        return False
    parent = hierarchy.GetItemParent(volume)
    item = hierarchy.GetItemByDataNode(node)
    if item == hierarchy.GetInvalidItemID():  # without Slicer's Qt plugins, nodes get no items by themselves
        item = hierarchy.CreateItem(parent, node)
    else:
        hierarchy.SetItemParent(item, parent)
    images = volume_node.GetAttribute("DICOM.instanceUIDs")  # set by the DICOM module
    if images and node.IsA("vtkMRMLSegmentationNode"):
        name = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMReferencedInstanceUIDsAttributeName()
        hierarchy.SetItemAttribute(item, name, images)
    return True


def dicom_modality(volume_node: Any) -> str | None:
    """The modality of the volume's DICOM series, such as "MR"."""
    hierarchy, item = _item(volume_node)
    if hierarchy is None:
        return None
    name = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
    return hierarchy.GetItemAttribute(item, name) or None


def dicom_series(volume_node: Any) -> str | None:
    """The Series Instance UID of the volume's DICOM series."""
    hierarchy, item = _item(volume_node)
    if hierarchy is None:
        return None
    return hierarchy.GetItemUID(item, slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMUIDName()) or None


def _item(node: Any) -> tuple[Any, int]:
    """The hierarchy and the node's item in it; None and 0 where there is none. None is made by asking."""
    scene = node.GetScene()
    hierarchy = None if scene is None else scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")
    if hierarchy is None:
        return None, 0
    item = hierarchy.GetItemByDataNode(node)
    return (None, 0) if item == hierarchy.GetInvalidItemID() else (hierarchy, item)

"""Segmentation nodes for a volume: made, placed beside it, and given its grid as reference."""

from __future__ import annotations

from typing import Any

from apformer.errors import OutputError

from .hierarchy import place_beside
from .volumes import check_volume_node


def new_segmentation(volume_node: Any, name: str = "") -> Any:
    """An empty vtkMRMLSegmentationNode in the scene of the volume, under the same transform and in the same study.

    Args:
        name: "CT segmentation" for a volume CT when left out; made unique in the scene.
    """
    check_volume_node(volume_node)
    scene = volume_node.GetScene()
    unique = scene.GenerateUniqueName(name or f"{volume_node.GetName()} segmentation")
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", unique)
    node.CreateDefaultDisplayNodes()
    node.SetAndObserveTransformNodeID(volume_node.GetTransformNodeID())
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    place_beside(node, volume_node)
    return node


def check_segmentation_node(node: Any, volume_node: Any) -> None:
    """Raises OutputError when results on the volume cannot be written to `node`."""
    if node.IsA("vtkMRMLSegmentationNode") and node.GetScene() is volume_node.GetScene():
        return
    raise OutputError(
        f"{node.GetName()} is no segmentation in the scene of {volume_node.GetName()}.",
        "The result cannot be written to it.",
        "Choose a segmentation, or let a new one be made.",
    )


def refer_to(segmentation_node: Any, volume_node: Any) -> None:
    """Make the volume's grid the one that the segmentation is edited and exported on.

    A segmentation that already refers to another volume keeps to it where it has segments: they were drawn there.
    """
    referred = segmentation_node.GetNodeReference(segmentation_node.GetReferenceImageGeometryReferenceRole())
    if referred in (None, volume_node) or segmentation_node.GetSegmentation().GetNumberOfSegments() == 0:
        segmentation_node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)

"""What is seen of several images' segmentations: those of one image and no others.

A mask of another patient over an image looks like a result of it.
"""

from __future__ import annotations

from typing import Any

from .geometry import one_update
from .overlays import LOOKS, hide, overlay

_LATEST = "APFormer.Latest"  # role of a node that a volume refers to
_PUT_AWAY = "APFormer.PutAway"  # attribute of a display node: it was seen, and will be with its image


def drawn_on(segmentation_node: Any) -> Any:
    """The volume that a segmentation was drawn on; None when it is not known, or was removed."""
    return segmentation_node.GetNodeReference(segmentation_node.GetReferenceImageGeometryReferenceRole())


def show_only(volume_node: Any) -> None:
    """Put away, in all views, the segmentations that were not drawn on that volume and the maps that lie over it; bring
    back those of its own that were put away so. What a user has hidden stays hidden."""
    scene = volume_node.GetScene()
    for node in segmentations_of(scene):
        _show(node.GetDisplayNode(), drawn_on(node) is volume_node)
        if drawn_on(node) is not volume_node:
            put_maps_away(node)


def put_maps_away(segmentation_node: Any) -> None:
    """Take the maps of a segmentation off the views."""
    for name in LOOKS:
        found = overlay(segmentation_node, name)
        if found is not None:
            hide(found)


def segmentations_of(scene: Any, volume_node: Any = None) -> list[Any]:
    """All segmentations of a scene, or those that were drawn on a volume: in the order in which they came."""
    kind = "vtkMRMLSegmentationNode"
    nodes = [scene.GetNthNodeByClass(number, kind) for number in range(scene.GetNumberOfNodesByClass(kind))]
    return [node for node in nodes if volume_node is None or drawn_on(node) is volume_node]


def remember_latest(volume_node: Any, segmentation_node: Any) -> None:
    """Keep, with the volume, which of its segmentations was looked at last."""
    if latest_of(volume_node) is not segmentation_node:
        volume_node.SetNodeReferenceID(_LATEST, segmentation_node.GetID())


def latest_of(volume_node: Any) -> Any:
    """The segmentation of the volume that was looked at last, else the one that came last; None when it has none."""
    found = [node for node in segmentations_of(volume_node.GetScene(), volume_node) if not node.GetHideFromEditors()]
    kept = volume_node.GetNodeReference(_LATEST)
    return kept if kept in found else found[-1] if found else None


def _show(display: Any, shown: bool) -> None:
    if display is None or shown == (display.GetAttribute(_PUT_AWAY) is None):
        return
    if not shown and not display.GetVisibility():
        return  # a user has hidden it
    with one_update(display):
        display.SetAttribute(_PUT_AWAY, None if shown else "yes")
        display.SetVisibility(shown)

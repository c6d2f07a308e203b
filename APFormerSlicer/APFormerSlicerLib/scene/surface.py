"""Segments in 3D."""

from __future__ import annotations

from typing import Any

import slicer


def show_in_3d(segmentation_node: Any) -> bool:
    """Make closed surfaces of all segments and show them; they then follow every edit.

    False, with nothing changed, where no conversion to surfaces is registered: vtkSlicerSegmentationsModuleLogic does
    that when a host sets its scene.
    """
    if not _can_make_surfaces(segmentation_node):
        return False
    segmentation_node.CreateDefaultDisplayNodes()
    made = segmentation_node.CreateClosedSurfaceRepresentation()
    display = segmentation_node.GetDisplayNode()
    display.SetVisibility(True)
    display.SetVisibility3D(True)
    return bool(made)


def hide_in_3d(segmentation_node: Any) -> None:
    """Remove the surfaces, so that edits need not update them; what is kept as surfaces is not shown any more."""
    if segmentation_node.GetSegmentation().GetSourceRepresentationName() != _closed_surface():
        segmentation_node.RemoveClosedSurfaceRepresentation()
    elif segmentation_node.GetDisplayNode() is not None:
        segmentation_node.GetDisplayNode().SetVisibility3D(False)


def is_in_3d(segmentation_node: Any) -> bool:
    """Whether there are surfaces and they are shown."""
    display = segmentation_node.GetDisplayNode()
    return _has_surfaces(segmentation_node) and display is not None and bool(display.GetVisibility3D())


def _has_surfaces(segmentation_node: Any) -> bool:
    return bool(segmentation_node.GetSegmentation().ContainsRepresentation(_closed_surface()))


def _can_make_surfaces(segmentation_node: Any) -> bool:
    paths = slicer.vtkSegmentationConversionPaths()
    segmentation_node.GetSegmentation().GetPossibleConversions(_closed_surface(), paths)
    return bool(paths.GetNumberOfPaths() > 0) or _has_surfaces(segmentation_node)


def _closed_surface() -> str:
    return str(slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName())

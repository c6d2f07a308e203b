"""Maps of where the network was unsure and where it looked, as volumes to lay over the image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from apformer.errors import InputError
from apformer.part import Part

from .geometry import ijk_to_local, one_update, vtk_matrix
from .hierarchy import place_beside
from .images import image_of
from .volumes import check_volume_node, first_ijk, shape_kji


@dataclass(frozen=True)
class Look:
    """How a map is shown. `title`: what it is called after the volume's name. `color`: the ID of a colour table that
    both Slicer and slicer-core have. Values below `threshold` are transparent."""

    title: str
    color: str
    threshold: float


# The names are those of the worker's outputs (apformer.commands.options.MAPS); values are from 0 to 1.
LOOKS = {
    "uncertainty": Look("uncertainty", "vtkMRMLPETProceduralColorNodePET-Heat", 0.1),
    "kept_tokens": Look("where it looked", "vtkMRMLColorTableNodeCyan", 0.5),
}


def write_overlay(segmentation_node: Any, volume_node: Any, name: str, array: np.ndarray | Part) -> Any:
    """A vtkMRMLScalarVolumeNode with the map, on the grid of the volume; the one of an earlier result is updated.

    Args:
        name: "uncertainty" or "kept_tokens"; it is also how `overlay` finds the node again.
        array: (k, j, i), numbers from 0 to 1, kept as float32; or what the worker cut out of it, kept as it is: the
            node then has the grid of the cut, and shares the memory of an array that is contiguous.

    Raises:
        InputError: the array does not fit the volume.
    """
    check_volume_node(volume_node)
    check_map(array, volume_node, name)
    node = overlay(segmentation_node, name) or _new_overlay(segmentation_node, volume_node, name)
    start = np.array(first_ijk(volume_node), dtype=np.float64)
    if isinstance(array, Part):
        start += array.start_kji[::-1]
        image = image_of(array.array, copy=False) if array.array.size else image_of(np.zeros((1, 1, 1), np.float32))
    else:
        image = image_of(array.astype(np.float32))
    with one_update(node):
        node.SetAndObserveImageData(image)
        matrix = ijk_to_local(volume_node)
        matrix[:3, 3] += matrix[:3, :3] @ start
        node.SetIJKToRASMatrix(vtk_matrix(matrix))
        node.SetAndObserveTransformNodeID(volume_node.GetTransformNodeID())
    return node


def check_map(array: np.ndarray | Part, volume_node: Any, name: str) -> None:
    """Raises InputError when the array does not fit the volume."""
    shape = array.shape_kji if isinstance(array, Part) else array.shape
    if shape != shape_kji(volume_node):
        raise InputError(
            f"The map of {LOOKS[name].title} has shape {shape}, not that of {volume_node.GetName()}.",
            "It would lie in the wrong place.",
            "Segment the volume again: it was changed or replaced since.",
        )


def overlay(segmentation_node: Any, name: str) -> Any:
    """The node of the map `name` that belongs to the segmentation; None when there is none."""
    return segmentation_node.GetNodeReference(_role(name))


def show(overlay_node: Any, opacity: float = 0.5) -> None:
    """Lay the map over what every slice view shows."""
    for view in _slice_views(overlay_node):
        view.SetForegroundVolumeID(overlay_node.GetID())
        view.SetForegroundOpacity(opacity)


def is_shown(overlay_node: Any) -> bool:
    """Whether a slice view shows the map."""
    return any(view.GetForegroundVolumeID() == overlay_node.GetID() for view in _slice_views(overlay_node))


def hide(overlay_node: Any) -> None:
    """Take the map off the slice views that show it."""
    for view in _slice_views(overlay_node):
        if view.GetForegroundVolumeID() == overlay_node.GetID():
            view.SetForegroundVolumeID(None)


def _new_overlay(segmentation_node: Any, volume_node: Any, name: str) -> Any:
    look, scene = LOOKS[name], volume_node.GetScene()
    title = scene.GenerateUniqueName(f"{volume_node.GetName()} {look.title}")
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", title)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(0.0, 1.0)
    display.SetAutoThreshold(False)
    display.SetThreshold(look.threshold, 1.0)
    display.SetApplyThreshold(True)
    display.SetInterpolate(False)  # each voxel's own value
    if scene.GetNodeByID(look.color) is not None:
        display.SetAndObserveColorNodeID(look.color)
    place_beside(node, volume_node)
    segmentation_node.SetNodeReferenceID(_role(name), node.GetID())
    return node


def _role(name: str) -> str:
    return f"APFormer.{name}"


def _slice_views(node: Any) -> Iterator[Any]:
    scene = node.GetScene()
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")):
        yield scene.GetNthNodeByClass(number, "vtkMRMLSliceCompositeNode")

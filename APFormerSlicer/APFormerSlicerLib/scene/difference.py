"""What a new proposal has and the former had not, over the image: green where added, red where removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from apformer.bundles import Code, Label
from apformer.part import Part

from .segmentations import new_segmentation
from .segments import write_segments

_ADDED, _REMOVED = 1, 2
_ROLE = "APFormer.Difference"
_TISSUE = Code("SCT", "85756007", "Tissue")
LABELS = (
    Label(_ADDED, "added", (0, 190, 60), _TISSUE, _TISSUE),
    Label(_REMOVED, "removed", (230, 30, 30), _TISSUE, _TISSUE),
)
_FILL = 0.6  # opacity: over the segments, and the image can still be seen


def difference(before: Part, after: Part) -> Part:
    """Label maps on one grid, cut to what is not 0, to 1 where a label was added and 2 where one was removed. What
    became another label was added. Touches no node."""
    low = [min(pair) for pair in zip(before.start_kji, after.start_kji, strict=True)]
    high = [max(slices[0].stop, slices[1].stop) for slices in zip(before.box_kji, after.box_kji, strict=True)]
    grid = tuple(stop - start for start, stop in zip(low, high, strict=True))

    def moved(part: Part) -> np.ndarray:
        array = np.zeros(grid, np.uint8)
        start = [own - first for own, first in zip(part.start_kji, low, strict=True)]
        array[tuple(slice(s, s + n) for s, n in zip(start, part.array.shape, strict=True))] = part.array
        return array

    old, new = moved(before), moved(after)
    changed = np.where(old == new, 0, np.where(new > 0, _ADDED, _REMOVED)).astype(np.uint8)
    cut = Part.of(changed)
    start_k, start_j, start_i = (first + own for first, own in zip(low, cut.start_kji, strict=True))
    return Part(cut.array, (start_k, start_j, start_i), before.shape_kji)


def together(parts: Sequence[Part]) -> Part:
    """What `difference` found of several label maps on one grid, in one; where one added and another removed, added."""
    if len(parts) == 1:
        return parts[0]
    whole = np.zeros(parts[0].shape_kji, np.uint8)
    for kind in (_REMOVED, _ADDED):
        for part in parts:
            whole[part.box_kji][part.array == kind] = kind
    return Part.of(whole)


def write_difference(segmentation_node: Any, volume_node: Any, part: Part) -> Any:
    """A segmentation node beside `segmentation_node` with what `difference` found; it can be seen, but not be chosen,
    and is not saved. The one of an earlier proposal is removed."""
    remove_difference(segmentation_node)
    node = new_segmentation(volume_node, f"{segmentation_node.GetName()} difference")
    node.SetAttribute(_ROLE, "yes")
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    write_segments(node, volume_node, part, LABELS, lambda *_: None)
    display = node.GetDisplayNode()
    display.SetSaveWithScene(False)
    display.SetOpacity2DFill(_FILL)
    display.SetVisibility3D(False)
    segmentation_node.SetNodeReferenceID(_ROLE, node.GetID())
    return node


def difference_of(segmentation_node: Any) -> Any:
    """The node of the difference; None when there is none. It is not saved with the scene, but the reference to it is,
    and its ID may be another node's after loading."""
    node = segmentation_node.GetNodeReference(_ROLE)
    return node if node is not None and node.GetAttribute(_ROLE) else None


def show_difference(segmentation_node: Any, shown: bool) -> None:
    """Show or hide it, where there is one."""
    node = difference_of(segmentation_node)
    if node is not None:
        node.GetDisplayNode().SetVisibility(shown)


def remove_difference(segmentation_node: Any) -> None:
    node = difference_of(segmentation_node)
    if node is not None:
        segmentation_node.RemoveNodeReferenceIDs(_ROLE)
        node.GetScene().RemoveNode(node)

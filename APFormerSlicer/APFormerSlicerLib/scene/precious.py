"""Segments that a person would miss: made or accepted by one. A result that has their names would replace them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apformer.bundles.labels import Label

from .images import array_of
from .provenance import model_of
from .segments import binary_labelmap, segment_ids
from .status import Status, status_of

ACCEPTED, BY_HAND = "accepted", "made by hand"


def precious(segmentation_node: Any, labels: Sequence[Label]) -> dict[str, str]:
    """Name -> "accepted" or "made by hand", of the segments that a result with these labels would replace and that are
    more than a model's proposal. "Made by hand" is everything that no model of ours made and that has voxels, such as
    what another program made, or what a person outlined."""
    segmentation = segmentation_node.GetSegmentation()
    found = {}
    for name, segment_id in segment_ids(segmentation_node, labels).items():
        segment = segmentation.GetSegment(segment_id)
        if status_of(segment) == Status.COMPLETED:
            found[name] = ACCEPTED
        elif model_of(segment) is None and _has_voxels(segment):
            found[name] = BY_HAND
    return found


def _has_voxels(segment: Any) -> bool:
    """Slice by slice up to the first that has any: an empty segment may share a layer with others."""
    layer = segment.GetRepresentation(binary_labelmap())
    if layer is None:
        return True  # a surface
    value = segment.GetLabelValue()
    return layer.GetNumberOfPoints() > 0 and any((plane == value).any() for plane in array_of(layer))

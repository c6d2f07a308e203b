"""Segments that a person would miss: made or accepted by one. A result that has their names would replace them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apformer.bundles.labels import Label

from .provenance import of_segment
from .segments import binary_labelmap, segment_ids
from .status import Status, status_of

ACCEPTED, BY_HAND = "accepted", "made by hand"


def precious(segmentation_node: Any, labels: Sequence[Label]) -> dict[str, str]:
    """Name -> "accepted" or "made by hand", of the segments that a result with these labels would replace and that are
    more than a model's proposal. "Made by hand" is everything without our provenance that has voxels, such as what
    another program made."""
    segmentation = segmentation_node.GetSegmentation()
    found = {}
    for name, segment_id in segment_ids(segmentation_node, labels).items():
        segment = segmentation.GetSegment(segment_id)
        if status_of(segment) == Status.COMPLETED:
            found[name] = ACCEPTED
        elif of_segment(segment) is None and _has_voxels(segment):
            found[name] = BY_HAND
    return found


def _has_voxels(segment: Any) -> bool:
    """As far as can be told without looking at them: a layer that several segments share has those of all."""
    layer = segment.GetRepresentation(binary_labelmap())
    return layer is None or layer.GetNumberOfPoints() > 0

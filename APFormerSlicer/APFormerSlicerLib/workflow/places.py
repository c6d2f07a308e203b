"""The places to check of a result, kept on its segmentation and saved with the scene; the worker found them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from apformer.places import MOST, Place

from ..scene.geometry import ijk_to_local, local_to_world
from ..scene.volumes import first_ijk
from .result_notes import keep, kept

__all__ = ["Place", "places_of", "set_places"]

_PLACES = "APFormer.Places"  # attribute of the segmentation


def set_places(segmentation_node: Any, told: Sequence[Any] | None) -> None:
    """Keep what the worker told with the present result; None: it made no map of uncertainty."""
    keep(segmentation_node, _PLACES, "places", None if told is None else list(told)[:MOST])


def places_of(segmentation_node: Any) -> list[Place] | None:
    """The places of the present result, the most uncertain first, where the image is now; None where none are known."""
    told = kept(segmentation_node, _PLACES, "places")
    if told is None:
        return None
    try:
        places = [Place.from_dict(place) for place in told]
    except (ValueError, TypeError, KeyError, AttributeError):  # edited by hand, or none
        return None
    role = segmentation_node.GetReferenceImageGeometryReferenceRole()
    volume_node = segmentation_node.GetNodeReference(role)
    return [_placed(place, volume_node) for place in places]


def _placed(place: Place, volume_node: Any) -> Place:
    """Where the voxel lies now: the image may have been moved since."""
    if volume_node is None or volume_node.GetImageData() is None:
        return place
    ijk = [index + first for index, first in zip(place.ijk, first_ijk(volume_node), strict=True)]
    r, a, s, _ = local_to_world(volume_node) @ ijk_to_local(volume_node) @ [*ijk, 1.0]
    return replace(place, ras=(float(r), float(a), float(s)))

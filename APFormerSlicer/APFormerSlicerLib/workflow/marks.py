"""Slices that a person marked as right, kept on the segmentation with its present result and saved with the scene."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from apformer.following import Plane

from .result_notes import keep, kept

_RIGHT = "APFormer.Right"  # attribute of the segmentation


def marked(segmentation_node: Any) -> frozenset[Plane]:
    """Those of the present result; axes are k, j, i of the volume's array."""
    try:
        told = [(int(axis), int(number)) for axis, number in kept(segmentation_node, _RIGHT, "slices") or ()]
    except (ValueError, TypeError):  # edited by hand
        return frozenset()
    return frozenset(Plane(axis, number) for axis, number in told if axis in (0, 1, 2) and number >= 0)


def set_marked(segmentation_node: Any, planes: Iterable[Plane]) -> None:
    keep(segmentation_node, _RIGHT, "slices", sorted(planes))

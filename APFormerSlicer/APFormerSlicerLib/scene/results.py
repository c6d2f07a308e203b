"""A whole result of the engine onto the scene: segments by name, what they are, what made them, maps beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from apformer.bundles.labels import Label
from apformer.part import Part

from .edits import SegmentEditor, save_for_undo
from .overlays import check_map, write_overlay
from .provenance import Provenance, record_on_node, record_on_segment
from .segmentations import check_segmentation_node, new_segmentation, refer_to
from .segments import check_target, checked_part, segment_ids, write_segments
from .status import Status, set_status
from .terminology import context_name, set_entry
from .volumes import check_volume_node


@dataclass(frozen=True)
class Result:
    """What the engine made of a volume.

    Attributes:
        array: label values, (k, j, i), on the grid of the volume; or what the worker cut out of it around what is not
            0, of which no voxel is looked at again.
        labels: what the values are.
        maps: "uncertainty", "kept_tokens": numbers from 0 to 1, (k, j, i), or cut likewise.
    """

    array: np.ndarray | Part
    labels: Sequence[Label]
    provenance: Provenance
    maps: Mapping[str, np.ndarray | Part] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """Where a result is in the scene.

    Attributes:
        segment_ids: by label name. `replaced`: the names of those segments that were there before.
        undoable: the Segment Editor's Undo takes the segments back.
        overlays: map name -> volume node.
    """

    segmentation_node: Any
    segment_ids: dict[str, str]
    replaced: tuple[str, ...]
    undoable: bool
    overlays: dict[str, Any]


def write_result(
    volume_node: Any, result: Result, segmentation_node: Any = None, editor: SegmentEditor | None = None
) -> Written:
    """Write a result to the scene of the volume.

    Segments are found by the names of the labels, get the labels' codes and are marked in progress, as a network's
    proposal is not yet reviewed. Segments with other names are not touched. Nothing is touched when it raises for what
    it was passed.

    Args:
        segmentation_node: where to write; a new segmentation when left out.
        editor: see `edits.save_for_undo`.

    Raises:
        InputError: the result does not fit the volume; a transform is not linear.
        OutputError: the segmentation is not of this scene, or kept as surfaces.
    """
    check_volume_node(volume_node)
    part = checked_part(result.array, volume_node, result.labels)
    for name, array in result.maps.items():
        check_map(array, volume_node, name)
    if segmentation_node is None:
        segmentation_node = new_segmentation(volume_node)
    check_segmentation_node(segmentation_node, volume_node)
    check_target(segmentation_node, volume_node)
    replaced = tuple(segment_ids(segmentation_node, result.labels))
    undoable = save_for_undo(editor, segmentation_node)
    refer_to(segmentation_node, volume_node)
    written = write_segments(segmentation_node, volume_node, part, result.labels, _describer(result))
    record_on_node(segmentation_node, result.provenance)
    overlays = {name: write_overlay(segmentation_node, volume_node, name, array) for name, array in result.maps.items()}
    for node in overlays.values():
        record_on_node(node, result.provenance)
    return Written(segmentation_node, written, replaced, undoable, overlays)


def write_outlined(
    volume_node: Any,
    part: Part,
    labels: Sequence[Label],
    segmentation_node: Any,
    made_by: Mapping[str, Provenance | None],
    editor: SegmentEditor | None = None,
) -> tuple[dict[str, str], bool]:
    """Write segments of a person's own, which keep their codes and their status; other segments are not touched.

    Args:
        part: their label map. made_by: what is told of each, by label name; None: the person alone made it.
        editor: see `edits.save_for_undo`.

    Returns:
        label name -> segment ID; whether the Segment Editor's Undo takes it back.

    Raises:
        InputError, OutputError: as `write_result`; nothing was touched.
    """
    check_volume_node(volume_node)
    checked_part(part, volume_node, labels)
    check_segmentation_node(segmentation_node, volume_node)
    check_target(segmentation_node, volume_node)
    undoable = save_for_undo(editor, segmentation_node)

    def describe(segment: Any, label: Label) -> None:
        record_on_segment(segment, made_by[label.name])

    return write_segments(segmentation_node, volume_node, part, labels, describe), undoable


def _describer(result: Result) -> Callable[[Any, Label], None]:
    context = context_name(result.provenance.model)

    def describe(segment: Any, label: Label) -> None:
        set_entry(segment, label, context)
        set_status(segment, Status.IN_PROGRESS)
        record_on_segment(segment, result.provenance)

    return describe

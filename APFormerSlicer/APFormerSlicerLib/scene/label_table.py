"""The segments of a node as labels: for files that Slicer's own writers do not make, and of structures that no model
knows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from apformer.bundles.labels import HIGHEST_LABEL, Code, Label
from apformer.errors import BundleError, OutputError
from apformer.names import plain

from .segments import segment_ids
from .terminology import entry_of

# Slicer's own default for a segment that nobody has said anything about.
_TISSUE = Code("SCT", "85756007", "Tissue")


def labels_of(segmentation_node: Any) -> tuple[Label, ...]:
    """One label per segment, in their order, with the values 1, 2, ..., and the segments' colours and codes.

    Raises:
        OutputError: no segments, or too many for a label map.
    """
    segmentation = segmentation_node.GetSegmentation()
    count = segmentation.GetNumberOfSegments()
    if not 0 < count <= HIGHEST_LABEL:
        raise OutputError(
            f"{segmentation_node.GetName()} has {count or 'no'} segments.",
            f"A label map has 1 to {HIGHEST_LABEL} labels.",
            "Segment a volume first." if count == 0 else "Remove segments that are not needed.",
        )
    return tuple(_label(segmentation.GetNthSegment(number), number + 1) for number in range(count))


def labels_besides(segmentation_node: Any, known: Sequence[Label]) -> tuple[Label, ...]:
    """One label per segment that is none of `known`, with values that none of these has. Of several segments of one
    name the first counts; names that no label can have are left out, as are segments beyond the highest value."""
    segmentation = segmentation_node.GetSegmentation()
    theirs = {plain(name) for name in segment_ids(segmentation_node, known)}
    free = iter(sorted(set(range(1, HIGHEST_LABEL + 1)) - {label.value for label in known}))
    found: dict[str, Label] = {}  # by what is the same name
    for number in range(segmentation.GetNumberOfSegments()):
        name = plain(segmentation.GetNthSegment(number).GetName())
        if name not in theirs and name not in found:
            with suppress(BundleError, StopIteration):
                found[name] = _label(segmentation.GetNthSegment(number), next(free))
    return tuple(label for name, label in found.items() if plain(label.name) == name)  # long ones were cut


def _label(segment: Any, value: int) -> Label:
    red, green, blue = (round(255 * part) for part in segment.GetColor())
    category, kind, modifier = _codes(entry_of(segment) or "")
    return Label(value, segment.GetName()[:64] or f"Segment {value}", (red, green, blue), category, kind, modifier)


def _codes(entry: str) -> tuple[Code, Code, Code | None]:
    """Category, type and modifier of a terminology entry, as `terminology.entry` describes it."""
    parts = entry.split("~")
    category, kind, modifier = (_code(part) for part in (*parts[1:4], "", "", "")[:3])
    return category or _TISSUE, kind or _TISSUE, modifier


def _code(text: str) -> Code | None:
    try:
        scheme, value, meaning = text.split("^")
        return Code(scheme, value, meaning)
    except (ValueError, BundleError):  # none, or one that a person wrote
        return None

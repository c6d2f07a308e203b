"""How large each structure of each case is: rows for a CSV file and for a table of the scene."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from ..scene import Status
from ..scene.provenance import of_segment
from ..scene.tables import write_table
from .reviewing import Reviewing, SegmentRow

# What a spreadsheet takes for a formula, and may run, begins so, blanks apart; the last four are full-width forms.
# https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_STATUSES = {
    Status.NOT_STARTED: "not started",
    Status.IN_PROGRESS: "to review",
    Status.COMPLETED: "accepted",
    Status.FLAGGED: "flagged",
}
_UNITS = {"volume_ml": "mL"}
_TABLE = "volumes"


@dataclass(frozen=True)
class VolumeRow:
    """A structure of a case. The names of the fields are those of the columns.

    Attributes:
        case: what the image is called. structure: the segment's name.
        volume_ml: of its voxels, mL; a transform above the segmentation is not applied.
        status: how far a person is with it.
        model, model_version, date: what segmented it, and when, ISO 8601; empty for what a person drew.
    """

    case: str
    structure: str
    volume_ml: float
    status: str
    model: str = ""
    model_version: str = ""
    date: str = ""


COLUMNS = tuple(entry.name for entry in fields(VolumeRow))


def collect_rows(
    reviewing: Reviewing, segmentation_nodes: Iterable[Any], then: Callable[[dict[Any, list[VolumeRow]]], object]
) -> None:
    """Call `then` with the rows of each segmentation that is still in the scene: at once, or as soon as their voxels
    are counted, which for large ones is not done on the main thread."""
    nodes = list(segmentation_nodes)

    def look(*_: Any) -> None:
        found = {node: reviewing.rows(node) for node in nodes if node.GetScene() is not None}
        if any(row.volume_ml is None for rows in found.values() for row in rows):
            return
        reviewing.changed.disconnect(look)
        then({node: [_volume_row(node, row) for row in rows] for node, rows in found.items()})

    reviewing.changed.connect(look)
    look()


def write_csv(path: Path | str, rows: Sequence[VolumeRow]) -> None:
    """Write the rows, completely or not at all, as spreadsheets read them: UTF-8 with a mark, lines as in RFC 4180.

    Raises:
        OutputError: the file cannot be written.
    """
    from apformer.files import atomic_path

    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows([_cell(value) for value in astuple(row)] for row in rows)


def to_table(scene: Any, rows: Sequence[VolumeRow]) -> Any:
    """The rows in the scene's table node of volumes, which is made the first time and filled anew after that."""
    return write_table(scene, _TABLE, {name: [getattr(row, name) for row in rows] for name in COLUMNS}, _UNITS)


def _volume_row(node: Any, row: SegmentRow) -> VolumeRow:
    made_by = of_segment(node.GetSegmentation().GetSegment(row.segment_id))
    volume_node = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
    case = (node if volume_node is None else volume_node).GetName()
    assert row.volume_ml is not None  # counted
    told = ("", "", "") if made_by is None else (made_by.model, made_by.model_version, made_by.date)
    return VolumeRow(case, row.name, row.volume_ml, _STATUSES[row.status], *told)


def _cell(value: object) -> str:
    """Numbers as they are; a text that a spreadsheet would run behind an apostrophe."""
    if isinstance(value, float):
        return f"{value:.4f}"
    text = str(value)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text

"""The volumes of the structures of all images of a work list, wherever they are by now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .collecting import CaseRow, Collecting
from .reviewing import Reviewing
from .volume_rows import VolumeRow, collect_rows
from .work_item import WorkItem
from .worklist import WorkList


def collect_volumes(
    worklist: WorkList, reviewing: Reviewing, collecting: Collecting, then: Callable[[list[VolumeRow]], object]
) -> None:
    """Call `then` with rows in the order of the list: of images on the scene as they are now, of those that left it as
    they are in the data set, of results that nobody looked at yet as the worker told them.

    Raises:
        ConfigError: images were stored in a data set that is not there any more.
    """
    items = worklist.items
    cases = {row.name: row for row in collecting.rows()} if any(_is_away(item) for item in items) else {}
    shown = {item: item.segmentation_node for item in items}

    def counted(found: Mapping[Any, list[VolumeRow]]) -> None:
        rows: list[VolumeRow] = []
        for item in items:
            if shown[item] is not None:
                rows += found.get(shown[item], [])
            elif item.ahead is not None:
                rows += _rows_ahead(item)
            elif item.stored in cases:
                rows += _rows_stored(item, cases[item.stored])
        then(rows)

    collect_rows(reviewing, [node for node in shown.values() if node is not None], counted)


def _is_away(item: WorkItem) -> bool:
    return item.stored is not None and item.segmentation_node is None


def _rows_ahead(item: WorkItem) -> list[VolumeRow]:
    assert item.ahead is not None
    data = item.ahead.data
    made_by = data.get("provenance", {})
    told = [str(made_by.get(name, "")) for name in ("model", "model_version", "date")]
    return [VolumeRow(item.title, name, float(ml), item.status, *told) for name, ml in data["volumes_ml"].items()]


def _rows_stored(item: WorkItem, case: CaseRow) -> list[VolumeRow]:
    model, _, version = (case.proposed_by or "").rpartition(" ")
    return [
        VolumeRow(item.title, name, ml, item.status, model, version, case.date) for name, ml in case.volumes_ml.items()
    ]

"""On the page Review, the volumes of the segments as a table of the scene and as a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from ..workflow import VolumeRow, Workflow, collect_rows, to_table, write_csv
from .collaborators import Asks, Ui
from .hints import show_text

Rows = list[VolumeRow]


class VolumesExport:
    """Of the chosen segmentation; large segments are counted aside first."""

    def __init__(self, ui: Ui, workflow: Workflow, asks: Asks) -> None:
        self._ui, self._workflow, self._asks = ui, workflow, asks
        ui.volumesTableButton.connect("clicked(bool)", lambda *_: asks.attempt(self._to_table))
        ui.volumesCsvButton.connect("clicked(bool)", lambda *_: asks.attempt(self._to_csv))
        show_text(ui.volumesLabel, "")

    def _to_table(self) -> None:
        self._collect(lambda rows: show_text(self._ui.volumesLabel, fill_table(self._workflow.scene, rows)))

    def _to_csv(self) -> None:
        node = self._workflow.state.segmentation
        start = "volumes.csv" if node is None else f"{node.GetName()}.csv"
        path = self._asks.file_to_write(_("Volumes of the segments"), start, _("Table (*.csv)"))
        if path is not None:
            self._collect(lambda rows: show_text(self._ui.volumesLabel, save_csv(path, rows)))

    def _collect(self, then: Callable[[Rows], object]) -> None:
        node: Any = self._workflow.state.segmentation
        self._workflow.reviewing.rows(node)  # raises where there is nothing to measure
        show_text(self._ui.volumesLabel, _("Counting voxels..."))

        def counted(found: dict[Any, Rows]) -> None:
            self._asks.attempt(lambda: then([row for rows in found.values() for row in rows]))

        collect_rows(self._workflow.reviewing, [node], counted)


def fill_table(scene: Any, rows: Sequence[VolumeRow]) -> str:
    """Put the rows into the scene's table of volumes; what the user is told of it."""
    name = to_table(scene, rows).GetName()
    return _("{count} volumes are in the table {name} (module Tables).").format(count=len(rows), name=name)


def save_csv(path: Path, rows: Sequence[VolumeRow]) -> str:
    """Write the file; what the user is told of it.

    Raises:
        OutputError: it cannot be written.
    """
    path = path if path.suffix else path.with_suffix(".csv")
    write_csv(path, rows)
    return _("{count} volumes are in {file}.").format(count=len(rows), file=path.name)

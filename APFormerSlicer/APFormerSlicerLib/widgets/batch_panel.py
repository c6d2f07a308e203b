"""The page Segment, several volumes: those that are loaded, or the images of a folder."""

from __future__ import annotations

from typing import Any

import qt
from slicer.i18n import tr as _

from ..workflow import Batch, Workflow
from .collaborators import Asks, Install, Ui
from .hints import Hints, quietly, show_text
from .segment_panel import SegmentPanel


class BatchPanel:
    """Its batches are followed, and cancelled, by the segment panel."""

    def __init__(self, ui: Ui, workflow: Workflow, asks: Asks, install: Install, segment: SegmentPanel) -> None:
        self._ui, self._workflow, self._asks, self._install, self._segment = ui, workflow, asks, install, segment
        self._hints = Hints()
        self._checked: set[str] = set()  # node IDs
        ui.batchSection.connect("contentsCollapsed(bool)", self.refresh)
        ui.batchList.connect("itemChanged(QListWidgetItem*)", self._check)
        ui.batchButton.connect("clicked(bool)", lambda *_: asks.attempt(self._segment_checked))
        ui.folderButton.connect("clicked(bool)", lambda *_: asks.attempt(self._segment_folder))
        workflow.state.changed.connect(self.refresh)
        workflow.watch.loaded.connect(self.refresh)
        show_text(ui.batchLabel, "")

    def refresh(self, *_: Any) -> None:
        """List the volumes, while the list can be seen."""
        ui = self._ui
        if self._workflow.watch.is_closing or ui.batchSection.collapsed:
            return
        with quietly(ui.batchList):
            ui.batchList.clear()
            for node in self._workflow.volumes():
                item = qt.QListWidgetItem(node.GetName())
                item.setData(qt.Qt.UserRole, node.GetID())
                item.setCheckState(qt.Qt.Checked if node.GetID() in self._checked else qt.Qt.Unchecked)
                ui.batchList.addItem(item)
        self._show_buttons()

    def _show_buttons(self) -> None:
        if self._segment.running is not None:
            ready = (False, _("Wait until what is running is done, or cancel it."))
        elif not self._workflow.state.model:
            ready = (False, _("Choose a model first."))
        else:
            ready = (True, "")
        self._hints.allow(self._ui.folderButton, ready)
        if ready[0] and not self._nodes():
            ready = (False, _("Check one volume or more."))
        self._hints.allow(self._ui.batchButton, ready)

    def _nodes(self) -> list[Any]:
        return [node for node in self._workflow.volumes() if node.GetID() in self._checked]

    def _check(self, item: Any) -> None:
        node_id = str(item.data(qt.Qt.UserRole))
        if item.checkState() == qt.Qt.Checked:
            self._checked.add(node_id)
        else:
            self._checked.discard(node_id)
        self._show_buttons()

    def _segment_checked(self) -> None:
        if self._install.ensure():
            self._begin(self._workflow.batch(self._nodes()))

    def _segment_folder(self) -> None:
        source = self._asks.folder(_("Folder with the images"))
        output = None if source is None else self._asks.folder(_("Folder for the results"), str(source))
        if source is not None and output is not None and self._install.ensure():
            self._begin(self._workflow.folder(source, output))

    def _begin(self, batch: Batch) -> None:
        batch.changed.connect(self._show)
        self._segment.follow(batch)
        batch.start()

    def _show(self, batch: Batch) -> None:
        lines = [
            f"{item.title}: {item.reason or item.status or _('waiting')}"
            for item in batch.items
            if item.status != "done"
        ]
        show_text(self._ui.batchLabel, "\n".join([f"{batch.summary}.", *lines[:5]]))
        self._show_buttons()

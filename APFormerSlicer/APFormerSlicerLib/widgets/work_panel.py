"""On the page Segment, the work list: images that are segmented in the background, reviewed in turn, and stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from apformer.errors import APFormerError
from slicer.i18n import tr as _

from ..workflow import Run, VolumeRow, Workflow, WorkItem, collect_volumes
from ..workflow.runs import DONE, FAILED
from .collaborators import Asks, Install, Ui
from .hints import Hints, quietly, show_text
from .segment_panel import SegmentPanel
from .tables import fill, selected, stretch
from .volumes_export import fill_table, save_csv

ORDERS = ("given", "unsure")
SOON_MS = 100  # a job tells of its progress many times a second
TITLE, STATUS, DOUBT = range(3)


class WorkPanel:
    """Shows the list while it can be seen, and goes on with it: from there, and from the page Review."""

    def __init__(self, ui: Ui, workflow: Workflow, asks: Asks, install: Install, segment: SegmentPanel) -> None:
        self._ui, self._workflow, self._asks, self._install, self._segment = ui, workflow, asks, install, segment
        self._list, self._hints = workflow.worklist, Hints()
        self._note = ""  # what is to be known of what happened last
        self._told: set[WorkItem] = set()  # items that failed while they were opened, and the user knows it
        self._patient_of: WorkItem | None = None  # whose patient the field is about
        self._due = False  # whether the list will be shown anew
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(SOON_MS)
        self._timer.connect("timeout()", self.refresh)
        for title in (_("in this order"), _("most unsure first")):
            ui.workOrderComboBox.addItem(title)
        stretch(ui.workTable, TITLE)
        self._connect()
        self._fold(ui.workSection.collapsed)
        self.refresh()

    def _connect(self) -> None:
        ui, asks = self._ui, self._asks
        ui.workSection.connect("contentsCollapsed(bool)", self._fold)
        ui.workOrderComboBox.connect("activated(int)", self._choose_order)
        ui.workTable.connect("cellDoubleClicked(int,int)", lambda row, _column: asks.attempt(lambda: self._open(row)))
        ui.workTable.connect("itemSelectionChanged()", self._show_buttons)
        ui.workPatientEdit.connect("textChanged(QString)", lambda *_: self._show_store())
        for button, action in (
            (ui.workAddButton, self._add_loaded),
            (ui.workFolderButton, self._add_folder),
            (ui.workSegmentButton, self._segment_all),
            (ui.workNextButton, self._next),
            (ui.workRemoveButton, self._remove),
            (ui.workStoreButton, self._store),
            (ui.storeNextButton, self._store),
            (ui.workVolumesButton, self._save_volumes),
            (ui.folderButton, self._segment_to_files),
        ):
            button.connect("clicked(bool)", lambda *_, action=action: asks.attempt(action))
        self._list.changed.connect(self._soon)
        self._list.opened.connect(self._opened)
        self._workflow.state.changed.connect(self._soon)
        self._workflow.collecting.changed.connect(self._soon)

    # ---------------------------------------------------------------- showing

    def refresh(self, *_unused: Any) -> None:
        """Show the list as it is now."""
        self._due = False
        if self._workflow.watch.is_closing:
            return
        ui, items = self._ui, self._list.items
        with quietly(ui.workOrderComboBox):
            ui.workOrderComboBox.setCurrentIndex(int(self._workflow.state.order == ORDERS[1]))
        if not ui.workSection.collapsed:
            texts = [(item.title, self._status(item), _doubt(item)) for item in items]
            tips = [item.reason or item.title for item in items]
            fill(ui.workTable, [str(item.place) for item in items], texts, tips)
        summary = f"{self._list.summary}." if items else _("Add loaded volumes, or a folder of images.")
        show_text(ui.workLabel, "\n".join(filter(None, [summary, self._note])))
        self._show_patient()
        self._show_buttons()

    def _status(self, item: WorkItem) -> str:
        """With a mark at the one that is chosen."""
        text = _("opening") if item is self._list.opening else _STATUSES[item.status]()
        return f"> {text}" if item is self._list.current else text

    def _show_buttons(self) -> None:
        ui, items = self._ui, self._list.items
        if self._workflow.watch.is_closing:
            return
        busy, model = self._list.busy, bool(self._workflow.state.model)
        ui.workSegmentButton.setText(_("Cancel") if busy else _("Segment all"))
        waits = any(item.status in ("waiting", "failed") for item in items)
        no_model, nothing = (False, _("Choose a model first.")), _("No image of the list waits to be segmented.")
        self._hints.allow(ui.workSegmentButton, (True, "") if busy else (waits, nothing) if model else no_model)
        ready = busy or any(item.status == "to review" and item is not self._list.current for item in items)
        self._hints.allow(ui.workNextButton, (ready, _("No other image of the list is ready for review.")))
        self._hints.allow(ui.workAddButton, (bool(self._addable()), _("All loaded volumes are on the list.")))
        self._hints.allow(ui.workRemoveButton, (bool(selected(ui.workTable)), _("Select an image of the list first.")))
        self._hints.allow(ui.workVolumesButton, (bool(items), _("The list is empty.")))
        running = self._segment.running is not None
        wait = (False, _("Wait until what is running is done, or cancel it."))
        self._hints.allow(ui.folderButton, no_model if not model else wait if running else (True, ""))
        self._show_store()

    def _show_store(self) -> None:
        ui = self._ui
        if self._install.missing():  # what reads the data set comes with the rest
            checked = (False, _("The packages that are needed are not installed yet. The first Segment does that."))
        else:
            checked = self._list.check(ui.workPatientEdit.text)
        ui.storeNextButton.setVisible(self._list.current is not None)
        for button in (ui.workStoreButton, ui.storeNextButton):
            self._hints.allow(button, checked)

    def _show_patient(self) -> None:
        """The ID of one patient must not go with another's image."""
        edit, item = self._ui.workPatientEdit, self._list.current
        if item is not self._patient_of:
            self._patient_of = item
            with quietly(edit):
                edit.clear()
        edit.setPlaceholderText((item.patient if item is not None else None) or _("as in DICOM"))

    def _fold(self, collapsed: bool) -> None:
        """The list takes the room of what is about one volume."""
        self._ui.oneVolumeContents.setVisible(collapsed)
        self.refresh()

    def _soon(self, *_unused: Any) -> None:
        if not self._due and not self._workflow.watch.is_closing:  # not anew: it is told of again and again
            self._due = True
            self._timer.start()

    # ---------------------------------------------------------------- the list

    def _addable(self) -> list[Any]:
        listed = [item.volume_node for item in self._list.items]
        return [node for node in self._workflow.volumes() if node not in listed]

    def _add_loaded(self) -> None:
        self._list.add(self._addable())

    def _add_folder(self) -> None:
        folder = self._asks.folder(_("Folder with the images"))
        if folder is not None and self._install.ensure():
            self._say(_("Looking through {folder}...").format(folder=folder.name))
            self._list.add_folder(folder, self._added)

    def _added(self, note: str, error: APFormerError | None) -> None:
        self._say(f"{note}." if note else "")
        if error is not None:
            self._asks.error(error)

    def _remove(self) -> None:
        chosen = set(selected(self._ui.workTable))
        for item in self._list.items:
            if str(item.place) in chosen:
                self._list.remove(item)

    def _choose_order(self, row: int) -> None:
        self._workflow.state.order = ORDERS[max(0, row)]

    def _segment_all(self) -> None:
        if self._list.busy:
            self._list.cancel()
        elif self._install.ensure():
            self._list.segment_all()

    def _save_volumes(self) -> None:
        path = self._asks.file_to_write(_("Volumes of the work list"), "volumes.csv", _("Table (*.csv)"))
        if path is None:
            return
        workflow, attempt = self._workflow, self._asks.attempt

        def counted(rows: list[VolumeRow]) -> None:
            attempt(lambda: self._say(" ".join([save_csv(path, rows), fill_table(workflow.scene, rows)])))

        collect_volumes(self._list, workflow.reviewing, workflow.collecting, counted)

    def _segment_to_files(self) -> None:
        source = self._asks.folder(_("Folder with the images"))
        output = None if source is None else self._asks.folder(_("Folder for the results"), str(source))
        if source is not None and output is not None and self._install.ensure():
            batch = self._workflow.folder(Path(source), Path(output))
            self._segment.follow(batch)
            batch.start()

    def _say(self, note: str) -> None:
        self._note = note
        self.refresh()

    # ---------------------------------------------------------------- one after the other

    def _open(self, row: int) -> None:
        key = self._ui.workTable.item(row, TITLE).data(qt.Qt.UserRole)
        for item in self._list.items:
            if str(item.place) == str(key):
                self._list.open(item)

    def _next(self) -> None:
        if self._list.next() is None and self._list.busy:
            self._say(_("The next image opens as soon as it is segmented."))

    def _opened(self, item: WorkItem) -> None:
        """Where it is reviewed: in all slice views, and on the page Review if it has a result."""
        self._note = ""
        slicer.util.setSliceViewerLayers(background=item.volume_node, fit=True)
        if item.segmentation_node is not None:
            self._ui.pages.setCurrentWidget(self._ui.reviewPage)

    def _store(self, correct: bool = False) -> None:
        patient = self._ui.workPatientEdit.text
        run = self._list.accept_store_next(patient, correct=correct)
        if run.over:
            self._stored(run)
        else:
            self._say(_("{title}...").format(title=run.title))
            run.ended.connect(self._stored)

    def _stored(self, run: Run) -> None:
        if self._workflow.watch.is_closing:
            return
        if run.status == FAILED and run.error is not None:
            self._say("")
            self._asks.error(run.error)
        elif run.status != DONE:
            self._say(_("Cancelled; the case is accepted, and not stored."))
        elif run.outcome.known:
            self._ask_to_replace(run.outcome.case.name)
        else:
            line = _("{case} is in the data set.").format(case=run.outcome.case.name)
            self._say(" ".join([line, *run.outcome.notes]))

    def _ask_to_replace(self, case: str) -> None:
        self._say("")
        what = _("This image is in the data set already: {case}.").format(case=case)
        meaning = _("Its labels can be replaced; the earlier ones are kept.")
        if self._asks.confirm(what, meaning, _("Replace")):
            self._asks.attempt(lambda: self._store(correct=True))

    def close(self) -> None:
        self._timer.stop()
        self._list.changed.disconnect(self._soon)
        self._list.opened.disconnect(self._opened)


_STATUSES = {
    "waiting": lambda: _("waiting"),
    "segmenting": lambda: _("segmenting"),
    "to review": lambda: _("to review"),
    "accepted": lambda: _("accepted"),
    "flagged": lambda: _("flagged"),
    "stored": lambda: _("stored"),
    "failed": lambda: _("failed"),
}


def _doubt(item: WorkItem) -> str:
    """ "23 %" of what was found or doubted; nothing where it is not known."""
    return "" if item.doubt is None else f"{round(100 * item.doubt)} %"

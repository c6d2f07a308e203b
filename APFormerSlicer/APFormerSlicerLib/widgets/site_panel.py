"""The page Cases: the site's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from apformer.errors import APFormerError
from slicer.i18n import tr as _

from ..workflow import NOT_OUTLINED, NOT_THERE, OTHERS, Added, CaseRow, Run, Workflow, sentence
from ..workflow.runs import DONE, FAILED
from ..workflow.thumbnails import SIDE, thumbnail
from .collaborators import Asks, Install, Ui
from .hints import Hints, quietly, show_text
from .pages import is_open, when_turned
from .pictures import from_array
from .tables import fill, selected, stretch

STATUSES = ("in progress", "completed", "flagged")  # as in apformer.datasets, which is loaded when it is used
MOST_PROBLEMS = 8  # that are shown
MOST_LABELS = 3  # that stand beside a case's picture


class SitePanel:
    """The data set whose folder the state names."""

    def __init__(self, ui: Ui, workflow: Workflow, asks: Asks, install: Install) -> None:
        self._ui, self._workflow, self._asks, self._install = ui, workflow, asks, install
        self._hints = Hints()
        self._volume: Any = None  # whose patient was typed in
        self._asked: tuple[Any, ...] = ()  # the volume and the structures without a segment that are asked about
        self._checking: Run | None = None
        self._pictures: dict[Any, Any] = {}  # (folder, case, date) -> QIcon, or None where there is none
        self._missing: list[Any] = []  # cases whose pictures are still to be made
        self._making = False  # whether one is
        self._timer = qt.QTimer()  # one picture each time the program has nothing else to do
        self._timer.setSingleShot(True)
        self._timer.connect("timeout()", self._make_picture)
        ui.caseStatusComboBox.addItem(_("Mark as..."), "")
        for status, title in zip(STATUSES, (_("in progress"), _("completed"), _("flagged")), strict=True):
            ui.caseStatusComboBox.addItem(title, status)
        for others, title in ((NOT_THERE, _("are not there")), (NOT_OUTLINED, _("were not outlined"))):
            ui.othersComboBox.addItem(title, others)
        stretch(ui.casesTable, 3)
        ui.casesTable.setIconSize(qt.QSize(SIDE, SIDE))
        when_turned(ui, self.refresh)
        ui.openSiteButton.connect("clicked(bool)", lambda *_: asks.attempt(self._open_site))
        ui.newSiteButton.connect("clicked(bool)", lambda *_: asks.attempt(self._new_site))
        ui.whoEdit.connect("editingFinished()", self._name_person)
        ui.patientEdit.connect("textChanged(QString)", lambda *_: self._show_add())
        ui.addCaseButton.connect("clicked(bool)", lambda *_: asks.attempt(self._add))
        ui.openCaseButton.connect("clicked(bool)", lambda *_: asks.attempt(self._edit))
        ui.casesTable.connect("cellDoubleClicked(int,int)", lambda *_: asks.attempt(self._edit))
        ui.casesTable.connect("itemSelectionChanged()", self._show_case_buttons)
        ui.caseStatusComboBox.connect("activated(int)", self._mark)
        ui.checkSiteButton.connect("clicked(bool)", lambda *_: asks.attempt(self._check))
        workflow.state.changed.connect(self.refresh)
        workflow.reviewing.changed.connect(lambda _node: self._show_add())
        workflow.collecting.changed.connect(self._changed)
        show_text(ui.siteReportLabel, "")
        self.refresh()

    # ---------------------------------------------------------------- showing

    def refresh(self, *_: Any) -> None:
        if self._workflow.watch.is_closing:
            return
        state, ui = self._workflow.state, self._ui
        if state.volume is not self._volume:  # the ID of one patient must not go with another's image
            self._volume = state.volume
            ui.patientEdit.clear()
        ui.siteFolderEdit.setText(state.site or "")
        with quietly(ui.whoEdit):
            if not ui.whoEdit.hasFocus():
                ui.whoEdit.setText(state.who)
        if is_open(ui, ui.casesPage):
            self._show_cases()

    def _show_cases(self) -> None:
        ui, collecting = self._ui, self._workflow.collecting
        if self._install.missing():
            self._refuse(_("The packages that read images are not installed yet. The first Segment does that."))
            return
        try:
            rows = collecting.rows()
        except APFormerError as error:
            self._refuse(sentence(error))
            return
        texts = []
        for row in rows:
            texts.append(("", f"{row.name}\n{row.date[:10]}", row.status, _labels(row)))
        tips = ["\n".join(filter(None, _told(row))) for row in rows]
        fill(ui.casesTable, [row.name for row in rows], texts, tips)
        self._show_pictures()
        ui.casesTable.resizeRowsToContents()
        wait = (False, _("The data set is being checked."))
        self._hints.allow(ui.checkSiteButton, wait if self._checking else (bool(rows), _("There is no case yet.")))
        self._hints.allow(ui.newSiteButton, self._can_create())
        self._show_case_buttons()
        self._show_add()

    def _refuse(self, reason: str) -> None:
        ui = self._ui
        fill(ui.casesTable, [], [])
        for widget in (ui.checkSiteButton, ui.openCaseButton, ui.caseStatusComboBox, ui.addCaseButton):
            self._hints.allow(widget, (False, reason))
        self._hints.allow(ui.newSiteButton, self._can_create())
        show_text(ui.siteLabel, reason)

    def _can_create(self) -> tuple[bool, str]:
        why = _("Choose a model first: the data set begins with its labels.")
        return bool(self._workflow.state.model), why

    def _show_case_buttons(self, *_unused: Any) -> None:
        checked = (bool(selected(self._ui.casesTable)), _("Select a case first."))
        self._hints.allow(self._ui.openCaseButton, checked)
        self._hints.allow(self._ui.caseStatusComboBox, checked)

    def _show_add(self) -> None:
        if self._workflow.watch.is_closing or self._install.missing() or not is_open(self._ui, self._ui.casesPage):
            return
        state = self._workflow.state
        if self._workflow.collecting.storing is not None:
            checked = (False, _("A case is being stored. Wait a moment."))
        else:
            checked = self._workflow.collecting.check(state.volume, state.segmentation, self._ui.patientEdit.text)
        self._hints.allow(self._ui.addCaseButton, checked)
        self._ask_of_others(checked)
        show_text(self._ui.siteLabel, checked[1])

    def _ask_of_others(self, checked: tuple[bool, str]) -> None:
        """What structures without a segment are, where there are any; the answer stays until the image changes."""
        ui, state, collecting = self._ui, self._workflow.state, self._workflow.collecting
        lacking = collecting.lacking(state.volume, state.segmentation) if checked[0] else []
        for widget in (ui.othersTitle, ui.othersComboBox):
            widget.setVisible(bool(lacking))
        if not lacking:
            self._asked = ()
        elif self._asked != (state.volume, *lacking):
            self._asked = (state.volume, *lacking)
            names = ", ".join(lacking)
            for row, title in enumerate((_("not there: {names}"), _("not outlined: {names}"))):
                ui.othersComboBox.setItemText(row, title.format(names=names))
            ui.othersComboBox.setCurrentIndex(OTHERS.index(collecting.others(state.volume)))

    def _changed(self) -> None:
        show_text(self._ui.siteReportLabel, "")
        self.refresh()

    # ---------------------------------------------------------------- pictures of cases

    def _show_pictures(self) -> None:
        dataset = self._workflow.collecting.dataset
        self._missing = []
        for number, case in enumerate(dataset.cases()):
            key = _picture_key(case)
            if key not in self._pictures:
                self._missing.append(case)
            icon = self._pictures.get(key)
            self._ui.casesTable.item(number, 0).setIcon(icon if icon is not None else qt.QIcon())
        if self._missing:
            self._timer.start(0)

    def _make_picture(self) -> None:
        if not self._missing or self._making or self._workflow.watch.is_closing:
            return
        self._making = True
        case, labels = self._missing.pop(0), self._workflow.collecting.dataset.labels
        self._workflow.aside(lambda: thumbnail(case, labels), lambda array, _error: self._show_picture(case, array))

    def _show_picture(self, case: Any, array: Any) -> None:
        """None for one that cannot be read: Check says what is wrong with it."""
        self._making = False
        if self._workflow.watch.is_closing:
            return
        icon = None if array is None else qt.QIcon(from_array(array))
        self._pictures[_picture_key(case)] = icon
        for row in range(self._ui.casesTable.rowCount):
            item = self._ui.casesTable.item(row, 0)
            if icon is not None and str(item.data(qt.Qt.UserRole)) == case.name:
                item.setIcon(icon)
        self._ui.casesTable.resizeRowsToContents()
        if self._missing:
            self._timer.start(0)

    # ---------------------------------------------------------------- acting

    def _open_site(self) -> None:
        folder = self._asks.folder(_("Folder of the data set"), self._workflow.state.site)
        if folder is not None and self._install.ensure():
            self._workflow.collecting.choose(folder)

    def _new_site(self) -> None:
        folder = self._asks.folder(_("Empty folder for the data set"), self._workflow.state.site)
        if folder is not None and self._install.ensure():
            card = self._workflow.models.find(self._workflow.state.model)
            self._workflow.collecting.create_aside(folder, card, self._written)

    def _name_person(self) -> None:
        self._workflow.state.who = self._ui.whoEdit.text.strip()

    def _add(self) -> None:
        state = self._workflow.state
        self._store(state.volume, state.segmentation, self._ui.patientEdit.text)

    def _store(self, volume: Any, segmentation: Any, patient: str, correct: bool = False) -> None:
        others = str(self._ui.othersComboBox.itemData(self._ui.othersComboBox.currentIndex)) if self._asked else None
        run = self._workflow.collecting.add(volume, segmentation, patient=patient, correct=correct, others=others)
        run.changed.connect(self._show_storing)
        run.ended.connect(lambda run: self._end_storing(run, volume, segmentation, patient))
        if run.over:
            self._end_storing(run, volume, segmentation, patient)
        else:
            self._show_storing(run)
            self._show_add()

    def _show_storing(self, run: Run) -> None:
        if not run.over:
            text = f"{run.message or _('starting')}, {round(100 * run.fraction)} %"
            show_text(self._ui.siteReportLabel, text)

    def _end_storing(self, run: Run, volume: Any, segmentation: Any, patient: str) -> None:
        self._show_add()
        if run.status == FAILED and run.error is not None:
            show_text(self._ui.siteReportLabel, "")
            self._asks.error(run.error)
        if run.status != DONE:
            return
        added = run.outcome
        if not added.known:
            show_text(self._ui.siteReportLabel, _added(added))
            return
        show_text(self._ui.siteReportLabel, "")
        what = _("This image is in the data set already: {case}.").format(case=added.case.name)
        meaning = _("Its labels can be replaced; the earlier ones are kept.")
        if self._asks.confirm(what, meaning, _("Replace")):
            self._asks.attempt(lambda: self._store(volume, segmentation, patient, correct=True))

    def _edit(self) -> None:
        for name in selected(self._ui.casesTable)[:1]:
            show_text(self._ui.siteReportLabel, _("Opening {case}...").format(case=name))
            try:
                self._workflow.collecting.open_aside(name, self._opened)
            except APFormerError:
                show_text(self._ui.siteReportLabel, "")
                raise

    def _opened(self, nodes: tuple[Any, Any] | None, error: BaseException | None) -> None:
        if self._workflow.watch.is_closing or (nodes is None and error is None):
            return
        show_text(self._ui.siteReportLabel, "")
        self._written(error)
        if nodes is not None:
            slicer.util.setSliceViewerLayers(background=nodes[0], fit=True)

    def _written(self, error: BaseException | None) -> None:
        """What was done aside is over."""
        if isinstance(error, APFormerError):
            self._asks.error(error)
        elif error is not None:
            raise error

    def _mark(self, row: int) -> None:
        status = str(self._ui.caseStatusComboBox.itemData(row))
        self._ui.caseStatusComboBox.setCurrentIndex(0)
        chosen = selected(self._ui.casesTable)
        if status and chosen:
            collecting = self._workflow.collecting
            self._asks.attempt(lambda: collecting.set_status_aside(chosen[0], status, self._written))

    def _check(self) -> None:
        if not self._install.ensure():
            return
        run = self._checking = self._workflow.check_site()
        run.changed.connect(self._show_check)
        run.ended.connect(self._end_check)
        if run.over:
            self._end_check(run)
        self._show_cases()

    def _show_check(self, run: Run) -> None:
        if run is self._checking and not run.over:
            show_text(self._ui.siteReportLabel, run.message or _("starting"))

    def _end_check(self, run: Run) -> None:
        if run is not self._checking:
            return
        self._checking = None
        self.refresh()
        if run.status == DONE:
            self._tell_problems(run.outcome)
        else:
            show_text(self._ui.siteReportLabel, "")
        if run.status == FAILED and run.error is not None:
            self._asks.error(run.error)

    def _tell_problems(self, lines: list[str]) -> None:
        if len(lines) > MOST_PROBLEMS:
            lines = [*lines[:MOST_PROBLEMS], _("and {count} more").format(count=len(lines) - MOST_PROBLEMS)]
        show_text(self._ui.siteReportLabel, "\n".join(lines) or _("Nothing is wrong with the data set."))

    def close(self) -> None:
        self._timer.stop()
        self._missing = []
        run, self._checking = self._checking, None
        if run is not None:
            run.cancel()


def _picture_key(case: Any) -> tuple[Path, str, int]:
    return case.root, case.name, case.current


def _volumes(row: CaseRow) -> list[str]:
    """A line for each label."""
    return [f"{ml:.1f} mL {label}" for label, ml in row.volumes_ml.items()]


def _unknown(row: CaseRow) -> str:
    return _("not outlined: {names}").format(names=", ".join(row.unknown)) if row.unknown else ""


def _told(row: CaseRow) -> list[str]:
    """All that is known of a case, a line each; some are empty."""
    return [row.comment, f"({row.proposed_by})" if row.proposed_by else "", *_volumes(row), _unknown(row)]


def _labels(row: CaseRow) -> str:
    """What stands beside the picture: `MOST_LABELS` lines at most."""
    unknown = _unknown(row)
    lines = _volumes(row)[: MOST_LABELS - bool(unknown)]
    return "\n".join([*lines, *([unknown] if unknown else [])])


def _added(added: Added) -> str:
    line = _("{case} is in the data set, {status}.").format(case=added.case.name, status=added.case.status)
    return " ".join([line, *added.notes])

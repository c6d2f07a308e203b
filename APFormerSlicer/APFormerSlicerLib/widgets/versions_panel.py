"""Step 5, versions of the chosen model: which is active, back to the earlier one, out to a colleague and in again."""

from __future__ import annotations

from typing import Any

from apformer.errors import BundleError
from slicer.i18n import tr as _

from ..workflow import VersionRow, Workflow
from .collaborators import Asks, Install, Ui
from .hints import Hints, show_text
from .tables import fill, selected, stretch


class VersionsPanel:
    """Of the model that the state names."""

    def __init__(self, ui: Ui, workflow: Workflow, asks: Asks, install: Install) -> None:
        self._ui, self._workflow, self._asks, self._install = ui, workflow, asks, install
        self._hints = Hints()
        stretch(ui.versionsTable, 2)
        ui.activateButton.connect("clicked(bool)", lambda *_: asks.attempt(self._activate))
        ui.rollBackButton.connect("clicked(bool)", lambda *_: asks.attempt(self._roll_back))
        ui.exportButton.connect("clicked(bool)", lambda *_: asks.attempt(self._export))
        ui.importButton.connect("clicked(bool)", lambda *_: asks.attempt(self._import))
        ui.versionsTable.connect("itemSelectionChanged()", self._show_buttons)
        ui.versionsSection.connect("contentsCollapsed(bool)", self.refresh)
        workflow.state.changed.connect(self.refresh)
        workflow.versions.changed.connect(lambda _name: self.refresh())
        show_text(ui.versionsLabel, "")
        self.refresh()

    @property
    def _name(self) -> str:
        return self._workflow.state.model.partition("@")[0]

    def refresh(self, *_unused: Any) -> None:
        if self._workflow.watch.is_closing or self._ui.versionsSection.collapsed:
            return
        rows = self._workflow.versions.rows(self._name) if self._name else []
        fill(self._ui.versionsTable, [row.card.reference for row in rows], [_texts(row) for row in rows])
        self._show_buttons()

    def _show_buttons(self, *_unused: Any) -> None:
        ui, chosen = self._ui, selected(self._ui.versionsTable)
        rows = self._workflow.versions.rows(self._name) if self._name else []
        active = [row.card.reference for row in rows if row.active]
        choose = (False, _("Select a version first."))
        is_active = (False, _("It is the active version already."))
        self._hints.allow(ui.activateButton, choose if not chosen else is_active if chosen == active else (True, ""))
        self._hints.allow(ui.exportButton, (True, "") if chosen else choose)
        back = self._workflow.versions.can_roll_back(self._name) if self._name else (False, _("Choose a model first."))
        self._hints.allow(ui.rollBackButton, back)

    def _activate(self) -> None:
        for reference in selected(self._ui.versionsTable)[:1]:
            if self._install.ensure():
                with self._asks.busy():
                    self._workflow.versions.adopt(reference, "chosen from the list of versions")

    def _roll_back(self) -> None:
        if self._install.ensure():
            with self._asks.busy():
                bundle = self._workflow.versions.roll_back(self._name, "rolled back by the user")
            show_text(self._ui.versionsLabel, _("{model} is active again.").format(model=bundle.name))

    def _export(self) -> None:
        for reference in selected(self._ui.versionsTable)[:1]:
            start = reference.replace("@", "-") + ".zip"
            path = self._asks.file_to_write(_("Export the model to"), start, _("Models (*.zip)"))
            if path is not None and self._install.ensure():
                with self._asks.busy():
                    written = self._workflow.versions.export(reference, path)
                show_text(self._ui.versionsLabel, _("Written to {path}.").format(path=written))

    def _import(self) -> None:
        path = self._asks.file_to_open(_("Import a model from"), _("Models (*.zip)"))
        if path is None or not self._install.ensure():
            return
        try:
            with self._asks.busy():
                bundle = self._workflow.versions.import_zip(path)
        except BundleError as error:
            question = _("If a model of that name is there already, it can be replaced.")
            if not self._asks.confirm(error.what, question, _("Replace")):
                return
            with self._asks.busy():
                bundle = self._workflow.versions.import_zip(path, replace=True)
        show_text(self._ui.versionsLabel, _("{model} is installed.").format(model=bundle.name))


def _texts(row: VersionRow) -> tuple[str, str, str, str, str]:
    origins = {"bundled": _("with the program"), "imported": _("imported"), "trained": _("our own")}
    dice = row.card.mean_dice
    return (
        row.card.version or row.card.reference,
        origins.get(row.card.origin, row.card.origin),
        (row.date or "")[:10],
        "" if dice is None else f"{dice:.3f}",
        _("active") if row.active else (row.card.problem or ""),
    )

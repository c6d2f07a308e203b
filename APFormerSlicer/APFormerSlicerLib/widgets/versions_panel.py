"""The page Models: which version of the chosen one is active, back to the earlier, out to a colleague and in again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from ..workflow import Changed, Run, VersionRow, Workflow
from .changing import Changing
from .collaborators import Asks, Ui
from .hints import Hints, show_text
from .pages import is_open, when_turned
from .tables import fill, selected, stretch


class VersionsPanel:
    """Of the model that the state names."""

    def __init__(self, ui: Ui, workflow: Workflow, asks: Asks, changing: Changing) -> None:
        self._ui, self._workflow, self._asks, self._changing = ui, workflow, asks, changing
        self._hints = Hints()
        stretch(ui.versionsTable, 2)
        ui.activateButton.connect("clicked(bool)", lambda *_: asks.attempt(self._activate))
        ui.rollBackButton.connect("clicked(bool)", lambda *_: asks.attempt(self._roll_back))
        ui.exportButton.connect("clicked(bool)", lambda *_: asks.attempt(self._export))
        ui.importButton.connect("clicked(bool)", lambda *_: asks.attempt(self._import))
        ui.versionsTable.connect("itemSelectionChanged()", self._show_buttons)
        when_turned(ui, self.refresh)
        workflow.state.changed.connect(self.refresh)
        workflow.versions.changed.connect(lambda _name: self.refresh())
        changing.changed.connect(self._show_buttons)
        show_text(ui.versionsLabel, "")
        self.refresh()

    @property
    def _name(self) -> str:
        return self._workflow.state.model.partition("@")[0]

    def refresh(self, *_unused: Any) -> None:
        if self._workflow.watch.is_closing or not is_open(self._ui, self._ui.modelsPage):
            return
        rows = self._workflow.versions.rows(self._name) if self._name else []
        title = _("Versions of {model}:").format(model=self._name) if self._name else ""
        show_text(self._ui.versionsTitle, title)
        fill(self._ui.versionsTable, [row.card.reference for row in rows], [_texts(row) for row in rows])
        self._show_buttons()

    def _show_buttons(self, *_unused: Any) -> None:
        ui, chosen = self._ui, selected(self._ui.versionsTable)
        rows = self._workflow.versions.rows(self._name) if self._name else []
        active = [row.card.reference for row in rows if row.active]
        choose = (False, _("Select a version first."))
        is_active = (False, _("It is the active version already."))
        activate = choose if not chosen else is_active if chosen == active else (True, "")
        back = self._workflow.versions.can_roll_back(self._name) if self._name else (False, _("Choose a model first."))
        free = self._changing.check()
        for button, checked in (
            (ui.activateButton, activate),
            (ui.exportButton, (True, "") if chosen else choose),
            (ui.rollBackButton, back),
            (ui.importButton, (True, "")),
        ):
            self._hints.allow(button, checked if free[0] else free)

    def _activate(self) -> None:
        change = partial(self._workflow.changes.adopt, self._chosen(), "chosen from the list of versions")
        self._begin(change, self._active)

    def _roll_back(self) -> None:
        self._begin(partial(self._workflow.changes.roll_back, self._name, "rolled back by the user"), self._active)

    def _export(self) -> None:
        reference = self._chosen()
        start = reference.replace("@", "-") + ".zip"
        path = self._asks.file_to_write(_("Export the model to"), start, _("Models (*.zip)"))
        if path is not None:
            self._begin(
                partial(self._workflow.changes.export, reference, path),
                lambda changed: self._tell(_("Written to {path}.").format(path=changed.path)),
            )

    def _import(self) -> None:
        path = self._asks.file_to_open(_("Import a model from"), _("Models (*.zip)"))
        if path is not None:
            self._begin(partial(self._workflow.changes.import_zip, path), partial(self._imported, path))

    def _imported(self, path: Path, changed: Changed) -> None:
        if not changed.present:
            self._tell(_("{model} is installed.").format(model=f"{changed.name} {changed.version}"))
            return
        what = _("A model named {model} is installed already.").format(model=changed.name)
        meaning = _("It can be replaced by the one in the file; versions that were trained here are kept.")
        if self._asks.confirm(what, meaning, _("Replace")):
            again = partial(self._workflow.changes.import_zip, path, replace=True)
            self._begin(again, partial(self._imported, path))

    def _chosen(self) -> str:
        """The version that is selected; the buttons that need one are disabled without it."""
        return selected(self._ui.versionsTable)[0]

    def _active(self, changed: Changed) -> None:
        self._tell(_("{model} is active now.").format(model=f"{changed.name} {changed.version}"))

    def _begin(self, start: Callable[[], Run], done: Callable[[Changed], None]) -> None:
        self._tell("")
        self._changing.begin(start, done)

    def _tell(self, text: str) -> None:
        show_text(self._ui.versionsLabel, text)


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

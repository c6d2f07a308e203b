"""The few questions that the panel asks, and the one way in which it tells of an error."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from apformer.errors import APFormerError
from apformer.jobs.exits import explain_error
from slicer.i18n import tr as _

LONGEST_LOG = 200_000  # characters of a log that are shown, its end


class Dialogs:
    """Windows over the panel `parent`; each waits for the user."""

    def __init__(self, parent: Any) -> None:
        self._parent = parent

    def attempt(self, action: Callable[[], object]) -> bool:
        """Do it; what goes wrong is shown. Whether all went well."""
        try:
            action()
        except APFormerError as error:
            self.error(error)
        except Exception as error:  # noqa: BLE001  a fault of ours must not look as if nothing had happened
            traceback.print_exc()  # Slicer's Python console and log
            self.error(explain_error(error, None))
        else:
            return True
        return False

    def error(self, error: APFormerError) -> None:
        """What happened, what it means, what to do; and the log, where there is one.

        With `Slicer --testing` nobody is there to close a window: then it goes to Slicer's log, as slicer.util's do.
        """
        if slicer.app.testingEnabled():
            logging.error("%s %s %s", error.what, error.meaning, error.remedy)
            return
        box = self._box(qt.QMessageBox.Warning, error.what)
        box.setInformativeText("\n\n".join(filter(None, (error.meaning, error.remedy))))
        log = getattr(error, "log", None)
        show_log = box.addButton(_("Show log"), qt.QMessageBox.ActionRole) if log else None
        box.addButton(qt.QMessageBox.Ok)
        box.setDefaultButton(qt.QMessageBox.Ok)
        box.exec_()
        if show_log is not None and box.clickedButton() == show_log:
            self.log(Path(str(log)))

    def log(self, path: Path) -> None:
        """The end of a log file, as text that can be copied."""
        try:
            text = path.read_text(encoding="utf-8", errors="replace")[-LONGEST_LOG:]
        except OSError as error:
            text = _("The log {path} could not be read: {reason}").format(path=path, reason=error.strerror or error)
        window = qt.QDialog(self._parent)
        window.setWindowTitle(str(path.name))
        window.resize(900, 600)
        layout = qt.QVBoxLayout(window)
        view = qt.QPlainTextEdit()
        view.setReadOnly(True)
        view.setPlainText(text)
        layout.addWidget(view)
        place = qt.QLabel(str(path))
        place.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
        layout.addWidget(place)
        window.exec_()

    def confirm(self, what: str, meaning: str, yes: str) -> bool:
        """A question whose safe answer, Cancel, is the default; with `Slicer --testing` it is what is answered."""
        if slicer.app.testingEnabled():
            logging.warning("%s %s Not agreed to.", what, meaning)
            return False
        box = self._box(qt.QMessageBox.Question, what)
        box.setInformativeText(meaning)
        agreed = box.addButton(yes, qt.QMessageBox.AcceptRole)
        box.addButton(qt.QMessageBox.Cancel)
        box.setDefaultButton(qt.QMessageBox.Cancel)
        box.exec_()
        return bool(box.clickedButton() == agreed)

    def folder(self, title: str, start: str = "") -> Path | None:
        """A folder, or None when the user chose none."""
        return _chosen(qt.QFileDialog.getExistingDirectory(self._parent, title, start))

    def file_to_open(self, title: str, kinds: str) -> Path | None:
        return _chosen(qt.QFileDialog.getOpenFileName(self._parent, title, "", kinds))

    def file_to_write(self, title: str, start: str, kinds: str) -> Path | None:
        return _chosen(qt.QFileDialog.getSaveFileName(self._parent, title, start, kinds))

    def _box(self, icon: Any, text: str) -> Any:
        box = qt.QMessageBox(self._parent)
        box.setIcon(icon)
        box.setWindowTitle("APFormer")
        box.setText(text)
        return box


def _chosen(told: Any) -> Path | None:
    """PythonQt gives the path, other bindings (path, kind)."""
    path = told if isinstance(told, str) else told[0]
    return Path(path) if path else None

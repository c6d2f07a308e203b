"""The segmentations that run or wait, each with a button that cancels it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

from ..workflow import Run
from ..workflow.jobs import Jobs
from .tables import fill, fit, stretch

MARGIN = 4  # pixels, beside a button
MOST_ROWS = 3  # that are seen at once; the table scrolls
TITLE, STATE, CANCEL = range(3)


class JobsTable:
    """Is seen only while there is a job that the Segment button is not about, and no other list tells of.

    Args:
        table: with the columns title, state and cancel.
        own: the job that the button cancels, None where it segments.
        told_elsewhere: whether a job alone is no reason to show the table, as one of the work list is.
    """

    def __init__(
        self, table: Any, jobs: Jobs, own: Callable[[], Run | None], told_elsewhere: Callable[[Run], bool]
    ) -> None:
        self._table, self._jobs, self._own, self._told_elsewhere = table, jobs, own, told_elsewhere
        self._runs: list[Run] = []  # row by row
        stretch(table, TITLE)
        table.horizontalHeader().setSectionResizeMode(CANCEL, qt.QHeaderView.Fixed)
        table.horizontalHeader().setVisible(False)
        table.setVisible(False)

    def refresh(self) -> None:
        """Show the jobs as they are now."""
        runs, own = [job.run for job in self._jobs.listed], self._own()
        others = [run for run in runs if run is not own and not self._told_elsewhere(run)]
        if own is not None and len(runs) > 1:  # it may wait for one of those
            others = [run for run in runs if run is not own]
        self._table.setVisible(bool(others))
        rows = [(run.title, state(run), "") for run in runs] if others else []
        keys = [str(number) for number in range(len(rows))]
        fill(self._table, keys, rows, [f"{run.title}: {run.message}" for run in runs] if rows else ())
        if runs != self._runs:
            self._runs = runs
            for row in range(len(rows)):
                button = self._button(runs[row])
                self._table.setCellWidget(row, CANCEL, button)
                self._table.setColumnWidth(CANCEL, button.sizeHint.width() + MARGIN)
        fit(self._table, MOST_ROWS)

    def _button(self, run: Run) -> Any:
        button = qt.QToolButton()
        button.setText(_("Cancel"))
        button.setToolTip(_("Cancel {title}.").format(title=run.title))
        button.connect("clicked(bool)", lambda *_: run.cancel())
        return button


def state(run: Run) -> str:
    """ "40 %", or that it waits."""
    if run.cancelling:
        return _("cancelling")
    return f"{round(100 * run.fraction)} %" if run.status == "running" else _("waiting")

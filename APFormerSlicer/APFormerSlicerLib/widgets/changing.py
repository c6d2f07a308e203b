"""The pages Fine-tune and Models: changes to the models, one at a time, for all buttons that ask for them."""

from __future__ import annotations

from collections.abc import Callable

from slicer.i18n import tr as _

from ..workflow import Changed, Run, Signal
from ..workflow.runs import DONE, FAILED
from ..workflow.wording import Checked
from .collaborators import Asks, Install


class Changing:
    """Follows the change that the worker makes.

    Attributes:
        changed: one began or ended.
    """

    def __init__(self, asks: Asks, install: Install) -> None:
        self._asks, self._install = asks, install
        self._run: Run | None = None
        self.changed: Signal[()] = Signal()

    def check(self) -> Checked:
        """Whether another one can begin."""
        return self._run is None, _("A model is being checked. Wait a moment.")

    def begin(self, start: Callable[[], Run], done: Callable[[Changed], None] | None = None) -> None:
        """Start one where the packages for it are there; `done` is told what it left.

        Raises:
            APFormerError: it cannot be started.
        """
        if self._run is not None or not self._install.ensure():
            return
        run = self._run = start()
        run.ended.connect(lambda run: self._end(run, done))
        if run.over:
            self._end(run, done)
        self.changed.emit()

    def _end(self, run: Run, done: Callable[[Changed], None] | None) -> None:
        if run is not self._run:
            return
        self._run = None
        self.changed.emit()
        if run.status == DONE and done is not None:
            done(run.outcome)
        elif run.status == FAILED and run.error is not None:
            self._asks.error(run.error)

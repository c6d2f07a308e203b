"""What the worker expects of a job before it begins, as one line."""

from __future__ import annotations

from collections.abc import Callable

from ..workflow import Run, sentence
from ..workflow.runs import DONE


class Estimate:
    """Follows one question to the worker at a time.

    Args:
        heard: is called when `line` has become the answer.

    Attributes:
        line: what is to be shown.
    """

    def __init__(self, heard: Callable[[], None]) -> None:
        self.line = ""
        self._heard_it = heard
        self._run: Run | None = None

    def follow(self, run: Run, meanwhile: str) -> None:
        """Show `meanwhile`, and what the run says once it is over."""
        self._run, self.line = run, meanwhile
        run.ended.connect(self._heard)
        if run.over:  # it may have ended before it could be followed
            self._heard(run)

    def cancel(self) -> bool:
        """Ask no longer: the worker does one thing after another. Whether it was asking."""
        run = self._run
        self.forget()
        if run is not None:
            run.cancel()
        return run is not None

    def forget(self) -> None:
        """Listen no longer."""
        self._run = None

    def _heard(self, run: Run) -> None:
        if run is not self._run:
            return
        self._run = None
        if run.status == DONE:
            self.line = " ".join([run.outcome.line, *run.outcome.warnings])
        else:
            self.line = "" if run.error is None else sentence(run.error)
        self._heard_it()

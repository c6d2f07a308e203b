"""Jobs that take turns: one is at work, the others wait in their order, and each can be cancelled."""

from __future__ import annotations

from collections.abc import Callable

from apformer.errors import APFormerError

from .runs import WAITING, Run
from .signals import Signal


class Line:
    """The jobs of one worker that need all of it.

    A job that waits has taken nothing yet: its voxels are handed over when its turn comes.

    Attributes:
        changed: one came, began or ended.
    """

    def __init__(self) -> None:
        self.changed: Signal[()] = Signal()
        self._waiting: list[tuple[Run, Callable[[], None]]] = []
        self._current: Run | None = None
        self._advancing = False

    @property
    def runs(self) -> tuple[Run, ...]:
        """Those that are not over, the one at work first."""
        present = [] if self._current is None or self._current.over else [self._current]
        return (*present, *(run for run, _ in self._waiting if not run.over))

    def add(self, run: Run, begin: Callable[[], None]) -> None:
        """Have it wait for its turn, which may be now. `begin` starts it; what it raises is why the run fails."""
        self._waiting.append((run, begin))
        run.ended.connect(lambda _: self._advance())
        self._advance()

    def _advance(self) -> None:
        """Begin the next that can begin; a loop, for a job may end before `begin` returns."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while True:
                self._waiting = [item for item in self._waiting if not item[0].over]
                if not self._waiting or (self._current is not None and not self._current.over):
                    break
                self._current, begin = self._waiting.pop(0)
                self._begin(self._current, begin)
        finally:
            self._advancing = False
        self._tell_places()
        self.changed.emit()

    @staticmethod
    def _begin(run: Run, begin: Callable[[], None]) -> None:
        run.say("")
        try:
            begin()
        except APFormerError as error:
            run.fail(error)

    def _tell_places(self) -> None:
        for ahead, (run, _) in enumerate(self._waiting, 1):
            if run.status == WAITING:
                run.say("waiting for 1 job before it" if ahead == 1 else f"waiting for {ahead} jobs before it")

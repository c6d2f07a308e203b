"""The segmentations that wait or run in this program, of all panels and scripts: what a table of jobs shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .runs import Run
from .signals import Signal


@dataclass(frozen=True)
class Job:
    """A segmentation that is not over. `volume_node`: None for a file."""

    run: Run
    volume_node: Any


class Jobs:
    """Those of one scene, whichever `Workflow` on it was asked.

    Attributes:
        changed: one came or ended; what else happens, the runs tell.
    """

    def __init__(self, scene: Any) -> None:
        self.changed: Signal[()] = Signal()
        self._scene = scene
        _all.changed.connect(self.changed.emit)

    @property
    def listed(self) -> list[Job]:
        """In the order in which they were asked for."""
        return [job for scene, job in _all.jobs if scene is self._scene]

    def of(self, volume_node: Any) -> Run | None:
        """The job of that volume."""
        return next((job.run for job in self.listed if job.volume_node is volume_node), None)

    def add(self, run: Run, volume_node: Any = None) -> None:
        """List a job until it is over."""
        entry = self._scene, Job(run, volume_node)
        _all.jobs.append(entry)
        run.ended.connect(lambda _: _all.remove(entry))
        _all.changed.emit()

    def stop(self) -> None:
        """Tell of no more changes."""
        _all.changed.disconnect(self.changed.emit)


class _All:
    """Of all scenes: two panels on one scene know of each other's jobs, or they would write over each other."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Any, Job]] = []
        self.changed: Signal[()] = Signal()

    def remove(self, entry: tuple[Any, Job]) -> None:
        if entry in self.jobs:
            self.jobs.remove(entry)
            self.changed.emit()


_all = _All()

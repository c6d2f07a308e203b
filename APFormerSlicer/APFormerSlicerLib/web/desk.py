"""What the sections of the page work with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apformer.volume import Source
from trame_server import Server
from trame_slicer.core import SlicerApp

from ..workflow import Workflow
from .editing import Editing
from .notices import Notices
from .turn_worker import TurnWorker
from .views import Views


@dataclass(frozen=True)
class Desk:
    """One user's desk.

    Attributes:
        folder: private; it goes with the session.
        upload_bytes: how much may be uploaded at once.
        sources: node ID -> the files that a volume came from, which a DICOM segmentation refers to.
        workers: for segmenting and for training.
    """

    server: Server
    slicer: SlicerApp
    workflow: Workflow
    workers: tuple[TurnWorker, TurnWorker]
    notices: Notices
    views: Views
    editing: Editing
    folder: Path
    upload_bytes: int
    sources: dict[str, Source] = field(default_factory=dict)

    @property
    def state(self) -> Any:
        return self.server.state

    @property
    def scene(self) -> Any:
        return self.slicer.scene

    @property
    def volume(self) -> Any:
        """The chosen volume's node, or None."""
        return self.workflow.state.volume

    @property
    def segmentation(self) -> Any:
        """The chosen segmentation's node, or None."""
        return self.workflow.state.segmentation

    def action(self, name: str) -> Any:
        """Decorator: what the page calls as `trigger(name, [...])`; errors are shown."""

        def register(function: Any) -> Any:
            guarded = self.notices.guard(function)
            self.server.trigger(name)(guarded)
            return guarded

        return register

    def on(self, *names: str) -> Any:
        """Decorator: called when the user, or anything else, changed one of these values of the page's state."""

        def register(function: Any) -> Any:
            guarded = self.notices.guard(function)
            self.server.state.change(*names)(lambda **_: guarded())
            return guarded

        return register


def color_of(segment: Any) -> str:
    """ "#dd8265" """
    return "#" + "".join(f"{round(255 * part):02x}" for part in segment.GetColor())

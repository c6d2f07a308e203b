"""What the sections of the page work with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apformer.volume import Source
from trame_server import Server
from trame_slicer.core import SlicerApp

from ..scene.shown import drawn_on, segmentations_of
from ..workflow import Workflow
from .allowed import Allowed
from .doubtful import Doubtful
from .editing import Editing
from .hiding import Hiding
from .notices import Notices
from .turn_worker import TurnWorker
from .uploads import Uploads
from .values import Reader
from .views import Views


@dataclass(frozen=True)
class Desk:
    """One user's desk.

    Attributes:
        allowed: what the page may set and ask for; `field` and `action` declare it.
        hiding: takes the server's paths out of what the user is told.
        folder: private; it goes with the session.
        uploads: the files of images that are open, within the session's quota.
        sources: node ID -> the files that a volume came from, which a DICOM segmentation refers to.
        workers: for segmenting and for training.
        doubtful: a segmentation that may not be of the chosen image.
    """

    server: Server
    slicer: SlicerApp
    workflow: Workflow
    workers: tuple[TurnWorker, TurnWorker]
    notices: Notices
    allowed: Allowed
    hiding: Hiding
    views: Views
    editing: Editing
    folder: Path
    uploads: Uploads
    sources: dict[str, Source] = field(default_factory=dict)
    doubtful: Doubtful = field(default_factory=Doubtful)

    @property
    def state(self) -> Any:
        """What the page shows. What the page may not set (`field`) is the server's own, and is true."""
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
        """The chosen segmentation's node, or None: one of the chosen volume, whatever is about to be chosen."""
        node = self.workflow.state.segmentation
        return node if node is not None and drawn_on(node) is self.volume else None

    @property
    def segmentations(self) -> list[Any]:
        """The nodes of the chosen volume's segmentations that can be chosen."""
        nodes = [] if self.volume is None else segmentations_of(self.scene, self.volume)
        return [node for node in nodes if not node.GetHideFromEditors()]

    def action(self, name: str, *readers: Reader) -> Any:
        """Decorator: what the page calls as `trigger(name, [...])`; errors are shown.

        `readers`: one for each argument, which read it before the function sees it (see `values`).
        """

        def register(function: Any) -> Any:
            self.allowed.add_action(name, self.notices.guard(function), readers)
            return function

        return register

    def field(self, name: str, value: Any, reader: Reader) -> None:
        """A value of the state that the page may set, to what the reader gives; all others are the server's own."""
        self.allowed.fields[name] = reader
        self.state[name] = value

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

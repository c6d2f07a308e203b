"""One user's scene, workflow and page, put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trame_server import Server
from trame_slicer import module as trame_slicer_module
from trame_slicer.core import SlicerApp

from ..workflow import Workflow
from .desk import Desk
from .editing import Editing
from .lines import Message
from .notices import Notices
from .page import Page
from .transfer import Transfer
from .turn_worker import TurnWorker
from .views import Views

_ASSETS = Path(__file__).resolve().parent / "assets"
_URL = "__apformer"  # where the page's own script and style are


class Application:
    """What a session holds.

    Args:
        workers: for segmenting and for training.
        settings: `Settings.of_session`.
    """

    def __init__(self, server: Server, workers: tuple[TurnWorker, TurnWorker], settings: Message) -> None:
        server.enable_module(trame_slicer_module)
        server.enable_module(
            {"serve": {_URL: str(_ASSETS)}, "scripts": [f"{_URL}/page.js"], "styles": [f"{_URL}/page.css"]}
        )
        server.state.trame__title = "APFormer"
        server.state.trame__favicon = f"{_URL}/icon.svg"
        slicer = SlicerApp()
        editing = Editing(slicer.segmentation_editor)
        self.workflow = Workflow(slicer.scene, workers[0], trainer=workers[1], editor=editing)
        self.desk = Desk(
            server,
            slicer,
            self.workflow,
            workers,
            Notices(server.state),
            Views(server, slicer),
            editing,
            Path(settings["folder"]),
            int(settings["upload_bytes"]),
        )
        self.transfer = Transfer(self.desk)
        self.page: Any = Page(self.desk, Path(settings["site"]) if settings["site"] else None)

    def close(self) -> None:
        """Give up what is running."""
        self.workflow.close()

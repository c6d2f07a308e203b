"""One user's scene, workflow and page, put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trame_server import Server
from trame_slicer import module as trame_slicer_module
from trame_slicer.core import SlicerApp

from ..workflow import Workflow
from .allowed import Allowed
from .desk import Desk
from .editing import Editing
from .gate import Gate
from .hiding import Hiding, server_folders
from .lines import Message
from .notices import Notices
from .page import Page
from .quota import Quota
from .transfer import Transfer
from .turn_worker import TurnWorker
from .uploads import Uploads
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
        editing, allowed = Editing(slicer.segmentation_editor), Allowed()
        folder, site = Path(settings["folder"]), Path(settings["site"]) if settings["site"] else None
        self.workflow = Workflow(slicer.scene, workers[0], trainer=workers[1], editor=editing)
        others = [*server_folders(), *self.workflow.library.roots, *([site] if site else [])]
        self.desk = Desk(
            server,
            slicer,
            self.workflow,
            workers,
            Notices(server.state),
            allowed,
            Hiding(folder, others, bool(settings["hide_paths"]), allowed.fields),
            Views(server, slicer, allowed),
            editing,
            folder,
            Uploads(folder / "uploads", Quota(int(settings["upload_bytes"]))),
        )
        self.transfer = Transfer(self.desk)
        self.page: Any = Page(self.desk, site)
        self.gate = Gate(server, allowed, self.desk.notices, self.desk.views.names, self.desk.hiding)

    def close(self) -> None:
        """Give up what is running."""
        self.workflow.close()

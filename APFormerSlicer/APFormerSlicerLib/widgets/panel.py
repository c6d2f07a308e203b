"""The panel: five pages on one scene, in Slicer's window, and above them what is segmented and how far it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from apformer.bundles import ModelLibrary

from ..workflow import Workflow
from .changing import Changing
from .collaborators import Asks, HostedWorker, Install
from .dialogs import Dialogs
from .editor import Editor
from .follow_panel import FollowPanel
from .input_panel import InputPanel
from .pages import keep_height
from .region_chooser import RegionChooser
from .review_panel import ReviewPanel
from .segment_panel import SegmentPanel
from .site_panel import SitePanel
from .training_panel import TrainingPanel
from .tuning_panel import TuningPanel
from .versions_panel import VersionsPanel
from .volumes_export import VolumesExport
from .window_chooser import WindowChooser
from .work_panel import WorkPanel

HELP = "Help/five-minutes.html"  # within the module's resources


class Panel:
    """Loads the widgets and gives each part its own.

    It takes whatever height it is given, and its pages scroll within; its width depends on nothing that is shown.

    Args:
        layout: where the panel is put.
        scene: vtkMRMLScene.
        makeWorker: makes a worker, without starting its process; one segments, another one fine-tunes.
        install: what is asked before packages are needed.
        uiFile: APFormerSlicer.ui.
        library: the models; by default the user's and those that come with the program.
        asks: questions and errors; by default windows.
    """

    def __init__(
        self,
        layout: Any,
        scene: Any,
        makeWorker: Callable[[], HostedWorker],
        install: Install,
        uiFile: str | Path,
        library: ModelLibrary | None = None,
        asks: Asks | None = None,
    ) -> None:
        root = slicer.util.loadUI(str(uiFile))
        root.layout().setContentsMargins(0, 0, 0, 0)
        layout.addWidget(root)
        root.setMRMLScene(scene)
        self.ui = ui = slicer.util.childWidgetVariables(root)
        keep_height(ui)
        asks = asks or Dialogs(root)
        self._workers, self._install = (makeWorker(), makeWorker()), install
        self._editor = Editor(ui.segmentEditor, scene)
        self.workflow = workflow = Workflow(scene, self._workers[0], library, self._workers[1], self._editor)
        self.input = InputPanel(ui, workflow)
        self.region = RegionChooser(ui, workflow, asks)
        self.segment = SegmentPanel(ui, workflow, asks, install)
        self.window = WindowChooser(ui, workflow, asks)
        self.work = WorkPanel(ui, workflow, asks, install, self.segment)
        self.review = ReviewPanel(ui, workflow, asks, self._editor)
        self.follow = FollowPanel(ui, workflow, asks, install, self.segment, self.review)
        self.volumes = VolumesExport(ui, workflow, asks)
        self.site = SitePanel(ui, workflow, asks, install)
        changing = Changing(asks, install)
        self.training = TrainingPanel(ui, workflow, asks, changing)
        self.tuning = TuningPanel(ui, workflow, asks, install, self.training)
        self.versions = VersionsPanel(ui, workflow, asks, changing)
        page = Path(uiFile).parents[1] / HELP
        for button in (ui.helpButton, ui.modelsHelpButton):
            button.connect("clicked(bool)", lambda *_: _open(page))
        ui.reportButton.connect(
            "clicked(bool)", lambda *_: asks.attempt(lambda: qt.QApplication.clipboard().setText(install.report()))
        )

    def enter(self) -> None:
        """The module was opened."""
        self._editor.enter()
        self.input.enter()
        self._install.prove()

    def exit(self) -> None:
        """Another module was opened."""
        self.input.leave()
        self._editor.leave()

    def close(self) -> None:
        """The window is being closed: end what runs, and the workers."""
        self.input.close()
        self.work.close()
        self.window.close()
        self.segment.close()
        self.review.close()
        self.follow.close()
        self.site.close()
        self.workflow.close()
        self._install.close()
        for worker in self._workers:
            worker.close()


def _open(page: Path) -> None:
    """In the user's browser; the file lies on this computer."""
    qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(page)))

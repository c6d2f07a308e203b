"""A panel in the stand-in: a worker that plays events, questions that are answered, and nodes."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from apformer.errors import APFormerError
from workflow_samples import PlayedWorker, save_models

ROOT = Path(__file__).resolve().parents[2]
MODULE_AREA = (380, 540)  # pixels that Slicer leaves to a module on a screen of 1366 x 768
PAGES = ("segmentPage", "reviewPage", "casesPage", "tuningPage", "modelsPage")
UI_FILE = ROOT / "APFormerSlicer" / "Resources" / "UI" / "APFormerSlicer.ui"


class ClosedWorker(PlayedWorker):
    """A `PlayedWorker` that notes its end."""

    closed = False

    def close(self) -> None:
        self.closed = True


@dataclass
class Packages:
    """An `Install`. `lacking`: something is missing; `willing`: the user lets it be installed."""

    lacking: bool = False
    willing: bool = True
    asked: list[bool] = field(default_factory=list)
    proved: int = 0

    def missing(self, training: bool = False) -> bool:
        return self.lacking

    def ensure(self, training: bool = False) -> bool:
        self.asked.append(training)
        self.lacking = self.lacking and not self.willing
        return not self.lacking

    def prove(self) -> None:
        self.proved += 1

    def close(self) -> None:
        pass

    def report(self) -> str:
        return "torch 2.13, one GPU"


@dataclass
class Answers:
    """Questions are answered without windows; `errors` were shown, `questions` were asked."""

    folders: list[Path | None] = field(default_factory=list)
    files: list[Path | None] = field(default_factory=list)
    agrees: bool = True
    errors: list[APFormerError] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)

    def attempt(self, action: Callable[[], object]) -> bool:
        try:
            action()
        except APFormerError as error:
            self.error(error)
            return False
        return True

    def error(self, error: APFormerError) -> None:
        self.errors.append(error)

    def confirm(self, what: str, meaning: str, yes: str) -> bool:
        self.questions.append(what)
        return self.agrees

    def folder(self, title: str, start: str = "") -> Path | None:
        return self.folders.pop(0)

    def file_to_open(self, title: str, kinds: str) -> Path | None:
        return self.files.pop(0)

    def file_to_write(self, title: str, start: str, kinds: str) -> Path | None:
        return self.files.pop(0)


def add_volume(scene: Any, array: np.ndarray, name: str = "MR", kind: str = "vtkMRMLScalarVolumeNode") -> Any:
    """A volume node with the array, as the panel's users load it: shown, with slices 2 mm apart."""
    import headless

    node = headless.add_volume(scene, array, name, kind)
    node.SetSpacing(1.0, 1.0, 2.0)
    node.CreateDefaultDisplayNodes()
    return node


def noise(shape_kji: tuple[int, ...] = (5, 6, 7)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1000, shape_kji).astype(np.int16)


ESTIMATE = {
    "ok": True,
    "device": "cpu",
    "seconds": [3.0, 4.0],
    "needed_bytes": {"system": 1.2e9},
    "free_bytes": {"system": 9e9},
    "warnings": [],
}
"""What the worker tells of a preflight."""


@functools.cache
def saved_models() -> Path:
    """Models of the workflow's tests, saved once per process."""
    folder = tempfile.TemporaryDirectory(prefix="apformer-panels-")
    atexit.register(folder.cleanup)
    save_models(Path(folder.name))
    return Path(folder.name)


def save_small_model(name: str, like: str, library: Any = None) -> None:
    """An untrained network of a few hundred weights for the labels and images of another model, as an active version:
    it learns in seconds."""
    import torch
    from apformer.bundles import ModelLibrary
    from apformer.networks import build_network
    from apformer.training.config import parse_config
    from apformer.training.run import write_bundle
    from training_samples import settings

    library = library or ModelLibrary()
    other = library.find(like)
    dims = other.preprocessing.spatial_dims
    made = settings(name=name, description="Learns fast.", modality=other.modality, labels=other.metadata["labels"])
    made["network"] |= {"spatial_dims": dims, "image_size": [16] * dims, "out_channels": 1 + len(other.labels)}
    made["stages"][0]["size"] = [16] * dims
    made["preprocessing"] = {**other.metadata["preprocessing"], "patch_size": [16] * dims}
    config = parse_config(made)
    torch.manual_seed(1)
    weights = build_network(config.network, config.network_arguments).state_dict()
    library.activate(name, library.add_version(lambda folder: write_bundle(config, weights, folder)).version)


@dataclass
class Shown:
    """A panel in a window, with all that it was given. `worker` segments, `trainer` fine-tunes."""

    host: Any
    panel: Any
    window: Any
    worker: Any
    trainer: Any
    install: Packages
    asks: Answers

    @property
    def ui(self) -> Any:
        return self.panel.ui

    @property
    def workflow(self) -> Any:
        return self.panel.workflow

    def open(self, page: str) -> None:
        """Turn to a page, as a click on its tab does."""
        self.ui.pages.setCurrentWidget(getattr(self.ui, page))
        self.host.settle(0.02)

    def unfold(self, *sections: str) -> None:
        for section in sections:
            getattr(self.ui, section).collapsed = False
        self.host.settle(0.02)

    def choose(self, volume: Any, model: str = "slices") -> Any:
        """In step 1, as a user does."""
        self.ui.volumeSelector.setCurrentNode(volume)
        listed = self.ui.modelList
        names = [listed.item(row).text().split()[0] for row in range(listed.count)]
        listed.setCurrentRow(names.index(model))
        return volume

    def answer(self) -> None:
        """Let the worker's own code do what was asked last, and tell of it."""
        self.worker.answer()

    def segment(self, array: np.ndarray, maps: dict[str, np.ndarray] | None = None) -> Any:
        """Click, and let the worker answer; the segmentation."""
        self.ui.segmentButton.click()
        self.worker.last.finish(array, maps)
        return self.workflow.state.segmentation


@contextmanager
def shown_panel(
    host: Any, folder: Path, make_worker: Callable[[], Any] | None = None, models: Any = None
) -> Iterator[Shown]:
    """A second panel on the same scene may be shown in another folder."""
    import qt
    from apformer.bundles import ModelLibrary
    from APFormerSlicerLib.widgets import Panel

    if models is None:
        shutil.copytree(saved_models(), folder / "bundled")
        models = ModelLibrary([folder / "user's models 脳", folder / "bundled"])
    made: list[Any] = []

    def make() -> Any:
        root = folder / f"jobs {len(made)}"
        root.mkdir()
        made.append(ClosedWorker(root) if make_worker is None else make_worker())
        return made[-1]

    window = qt.QWidget()
    layout = qt.QVBoxLayout(window)
    install, asks = Packages(), Answers()
    panel = Panel(layout, host.scene, make, install, UI_FILE, models, asks)
    layout.setContentsMargins(0, 0, 0, 0)
    window.resize(*MODULE_AREA)
    window.show()
    panel.enter()
    try:
        yield Shown(host, panel, window, *made, install, asks)
    finally:
        panel.exit()
        panel.close()
        window.hide()


def place(widget: Any, within: Any) -> Any:
    """Where a widget is, in pixels of another one."""
    import qt

    return qt.QRect(widget.mapTo(within, qt.QPoint(0, 0)), widget.size)


def is_seen(widget: Any, window: Any) -> bool:
    """Whether all of it can be seen, without scrolling."""
    above = widget.parentWidget()
    while above is not window and above.rect.contains(place(widget, above)):
        above = above.parentWidget()
    return widget.isVisible() and above is window and window.rect.contains(place(widget, window))

"""Slicer, as far as the stand-in has it: put up for a test and taken down after it."""

from __future__ import annotations

import ctypes
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import pythonqt

if TYPE_CHECKING:
    from headless import Host as SceneHost

TESTING = Path(__file__).resolve().parents[2]
MODULE_FILE = TESTING.parent / "APFormerSlicer" / "APFormerSlicer.py"
_MS = 5


class Host:
    """A running Slicer.

    Attributes:
        scene: vtkMRMLScene. app: slicer.app. window: the main window, None with `window=False`.
        shown: message boxes, each a dictionary with text, informativeText, detailedText and windowTitle.
        answers: what message boxes are answered, in their order; Ok when it is empty.
        pip: what slicer.packaging was asked to install.
        log: the errors in Slicer's log.
    """

    def __init__(self, logics: SceneHost, app: Any, window: Any, boxes: Any, pip: Any, log: list[str]) -> None:
        self.logics, self.scene, self.app, self.window = logics, logics.scene, app, window
        self.shown: list[dict[str, str]] = boxes.shown
        self.answers: list[Any] = boxes.answers
        self.pip, self.log = pip, log
        self._modules: list[Any] = []

    def load(self, path: Path = MODULE_FILE) -> Any:
        """Load a module file, unmodified, as Slicer's module manager does."""
        from .scripted import Module

        self._modules.append(Module(path))
        return self._modules[-1]

    def open_module(self, path: Path = MODULE_FILE) -> Any:
        """Load a module and show it; its ScriptedLoadableModuleWidget."""
        module = self.load(path)
        if self.window is not None:
            self.window.select(module.name)
        else:
            module.widgetRepresentation().show()
        self.settle()
        return module.python_widget()

    def settle(self, seconds: float = 0.0) -> None:
        """Let events through, for some time or until none is left."""
        end = time.monotonic() + seconds
        self.app.processEvents()
        while time.monotonic() < end:
            self.app.processEvents()
            time.sleep(_MS / 1000)

    def wait(self, condition: Callable[[], Any], seconds: float = 60.0) -> None:
        """Let events through until something is the case.

        Raises:
            TimeoutError: it is not after `seconds`.
        """
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"not the case after {seconds} s")
            self.settle(_MS / 1000)

    def darken(self, dark: bool) -> None:
        """Slicer's dark style, or its light one."""
        self.app.setPalette(_dark() if dark else self.app.style().standardPalette())
        self.settle()

    def picture(self, path: Path, widget: Any = None, size: tuple[int, int] | None = None) -> Path:
        """Write what a widget, else the window, looks like as PNG."""
        shown = widget or self.window
        if size is not None:
            shown.resize(*size)
        self.settle()
        assert shown.grab().save(str(path)), path
        return path

    def close_scene(self) -> None:
        """File > Close scene."""
        self.scene.Clear(False)
        self.settle()

    def raise_slot_errors(self) -> None:
        """Raise the first of what was raised in slots, where Qt prints and goes on, and what stands in Slicer's log."""
        if pythonqt.slot_errors:
            raise pythonqt.slot_errors[0]
        assert self.log == [], f"in Slicer's log: {self.log[0]}"

    def end(self) -> None:
        for module in self._modules:
            module.unload()
        if self.window is not None:
            import shiboken6

            shiboken6.delete(self.window)
        self.settle()


def _dark() -> Any:
    """Light text on dark, much as qSlicerDarkStyle has it."""
    from PySide6 import QtGui

    palette, role = QtGui.QPalette(), QtGui.QPalette.ColorRole
    colors = {role.Window: "#353535", role.Base: "#232323", role.AlternateBase: "#2b2b2b", role.Button: "#353535",
              role.WindowText: "#ffffff", role.Text: "#ffffff", role.ButtonText: "#ffffff", role.ToolTipText: "#ffffff",
              role.ToolTipBase: "#353535", role.Link: "#56b4e9", role.Highlight: "#2a82da",
              role.HighlightedText: "#ffffff", role.PlaceholderText: "#909090"}  # fmt: skip
    for which, color in colors.items():
        palette.setColor(which, QtGui.QColor(color))
    for which in (role.WindowText, role.Text, role.ButtonText):
        palette.setColor(QtGui.QPalette.ColorGroup.Disabled, which, QtGui.QColor("#808080"))
    return palette


@contextmanager
def start(folder: Path, *, window: bool = True, testing: bool = False) -> Iterator[Host]:
    """Slicer with an empty scene.

    Args:
        folder: for its settings.
        window: whether there is a main window; not with `Slicer --no-main-window`.
        testing: as with `Slicer --testing`: message boxes are only logged.
    """
    import slicer

    _keep_constants_alive()
    pythonqt.inject_properties()
    from . import ctk_widgets, error_log, node_widgets, packaging, scripted, segment_widgets
    from .application import qSlicerMainWindow, the_application
    from .loader import QUiLoader
    from .qt_module import QtModule

    for room in ("scene", "engine", "workflow"):
        if str(TESTING / room) not in sys.path:
            sys.path.insert(0, str(TESTING / room))
    import headless

    logics = headless.start()
    app = the_application()
    own_widgets = {name: cls for module in (node_widgets, segment_widgets) for name, cls in vars(module).items()
                   if name.startswith("qMRML")}  # fmt: skip
    ctk = _module("ctk", {name: cls for name, cls in vars(ctk_widgets).items() if name.startswith("ctk")})
    QUiLoader.custom = own_widgets | {name: cls for name, cls in vars(ctk).items() if name.startswith("ctk")}
    pip = packaging.Pip()
    volumes = slicer.vtkSlicerVolumesLogic()
    logics.application.SetModuleLogic("Colors", logics.colors)
    volumes.SetMRMLApplicationLogic(logics.application)
    volumes.SetMRMLScene(logics.scene)
    modules = scripted.other_modules(terminologies=logics.terminologies, segmentations=logics.segmentations,
                                     sequences=logics.sequences, colors=logics.colors, volumes=volumes)  # fmt: skip
    attributes = {
        **own_widgets,
        "app": app,
        "mrmlScene": logics.scene,
        "modules": modules,
        "selfTests": {},
        "packaging": packaging.module(pip),
        "i18n": _module("slicer.i18n", {"tr": _tr, "translate": lambda _context, text: text}),
        "ScriptedLoadableModule": scripted.module_of_base_classes(),
        "util": __import__("slicer.util", fromlist=["util"]),
    }
    imported = {"qt": QtModule({"QUiLoader": QUiLoader}), "ctk": ctk, "SampleData": packaging.sample_data()}
    imported |= {f"slicer.{name}": attributes[name] for name in ("packaging", "i18n", "ScriptedLoadableModule")}
    undo = _put(slicer, attributes, imported)
    # Not started over: classes that were made from the module `qt` of an earlier host are those of this one.
    stop_catching = pythonqt.catch_slot_errors()
    pythonqt.slot_errors.clear()
    ctk_widgets.ctkMessageBox.shown, ctk_widgets.ctkMessageBox.answers = [], []
    app.begin(logics.scene, logics.application, folder, testing)
    main = qSlicerMainWindow() if window else None
    if main is not None:
        main.resize(520, 900)
        main.show()
    with error_log.listening() as log:
        host = Host(logics, app, main, ctk_widgets.ctkMessageBox, pip, log)
        try:
            yield host
        finally:
            host.end()
            node_widgets.stop_all_observing()
            stop_catching()
            app.end()
            undo()
            logics.close()


def _keep_constants_alive() -> None:
    """Give None, True and False references to spare.

    Below Python 3.12, where they are not immortal, each call of PySide6 6.12 that returns one of them may drop a
    reference that it never took; when all are gone, the interpreter ends with "deallocating None".
    """
    if sys.version_info < (3, 12):
        for constant in (None, True, False):
            ctypes.c_ssize_t.from_address(id(constant)).value += 1 << 40


def _tr(text: str) -> str:
    """slicer.i18n.tr without a translation."""
    return text


def _module(name: str, content: dict[str, Any]) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(content)
    return module


def _put(slicer: ModuleType, attributes: dict[str, Any], imported: dict[str, ModuleType]) -> Callable[[], None]:
    """Set attributes of the package `slicer` and modules; returns what undoes it, module files and widgets too."""
    before = dict(vars(slicer))
    modules, path = dict(sys.modules), list(sys.path)
    vars(slicer).update(attributes)
    sys.modules.update(imported)

    def undo() -> None:
        for name in set(vars(slicer)) - set(before):
            delattr(slicer, name)
        vars(slicer).update(before)
        widgets = [name for name in sys.modules if name.startswith(("APFormerSlicerLib.widgets", "APFormerSlicer."))]
        for name in {*imported, *widgets, "APFormerSlicer"} - (set(modules) - set(imported)):
            sys.modules.pop(name, None)
        sys.modules.update({name: modules[name] for name in imported if name in modules})
        sys.path[:] = path

    logging.debug("the stand-in is up")
    return undo

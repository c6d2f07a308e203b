"""slicer.ScriptedLoadableModule's base classes, and what the module manager makes of a module file."""

# ruff: noqa: N801 -- the names are those of Slicer and CTK

from __future__ import annotations

import importlib
import importlib.util
import sys
import unittest
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import slicer
from PySide6 import QtWidgets

from .pythonqt import derive, own, played


class ScriptedLoadableModule:
    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title, parent.categories, parent.dependencies = "", [], []
        parent.contributors, parent.helpText, parent.acknowledgementText = [], "", ""
        icon = Path(parent.path).parent / "Resources" / "Icons" / f"{self.moduleName}.png"
        if icon.is_file():
            import qt

            parent.icon = qt.QIcon(str(icon))
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, name: str) -> str:
        return str(Path(self.parent.path).parent / "Resources" / name)

    def getDefaultModuleDocumentationLink(self, page: str | None = None) -> str:
        url = slicer.app.documentationBaseUrl + page if page else slicer.app.moduleDocumentationUrl(self.moduleName)
        return f'<p>For more information see the <a href="{url}">online documentation</a>.</p>'

    def runTest(self, msec: int = 100, **keywords: Any) -> None:
        case = getattr(importlib.import_module(type(self).__module__), f"{self.moduleName}Test")()
        case.messageDelay = msec
        case.runTest(**keywords)


class ScriptedLoadableModuleWidget:
    def __init__(self, parent: Any = None) -> None:
        import qt

        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        self.parent = parent
        if parent is None:
            self.parent = slicer.qMRMLWidget()
            self.parent.setLayout(qt.QVBoxLayout())
            self.parent.setMRMLScene(slicer.mrmlScene)
        self.layout = self.parent.layout()
        if parent is None:
            self.setup()
            self.parent.show()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def resourcePath(self, name: str) -> str:
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / name)

    def setup(self) -> None:
        """The developer section of Slicer's is left out."""

    def cleanup(self) -> None:
        """Before the module is unloaded."""

    def _onModuleAboutToBeUnloaded(self, name: str) -> None:
        if name == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)


class ScriptedLoadableModuleLogic:
    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True


class ScriptedLoadableModuleTest(unittest.TestCase):
    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.messageDelay = 0

    def delayDisplay(self, message: str, requestedDelay: int | None = None, msec: int | None = None) -> None:
        slicer.util.delayDisplay(message, 0)

    def runTest(self) -> None:
        """Derived classes have one."""


@played
class qSlicerScriptedLoadableModuleWidget(derive(QtWidgets.QWidget)):
    """The widget that Slicer gives to a ScriptedLoadableModuleWidget as its parent."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.setLayout(derive(QtWidgets.QVBoxLayout)())
        own(self, _scene=None)

    def setMRMLScene(self, scene: Any) -> None:
        own(self, _scene=scene)

    def mrmlScene(self) -> Any:
        return self.__dict__["_scene"]

    def self(self) -> Any:
        """The ScriptedLoadableModuleWidget."""
        return self.__dict__["_python"]


class ModuleParent:
    """qSlicerScriptedLoadableModule: the properties that a module file may set, and no others."""

    __slots__ = (
        "acknowledgementText",
        "associatedNodeTypes",
        "categories",
        "contributors",
        "dependencies",
        "helpText",
        "hidden",
        "icon",
        "index",
        "path",
        "title",
        "widgetRepresentationCreationEnabled",
    )


class Module:
    """A loaded module, as `slicer.modules.<name>` has it."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = str(path), path.stem
        self.parent = ModuleParent()
        self.parent.path, self.parent.icon = self.path, None
        self.python = _load(path)
        self.instance = getattr(self.python, self.name)(self.parent)
        self._widgets: list[tuple[Any, Any]] = []
        slicer.modules.__dict__.update({self.name.lower(): self, f"{self.name}Instance": self.instance})

    @property
    def title(self) -> str:
        return self.parent.title

    def createNewWidgetRepresentation(self) -> Any:
        """One more panel, set up on the scene."""
        holder = qSlicerScriptedLoadableModuleWidget()
        holder.setMRMLScene(slicer.mrmlScene)
        widget = getattr(self.python, f"{self.name}Widget")(holder)
        widget.setup()
        self._widgets.append((holder, widget))
        if len(self._widgets) == 1:
            slicer.modules.__dict__[f"{self.name}Widget"] = widget
        own(holder, _python=widget)
        return holder

    def widgetRepresentation(self) -> Any:
        if not self._widgets:
            self.createNewWidgetRepresentation()
        return self._widgets[0][0]

    def python_widget(self, index: int = 0) -> Any:
        self.widgetRepresentation()
        return self._widgets[index][1]

    def enter(self) -> None:
        if hasattr(self.python_widget(), "enter"):
            self.python_widget().enter()

    def leave(self) -> None:
        if hasattr(self.python_widget(), "exit"):
            self.python_widget().exit()

    def unload(self) -> None:
        """What happens when Slicer is closed."""
        import shiboken6

        slicer.app.moduleManager().moduleAboutToBeUnloaded.emit(self.name)
        for holder, _ in self._widgets:
            if shiboken6.isValid(holder):
                shiboken6.delete(holder)
        self._widgets.clear()


def _load(path: Path) -> ModuleType:
    """Import the module file by its name, as Slicer does, from the folder it is in."""
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def module_of_base_classes() -> ModuleType:
    """`slicer.ScriptedLoadableModule`, for `from slicer.ScriptedLoadableModule import *`."""
    module = ModuleType("slicer.ScriptedLoadableModule")
    classes = (ScriptedLoadableModule, ScriptedLoadableModuleWidget, ScriptedLoadableModuleLogic,
               ScriptedLoadableModuleTest)  # fmt: skip
    module.__dict__.update({cls.__name__: cls for cls in classes} | {"__all__": [cls.__name__ for cls in classes]})
    return module


def other_modules(**logics: Any) -> SimpleNamespace:
    """Slicer's own modules that have a logic here."""
    return SimpleNamespace(**{name: SimpleNamespace(name=name, logic=lambda logic=logic: logic, path="")
                              for name, logic in logics.items()})  # fmt: skip

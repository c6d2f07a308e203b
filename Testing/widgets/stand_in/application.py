"""slicer.app, its layout manager and module manager, the main window and the modules: what a panel asks of them."""

# ruff: noqa: N801, N815 -- the names are those of Slicer and CTK

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Signal

from .files import CoreIOManager
from .pythonqt import derive, own, played

VIEWS = {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}  # as Slicer's layouts orient them


@played
class ModuleManager(derive(QtCore.QObject)):
    """qSlicerModuleManager."""

    moduleAboutToBeUnloaded = Signal(str)
    SIGNATURES = {"moduleAboutToBeUnloaded(QString)": "moduleAboutToBeUnloaded"}  # noqa: RUF012

    def module(self, name: str) -> Any:
        return getattr(slicer.modules, name.lower(), None)


@played
class qSlicerApplication(derive(QtWidgets.QApplication)):
    """One per process, as Qt wants it; `begin` gives it a scene of its own each time."""

    startupCompleted = Signal()
    SIGNATURES = {"startupCompleted()": "startupCompleted"}  # noqa: RUF012
    majorVersion, minorVersion, patchVersion, revision = 5, 12, 0, "34045"
    applicationVersion = "5.12.0-stand-in"
    platform, arch, os = "stand-in", "none", sys.platform

    def begin(self, scene: Any, logic: Any, folder: Path, testing: bool) -> None:
        own(self, _scene=scene, _logic=logic, _folder=folder, _testing=testing, _layout=LayoutManager(scene, logic),
            _modules=ModuleManager())  # fmt: skip
        self.setApplicationName("Slicer")
        self.setOrganizationName("NA-MIC")
        derive(QtCore.QSettings).setDefaultFormat(QtCore.QSettings.Format.IniFormat)
        QtCore.QSettings.setPath(QtCore.QSettings.Format.IniFormat, QtCore.QSettings.Scope.UserScope, str(folder))

    def end(self) -> None:
        self.layoutManager().end()
        own(self, _scene=None, _logic=None, _layout=None, _modules=None)

    def mrmlScene(self) -> Any:
        return self.__dict__["_scene"]

    def applicationLogic(self) -> Any:
        return self.__dict__["_logic"]

    def layoutManager(self) -> Any:
        return self.__dict__["_layout"]

    def moduleManager(self) -> Any:
        return self.__dict__["_modules"]

    def coreIOManager(self) -> Any:
        return CoreIOManager()

    def testingEnabled(self) -> bool:
        return self.__dict__["_testing"]

    def settings(self) -> Any:
        return derive(QtCore.QSettings)()

    def userSettings(self) -> Any:
        return derive(QtCore.QSettings)()

    def commandOptions(self) -> Any:
        return SimpleNamespace(testingEnabled=self.testingEnabled(), runPythonAndExit=False)

    def errorLogModel(self) -> Any:
        return SimpleNamespace(filePath=str(self.__dict__["_folder"] / "Slicer.log"))

    def moduleDocumentationUrl(self, name: str) -> str:
        return f"https://slicer.readthedocs.io/en/5.12/user_guide/modules/{name.lower()}.html"

    def restart(self) -> None:
        raise AssertionError("a test would have restarted Slicer")

    @property
    def slicerHome(self) -> str:
        return sys.prefix

    @property
    def temporaryPath(self) -> str:
        return tempfile.gettempdir()

    @property
    def documentationBaseUrl(self) -> str:
        return "https://slicer.readthedocs.io/en/5.12/"

    @property
    def slicerUserSettingsFilePath(self) -> str:
        return self.settings().fileName()

    @property
    def extensionsInstallPath(self) -> str:
        return str(self.__dict__["_folder"] / "Extensions")


class SliceWidget:
    """A slice view: its node and its logic, without a picture."""

    def __init__(self, name: str, logic: Any) -> None:
        self._name, self._logic = name, logic

    def mrmlSliceNode(self) -> Any:
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self) -> Any:
        return self._logic.GetSliceCompositeNode()

    def sliceLogic(self) -> Any:
        return self._logic

    def fitSliceToBackground(self) -> None:
        self._logic.FitSliceToAll()


_ONE_UP_RED = 6  # vtkMRMLLayoutNode::SlicerLayoutOneUpRedSliceView, of which no 3D view is part


class LayoutManager:
    """Three slice views with real nodes and logic; a 3D view that notes what it was asked, and that stays, unmapped, in
    layouts without one, as qMRMLLayoutManager keeps all views that it ever made.

    Attributes:
        asked: the 3D view's and the layout's calls, in their order.
    """

    def __init__(self, scene: Any, application_logic: Any) -> None:
        self.asked: list[str] = []
        self.layout = 3
        self.threeDViewCount = 1
        self._scene = scene
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene)  # as qSlicerCoreApplication does
        self._logics = vtk.vtkCollection()
        self._widgets = {}
        for name, orientation in VIEWS.items():
            logic = slicer.vtkMRMLSliceLogic()
            logic.SetMRMLApplicationLogic(application_logic)
            logic.SetMRMLScene(scene)
            logic.AddSliceNode(name).SetOrientation(orientation)
            self._logics.AddItem(logic)
            self._widgets[name] = SliceWidget(name, logic)
        application_logic.SetSliceLogics(self._logics)

    def end(self) -> None:
        for widget in self._widgets.values():
            widget.sliceLogic().SetMRMLScene(None)

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(VIEWS)

    def sliceWidget(self, name: str) -> Any:
        return self._widgets.get(name)

    def mrmlSliceLogics(self) -> Any:
        return self._logics

    def setLayout(self, layout: int) -> None:
        self.layout = layout
        self.asked.append(f"setLayout {layout}")
        self._view_node().SetMappedInLayout(layout != _ONE_UP_RED)

    def _view_node(self) -> Any:
        """The 3D view's, which a scene that is closed keeps (a singleton)."""
        node = self._scene.GetSingletonNode("1", "vtkMRMLViewNode")
        if node is None:
            node = slicer.vtkMRMLViewNode()
            node.SetSingletonTag("1")
            node.SetMappedInLayout(self.layout != _ONE_UP_RED)
            node = self._scene.AddNode(node)
        return node

    def resetSliceViews(self) -> None:
        for widget in self._widgets.values():
            widget.fitSliceToBackground()

    def resetThreeDViews(self) -> None:
        self.asked.append("resetThreeDViews")

    def threeDWidget(self, _index: int) -> Any:
        view = SimpleNamespace(
            rotateToViewAxis=lambda axis: self.asked.append(f"rotateToViewAxis {axis}"),
            resetFocalPoint=lambda: self.asked.append("resetFocalPoint"),
            resetCamera=lambda: self.asked.append("resetCamera"),
            forceRender=lambda: None,
            mrmlViewNode=self._view_node,
        )
        return SimpleNamespace(threeDView=lambda: view)


@played
class qSlicerMainWindow(derive(QtWidgets.QMainWindow)):
    """The main window with the module panel."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self.setWindowTitle("3D Slicer (stand-in)")
        scroll = derive(QtWidgets.QScrollArea)()
        scroll.setWidgetResizable(True)
        self.setCentralWidget(scroll)
        self.statusBar()
        own(self, _scroll=scroll, _module=None)

    def moduleSelector(self) -> Any:
        return SimpleNamespace(selectModule=self.select, selectedModule=getattr(self.__dict__["_module"], "name", ""))

    def select(self, name: str) -> None:
        """Leave the module that is shown, and enter another one."""
        before = self.__dict__["_module"]
        if before is not None:
            before.leave()
        module = getattr(slicer.modules, name.lower())
        own(self, _module=module)
        representation = module.widgetRepresentation()
        if representation is not None:
            representation.layout().setContentsMargins(0, 0, 0, 0)  # as qSlicerModulePanel::addModule does
            self.__dict__["_scroll"].takeWidget()
            self.__dict__["_scroll"].setWidget(representation)
            module.enter()


def the_application() -> Any:
    """The one there is, made when first asked for."""
    existing = QtWidgets.QApplication.instance()
    if existing is None:
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
        return qSlicerApplication(["Slicer"])
    assert isinstance(existing, qSlicerApplication), "another QApplication was made before the stand-in's"
    return existing

"""qMRML widgets over real MRML nodes: qMRMLWidget and qMRMLNodeComboBox, as their headers in Libs/MRML/Widgets say."""

# ruff: noqa: N801, N815 -- the names are those of Slicer and CTK

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Signal

from .pythonqt import derive, own, plain, played

QWidget = derive(QtWidgets.QWidget)


_observing: weakref.WeakSet[Any] = weakref.WeakSet()


class SceneWidget(QWidget):
    """A widget that is given a scene."""

    mrmlSceneChanged = Signal(object)
    SIGNATURES = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}  # noqa: RUF012

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        own(self, _scene=None, _observations=[])

    def mrmlScene(self) -> Any:
        return self.__dict__["_scene"]

    def setMRMLScene(self, scene: Any) -> None:
        if scene is self.__dict__["_scene"]:
            return
        self.stop_observing()
        own(self, _scene=scene)
        if scene is not None:
            self.observe_scene(scene)
        self.mrmlSceneChanged.emit(scene)

    def observe_scene(self, scene: Any) -> None:
        """What a kind of widget listens to."""

    def observe(self, subject: Any, event: Any, call: Callable[..., None], data: str | None = None) -> None:
        """Listen to a VTK object until the widget is gone or `stop_observing`."""

        def heard(*values: Any) -> None:
            if _alive(self):
                call(*values)

        if data is not None:
            heard.CallDataType = data  # type: ignore[attr-defined]
        _observing.add(self)
        self.__dict__["_observations"].append((subject, subject.AddObserver(event, heard)))

    def stop_observing(self, subject: Any = None) -> None:
        kept = []
        for seen, tag in self.__dict__["_observations"]:
            if subject is None or seen is subject:
                seen.RemoveObserver(tag)
            else:
                kept.append((seen, tag))
        own(self, _observations=kept)


@played
class qMRMLWidget(SceneWidget):
    """Passes its scene on, by the connections of the .ui file."""


@played
class SortFilterProxyModel(derive(QtCore.QObject)):
    """qMRMLSortFilterProxyModel, of which panels use the nodes to hide."""

    changed = Signal()
    hiddenNodeIDs = plain("QStringList", "hiddenNodeIDs", [], lambda self: self.changed.emit())


@played
class qMRMLNodeComboBox(SceneWidget):
    """A choice among the scene's nodes of some classes; without a scene it is disabled."""

    currentNodeChanged = Signal(object)
    currentNodeValid = Signal(bool)
    currentNodeIDChanged = Signal(str)
    nodeActivated, nodeAdded, nodeAddedByUser = Signal(object), Signal(object), Signal(object)
    nodeAddedByUserAction, nodeAboutToBeRemoved = Signal(object), Signal(object)
    nodeAboutToBeEdited, currentNodeRenamed = Signal(object), Signal(str)
    SIGNATURES = {  # noqa: RUF012
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentNodeChanged(bool)": "currentNodeValid",
        "currentNodeIDChanged(QString)": "currentNodeIDChanged",
        "nodeActivated(vtkMRMLNode*)": "nodeActivated",
        "nodeAdded(vtkMRMLNode*)": "nodeAdded",
        "nodeAddedByUser(vtkMRMLNode*)": "nodeAddedByUser",
        "nodeAddedByUserAction(vtkMRMLNode*)": "nodeAddedByUserAction",
        "nodeAboutToBeRemoved(vtkMRMLNode*)": "nodeAboutToBeRemoved",
        "nodeAboutToBeEdited(vtkMRMLNode*)": "nodeAboutToBeEdited",
        "currentNodeRenamed(QString)": "currentNodeRenamed",
    }

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        box = QtWidgets.QComboBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(box)
        own(self, _box=box, _shown=[], _current=None, _attributes=[], _filling=False, _model=SortFilterProxyModel())
        own(self, _leaving=None)
        self.__dict__["_model"].changed.connect(lambda *values: self._refill())
        box.currentIndexChanged.connect(lambda *values: self._chosen(*values))
        box.activated.connect(lambda _index: self.nodeActivated.emit(self.currentNode()))
        box.setEnabled(False)

    def _refill(self) -> None:
        """Show the nodes that fit; what was chosen stays chosen, else the first node is where there must be one."""
        scene, box = self.mrmlScene(), self.__dict__["_box"]
        leaving = self.__dict__["_leaving"]
        present = [node for node in _nodes(scene) if node is not leaving] if scene is not None else []
        shown = [node for node in present if self._fits(node)]
        current = self.__dict__["_current"] if self.__dict__["_current"] in shown else None
        if current is None and not self.noneEnabled and shown:
            current = shown[0]
        own(self, _shown=[*([None] if self.noneEnabled else []), *shown], _filling=True)
        box.clear()
        box.addItems([self.noneDisplay if node is None else node.GetName() or "" for node in self.__dict__["_shown"]])
        own(self, _filling=False)
        box.setEnabled(scene is not None)
        self._show(current)
        self._choose(current)

    noneEnabled = plain(bool, "noneEnabled", False, _refill)
    noneDisplay = plain(str, "noneDisplay", "None", _refill)
    nodeTypes = plain("QStringList", "nodeTypes", [], _refill)
    hideChildNodeTypes = plain("QStringList", "hideChildNodeTypes", [], _refill)
    showChildNodeTypes = plain(bool, "showChildNodeTypes", True, _refill)
    showHidden = plain(bool, "showHidden", False, _refill)
    addEnabled, removeEnabled = plain(bool, "addEnabled", True), plain(bool, "removeEnabled", True)
    editEnabled, renameEnabled = plain(bool, "editEnabled", False), plain(bool, "renameEnabled", False)
    baseName = plain(str, "baseName", "")
    selectNodeUponCreation = plain(bool, "selectNodeUponCreation", True)
    interactionNodeSingletonTag = plain(str, "interactionNodeSingletonTag", "Singleton")
    currentNodeID = QtCore.Property(
        str,
        lambda self: self.currentNode().GetID() if self.currentNode() else "",
        lambda self, node_id: self.setCurrentNodeID(node_id),
    )

    def currentNode(self) -> Any:
        return self.__dict__["_current"]

    def setCurrentNode(self, node: Any) -> None:
        if isinstance(node, str):
            self.setCurrentNodeID(node)
            return
        node = node if node in self.__dict__["_shown"] else None
        self._show(node)
        self._choose(node)

    def setCurrentNodeID(self, node_id: str) -> None:
        scene = self.mrmlScene()
        self.setCurrentNode(scene.GetNodeByID(node_id) if scene is not None and node_id else None)

    def setCurrentNodeIndex(self, index: int) -> None:
        self.setCurrentNode(self.nodeFromIndex(index))

    def nodeCount(self) -> int:
        return len(self.nodes())

    def nodes(self) -> list[Any]:
        return [node for node in self.__dict__["_shown"] if node is not None]

    def nodeFromIndex(self, index: int) -> Any:
        nodes = self.nodes()
        return nodes[index] if 0 <= index < len(nodes) else None

    def addAttribute(self, node_type: str, attribute: str, value: Any = None) -> None:
        self.__dict__["_attributes"].append((node_type, attribute, value))
        self._refill()

    def removeAttribute(self, node_type: str, attribute: str) -> None:
        own(self, _attributes=[entry for entry in self.__dict__["_attributes"] if entry[:2] != (node_type, attribute)])
        self._refill()

    def sortFilterProxyModel(self) -> Any:
        return self.__dict__["_model"]

    def addNode(self, node_type: str = "") -> Any:
        """What "Create new" does."""
        node = self.mrmlScene().AddNewNodeByClass(node_type or self.nodeTypes[0], self.baseName)
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        self.nodeAddedByUserAction.emit(node)
        return node

    def removeCurrentNode(self) -> None:
        self.mrmlScene().RemoveNode(self.currentNode())

    def observe_scene(self, scene: Any) -> None:
        events = slicer.vtkMRMLScene
        self.observe(scene, events.NodeAddedEvent, self._node_added, vtk.VTK_OBJECT)
        self.observe(scene, events.NodeAboutToBeRemovedEvent, self._node_leaving, vtk.VTK_OBJECT)
        self.observe(scene, events.NodeRemovedEvent, self._node_removed, vtk.VTK_OBJECT)
        for event in (events.EndCloseEvent, events.EndImportEvent, events.EndBatchProcessEvent):
            self.observe(scene, event, lambda *_: self._refill())

    def setMRMLScene(self, scene: Any) -> None:
        super().setMRMLScene(scene)
        if scene is not None:
            for node in _nodes(scene):
                self._follow_name(node)
        self._refill()

    def _node_added(self, _scene: Any, _event: str, node: Any) -> None:
        self._follow_name(node)
        if self._fits(node):
            self._refill()
            self.nodeAdded.emit(node)

    def _node_leaving(self, _scene: Any, _event: str, node: Any) -> None:
        """The row goes before the node does. A QComboBox whose current row goes takes the next one, or the last, and
        the widget tells that this node was chosen; only where there is no row left, nothing is."""
        rows = self.__dict__["_shown"]
        if node not in rows:
            return
        self.nodeAboutToBeRemoved.emit(node)
        row, left = rows.index(node), [other for other in rows if other is not node]
        own(self, _leaving=node)
        if node is self.__dict__["_current"]:
            self._choose(left[min(row, len(left) - 1)] if left else None)
        self._refill()

    def _node_removed(self, _scene: Any, _event: str, node: Any) -> None:
        self.stop_observing(node)
        if node is self.__dict__["_leaving"]:
            own(self, _leaving=None)

    def _follow_name(self, node: Any) -> None:
        if any(node.IsA(kind) for kind in self.nodeTypes):
            self.observe(node, vtk.vtkCommand.ModifiedEvent, self._node_modified)

    def _node_modified(self, node: Any, _event: str) -> None:
        fits, known = self._fits(node), node in self.__dict__["_shown"]
        if fits != known:
            self._refill()
        elif known:
            self.__dict__["_box"].setItemText(self.__dict__["_shown"].index(node), node.GetName() or "")

    def _fits(self, node: Any) -> bool:
        if node is None or not any(
            node.IsA(kind) if self.showChildNodeTypes else node.GetClassName() == kind for kind in self.nodeTypes
        ):
            return False
        if any(node.IsA(kind) for kind in self.hideChildNodeTypes) or (
            node.GetHideFromEditors() and not self.showHidden
        ):
            return False
        if node.GetID() in self.__dict__["_model"].hiddenNodeIDs:
            return False
        wanted = [(name, value) for kind, name, value in self.__dict__["_attributes"] if node.IsA(kind)]
        return all(
            node.GetAttribute(name) is not None if value is None else node.GetAttribute(name) == str(value)
            for name, value in wanted
        )

    def _show(self, node: Any) -> None:
        own(self, _filling=True)
        shown = self.__dict__["_shown"]
        self.__dict__["_box"].setCurrentIndex(shown.index(node) if node in shown else -1)
        own(self, _filling=False)

    def _chosen(self, index: int) -> None:
        if not self.__dict__["_filling"]:
            self._choose(self.__dict__["_shown"][index] if index >= 0 else None)

    def _choose(self, node: Any) -> None:
        if node is self.__dict__["_current"]:
            return
        own(self, _current=node)
        self.currentNodeChanged.emit(node)
        self.currentNodeValid.emit(node is not None)
        self.currentNodeIDChanged.emit(self.currentNodeID)


def stop_all_observing() -> None:
    """Before a scene ends: it tells its observers of its end, and Python code cannot run there (it crashes)."""
    for widget in list(_observing):
        widget.stop_observing()


def _nodes(scene: Any) -> list[Any]:
    return [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())]


def _alive(widget: Any) -> bool:
    import shiboken6

    return shiboken6.isValid(widget)

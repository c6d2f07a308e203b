"""The Segment Editor and the segments table, on real nodes and Slicer's own undo (vtkSlicerSegmentEditorLogic)."""

# ruff: noqa: N801, N815 -- the names are those of Slicer and CTK

from __future__ import annotations

from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Signal

from .error_log import critical
from .node_widgets import SceneWidget, qMRMLNodeComboBox
from .pythonqt import own, plain, played

_EFFECTS = ("Threshold", "Paint", "Draw", "Erase", "Level tracing", "Grow from seeds", "Fill between slices", "Margin",
            "Hollow", "Smoothing", "Scissors", "Islands", "Logical operators", "Mask volume")  # fmt: skip


@played
class qMRMLSegmentsTableView(SceneWidget):
    """The segments of a segmentation, one per row, with their colour and status."""

    selectionChanged = Signal(object, object)
    segmentAboutToBeModified = Signal(str)
    SIGNATURES = {  # noqa: RUF012
        "selectionChanged(QItemSelection,QItemSelection)": "selectionChanged",
        "segmentAboutToBeModified(QString)": "segmentAboutToBeModified",
    }
    selectionMode = plain(int, "selectionMode", 3)
    headerVisible = plain(bool, "headerVisible", True)
    visibilityColumnVisible, colorColumnVisible = (
        plain(bool, f"{n}ColumnVisible", True) for n in ("visibility", "color")
    )
    opacityColumnVisible, statusColumnVisible = (plain(bool, f"{n}ColumnVisible", True) for n in ("opacity", "status"))
    layerColumnVisible = plain(bool, "layerColumnVisible", False)
    readOnly, filterBarVisible = plain(bool, "readOnly", False), plain(bool, "filterBarVisible", False)
    textFilter = plain(str, "textFilter", "")
    jumpToSelectedSegmentEnabled = plain(bool, "jumpToSelectedSegmentEnabled", False)
    segmentCount = QtCore.Property(int, lambda self: len(_ids(self.segmentationNode())))

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        table = QtWidgets.QListWidget(self)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(table)
        own(self, _table=table, _segmentation=None)
        table.itemSelectionChanged.connect(lambda: self.selectionChanged.emit(None, None))

    def segmentationNode(self) -> Any:
        return self.__dict__["_segmentation"]

    def setSegmentationNode(self, node: Any) -> None:
        before = self.segmentationNode()
        if before is not None:
            self.stop_observing(before.GetSegmentation())
        own(self, _segmentation=node)
        if node is not None:
            for event in ("SegmentAdded", "SegmentRemoved", "SegmentModified"):
                self.observe(node.GetSegmentation(), getattr(slicer.vtkSegmentation, event), lambda *_: self._refill())
        self._refill()

    def selectedSegmentIDs(self) -> list[str]:
        return [item.data(QtCore.Qt.ItemDataRole.UserRole) for item in self.__dict__["_table"].selectedItems()]

    def setSelectedSegmentIDs(self, ids: list[str]) -> None:
        table = self.__dict__["_table"]
        for row in range(table.count):
            item = table.item(row)
            item.setSelected(item.data(QtCore.Qt.ItemDataRole.UserRole) in ids)

    def clearSelection(self) -> None:
        self.__dict__["_table"].clearSelection()

    def displayedSegmentIDs(self) -> list[str]:
        return _ids(self.segmentationNode())

    def _refill(self) -> None:
        table, selected = self.__dict__["_table"], self.selectedSegmentIDs()
        table.clear()
        for segment_id in _ids(self.segmentationNode()):
            segment = self.segmentationNode().GetSegmentation().GetSegment(segment_id)
            item = QtWidgets.QListWidgetItem(segment.GetName())
            item.setData(QtCore.Qt.ItemDataRole.DecorationRole, QtGui.QColor.fromRgbF(*segment.GetColor()))
            item.setData(QtCore.Qt.ItemDataRole.UserRole, segment_id)
            table.addItem(item)
        self.setSelectedSegmentIDs(selected)


@played
class qMRMLSegmentEditorWidget(SceneWidget):
    """The Segment Editor without its effects' painting: its nodes, its choice of a segment, its undo.

    A test that corrects something calls saveStateForUndo and changes the segment, as an effect does.
    """

    currentSegmentIDChanged = Signal(str)
    sourceVolumeNodeChanged, segmentationNodeChanged = Signal(object), Signal(object)
    SIGNATURES = {  # noqa: RUF012
        "currentSegmentIDChanged(QString)": "currentSegmentIDChanged",
        "sourceVolumeNodeChanged(vtkMRMLVolumeNode*)": "sourceVolumeNodeChanged",
        "segmentationNodeChanged(vtkMRMLSegmentationNode*)": "segmentationNodeChanged",
    }

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        own(self, _logic=slicer.vtkSlicerSegmentEditorLogic(), _node=None, _effect=None, _viewed=False, _keys=False,
            _order=list(_EFFECTS))  # fmt: skip
        self.__dict__["_logic"].SetVerbose(True)
        table = qMRMLSegmentsTableView()
        selectors = [qMRMLNodeComboBox() for _ in range(2)]
        own(self, _selectors=selectors, _table=table)
        self._build(selectors, table)
        segmentation, volume = selectors
        segmentation.currentNodeChanged.connect(lambda *values: self._segmentation_chosen(*values))
        volume.currentNodeChanged.connect(lambda *values: self._volume_chosen(*values))
        table.selectionChanged.connect(lambda *values: self._segment_chosen(*values))

    def _build(self, selectors: list[Any], table: Any) -> None:
        """As qMRMLSegmentEditorWidget.ui lays it out: below the selectors a row of buttons, at the left the effects and
        below them Undo and Redo, at the right the table. The icons are as large as Slicer's."""
        whole, choose = QtWidgets.QGridLayout(self), QtWidgets.QGridLayout()
        labels = {"vtkMRMLSegmentationNode": "Segmentation:", "vtkMRMLVolumeNode": "Source volume:"}
        for row, (selector, (kind, text)) in enumerate(zip(selectors, labels.items(), strict=True)):
            selector.nodeTypes, selector.noneEnabled = [kind], True
            label = QtWidgets.QLabel(text)
            choose.addWidget(label, row, 0)
            choose.addWidget(selector, row, 1)
            own(selector, _label=label)
        whole.addLayout(choose, 0, 0)
        actions = QtWidgets.QHBoxLayout()
        actions.setSpacing(4)
        for name, text in (("AddSegmentButton", "Add"), ("RemoveSegmentButton", "Remove"), ("Show3DButton", "Show 3D")):
            actions.addWidget(_named(QtWidgets.QPushButton(_icon(), text), name))
        actions.addWidget(_named(QtWidgets.QToolButton(), "SwitchToSegmentationsButton"))
        whole.addLayout(actions, 1, 0)
        left, right, both = QtWidgets.QVBoxLayout(), QtWidgets.QVBoxLayout(), QtWidgets.QHBoxLayout()
        left.setSpacing(7)
        for name in ("EffectsGroupBox", "UndoRedoGroupBox"):
            frame = _named(QtWidgets.QFrame(), name)
            frame.setFrameShape(QtWidgets.QFrame.Shape.StyledPanel)
            frame.setLayout(QtWidgets.QGridLayout())
            left.addWidget(frame)
        left.addItem(QtWidgets.QSpacerItem(20, 40, vData=QtWidgets.QSizePolicy.Policy.Expanding))
        right.addWidget(table)
        right.addItem(QtWidgets.QSpacerItem(20, 40, vData=QtWidgets.QSizePolicy.Policy.Expanding))
        both.addLayout(left)
        both.addLayout(right)
        whole.addLayout(both, 2, 0)
        self._put_effects()

    def _put_effects(self) -> None:
        """Buttons in the chosen order, none first, in as many columns as there should be; and so Undo and Redo."""
        shown = ["NULL", *self.effectNameOrder()]
        if self.unorderedEffectsVisible:
            shown += [name for name in _EFFECTS if name not in shown]
        for frame, names in (("EffectsGroupBox", shown), ("UndoRedoGroupBox", ["UndoButton", "RedoButton"])):
            grid = QtWidgets.QWidget.layout(_child(self, frame))
            for button in _child(self, frame).findChildren(QtWidgets.QToolButton):
                grid.removeWidget(button)
                button.setVisible(button.objectName in names)
            for number, name in enumerate(names):
                button = _child(self, name) or _named(QtWidgets.QToolButton(_child(self, frame)), name)
                button.setIcon(_icon())
                button.setToolTip(name.removesuffix("Button"))
                button.setVisible(True)
                grid.addWidget(button, number // self.effectColumnCount, number % self.effectColumnCount)

    def _show_selectors(self) -> None:
        shown = (self.segmentationNodeSelectorVisible, self.sourceVolumeNodeSelectorVisible)
        for selector, visible in zip(self.__dict__["_selectors"], shown, strict=True):
            selector.setVisible(visible)
            selector.__dict__["_label"].setVisible(visible)

    segmentationNodeSelectorVisible = plain(bool, "segmentationNodeSelectorVisible", True, _show_selectors)
    sourceVolumeNodeSelectorVisible = plain(bool, "sourceVolumeNodeSelectorVisible", True, _show_selectors)
    autoShowSourceVolumeNode = plain(bool, "autoShowSourceVolumeNode", True)
    switchToSegmentationsButtonVisible = plain(bool, "switchToSegmentationsButtonVisible", True)
    undoEnabled, readOnly = plain(bool, "undoEnabled", True), plain(bool, "readOnly", False)
    maximumNumberOfUndoStates = QtCore.Property(
        int,
        lambda self: self.__dict__["_logic"].GetMaximumNumberOfUndoStates(),
        lambda self, count: self.__dict__["_logic"].SetMaximumNumberOfUndoStates(count),
    )
    effectButtonStyle = plain(int, "effectButtonStyle", 0)
    effectColumnCount = plain(int, "effectColumnCount", 2, lambda self: self._put_effects())
    unorderedEffectsVisible = plain(bool, "unorderedEffectsVisible", True, lambda self: self._put_effects())
    defaultTerminologyEntry = plain(str, "defaultTerminologyEntry", "")
    defaultTerminologyEntrySettingsKey = plain(str, "defaultTerminologyEntrySettingsKey", "")
    jumpToSelectedSegmentEnabled = plain(bool, "jumpToSelectedSegmentEnabled", False)

    def observe_scene(self, scene: Any) -> None:
        self.__dict__["_logic"].SetMRMLScene(scene)
        for widget in (*self.__dict__["_selectors"], self.__dict__["_table"]):
            widget.setMRMLScene(scene)

    def mrmlSegmentEditorNode(self) -> Any:
        return self.__dict__["_node"]

    def setMRMLSegmentEditorNode(self, node: Any) -> None:
        before = self.__dict__["_node"]
        if before is node:
            return
        if before is not None:
            self.stop_observing(before)
        own(self, _node=node)
        self.__dict__["_logic"].SetSegmentEditorNode(node)
        if node is not None:
            self.observe(node, vtk.vtkCommand.ModifiedEvent, lambda *_: self.updateWidgetFromMRML())
        self.updateWidgetFromMRML()

    def updateWidgetFromMRML(self) -> None:
        node = self.mrmlSegmentEditorNode()
        segmentation, volume = self.__dict__["_selectors"]
        table = self.__dict__["_table"]
        segmentation.setCurrentNode(self.segmentationNode())
        volume.setCurrentNode(self.sourceVolumeNode())
        if table.segmentationNode() is not self.segmentationNode():
            table.setSegmentationNode(self.segmentationNode())
        self.setEnabled(node is not None)

    def segmentationNode(self) -> Any:
        return self._of_node("GetSegmentationNode")

    def segmentationNodeID(self) -> str:
        return self.segmentationNode().GetID() if self.segmentationNode() else ""

    def sourceVolumeNode(self) -> Any:
        return self._of_node("GetSourceVolumeNode")

    def sourceVolumeNodeID(self) -> str:
        return self.sourceVolumeNode().GetID() if self.sourceVolumeNode() else ""

    def setSegmentationNode(self, node: Any) -> None:
        if self.mrmlSegmentEditorNode() is None:
            if node is not None:
                critical("qMRMLSegmentEditorWidget::setSegmentationNode failed: need to set segment editor node first")
            return
        if node is self.segmentationNode():
            return
        self.__dict__["_logic"].SetSegmentationNode(node)
        ids = _ids(node)
        self.mrmlSegmentEditorNode().SetSelectedSegmentID(ids[0] if ids else "")
        if node is not None:  # its own volume, whatever was chosen before
            self.setSourceVolumeNode(node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()))
        self.updateWidgetFromMRML()
        self.segmentationNodeChanged.emit(node)

    def setSegmentationNodeID(self, node_id: str) -> None:
        self.setSegmentationNode(self.mrmlScene().GetNodeByID(node_id))

    def setSourceVolumeNode(self, node: Any) -> None:
        if node is self.sourceVolumeNode():
            return
        self.__dict__["_logic"].SetSourceVolumeNode(node)  # which tells Slicer's log of what is missing
        if node is not self.sourceVolumeNode():
            return
        self.updateWidgetFromMRML()
        self.sourceVolumeNodeChanged.emit(node)

    def setSourceVolumeNodeID(self, node_id: str) -> None:
        self.setSourceVolumeNode(self.mrmlScene().GetNodeByID(node_id))

    def currentSegmentID(self) -> str:
        node = self.mrmlSegmentEditorNode()
        return (node.GetSelectedSegmentID() or "") if node is not None else ""

    def setCurrentSegmentID(self, segment_id: str) -> None:
        if segment_id != self.currentSegmentID():
            self.mrmlSegmentEditorNode().SetSelectedSegmentID(segment_id)
            self.currentSegmentIDChanged.emit(segment_id)

    def saveStateForUndo(self) -> None:
        if self.undoEnabled:
            self.__dict__["_logic"].SaveStateForUndo()

    def undo(self) -> None:
        self.__dict__["_logic"].Undo()

    def redo(self) -> None:
        self.__dict__["_logic"].Redo()

    def activeEffect(self) -> Any:
        return self.__dict__["_effect"]

    def setActiveEffect(self, effect: Any) -> None:
        own(self, _effect=effect)

    def setSegmentationNodeSelectorVisible(self, visible: bool) -> None:
        self.segmentationNodeSelectorVisible = visible

    def setSourceVolumeNodeSelectorVisible(self, visible: bool) -> None:
        self.sourceVolumeNodeSelectorVisible = visible

    def setSwitchToSegmentationsButtonVisible(self, visible: bool) -> None:
        self.switchToSegmentationsButtonVisible = visible
        _child(self, "SwitchToSegmentationsButton").setVisible(visible)

    def setMaximumNumberOfUndoStates(self, count: int) -> None:
        self.maximumNumberOfUndoStates = count

    def setActiveEffectByName(self, name: str) -> None:
        own(self, _effect=name or None)

    def availableEffectNames(self) -> list[str]:
        return list(_EFFECTS)

    def effectNameOrder(self) -> list[str]:
        return list(self.__dict__["_order"])

    def setEffectNameOrder(self, names: list[str]) -> None:
        own(self, _order=list(names))
        self._put_effects()

    def setEffectColumnCount(self, count: int) -> None:
        self.effectColumnCount = count

    def setUnorderedEffectsVisible(self, visible: bool) -> None:
        self.unorderedEffectsVisible = visible

    def setShow3DButtonVisible(self, visible: bool) -> None:
        _child(self, "Show3DButton").setVisible(visible)

    def setupViewObservations(self) -> None:
        own(self, _viewed=True)

    def removeViewObservations(self) -> None:
        own(self, _viewed=False)

    def installKeyboardShortcuts(self, _parent: Any = None) -> None:
        own(self, _keys=True)

    def uninstallKeyboardShortcuts(self) -> None:
        own(self, _keys=False)

    def _of_node(self, getter: str) -> Any:
        node = self.mrmlSegmentEditorNode()
        return getattr(node, getter)() if node is not None else None

    def _segmentation_chosen(self, node: Any) -> None:
        if self.mrmlSegmentEditorNode() is not None:
            self.setSegmentationNode(node)

    def _volume_chosen(self, node: Any) -> None:
        if self.mrmlSegmentEditorNode() is not None:
            self.setSourceVolumeNode(node)

    def _segment_chosen(self, *_: Any) -> None:
        ids = self.__dict__["_table"].selectedSegmentIDs()
        if ids and self.mrmlSegmentEditorNode() is not None:
            self.setCurrentSegmentID(ids[0])


def _ids(segmentation_node: Any) -> list[str]:
    if segmentation_node is None or segmentation_node.GetSegmentation() is None:
        return []
    return list(segmentation_node.GetSegmentation().GetSegmentIDs())


def _icon() -> Any:
    """Of the size of Slicer's, without their pictures."""
    pixmap = QtGui.QPixmap(16, 16)
    pixmap.fill(QtGui.QColor("#4a90d9"))
    return QtGui.QIcon(pixmap)


def _named(widget: Any, name: str) -> Any:
    widget.setObjectName(name)
    return widget


def _child(parent: Any, name: str) -> Any:
    return QtCore.QObject.findChild(parent, QtWidgets.QWidget, name)

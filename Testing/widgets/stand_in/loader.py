"""`qt.QUiLoader`: reads the .ui file with Qt's own loader and puts the stand-in's classes in."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

from PySide6 import QtCore, QtUiTools, QtWidgets

from .pythonqt import PYSIDE, derive, loading, played

# Of parameterNodeWrapper; and of layouts, whose margins Qt's loader sets and keeps as properties too.
_ALLOWED_DYNAMIC = {"SlicerParameterName", "leftMargin", "topMargin", "rightMargin", "bottomMargin",
                    "horizontalSpacing", "verticalSpacing", "spacing"}  # fmt: skip


@played
class QUiLoader(derive(QtUiTools.QUiLoader)):
    """Stricter than Qt's: a class, property, signal or slot that is not there is an error, not a warning.

    Attributes:
        custom: class name -> class, of CTK's and qMRML's widgets.
    """

    custom: dict[str, type] = {}  # noqa: RUF012

    def load(self, device: Any, parent: Any = None) -> Any:
        tree = ElementTree.fromstring(bytes(device.readAll().data()))
        connections = _take_scene_connections(tree)
        _check(tree)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(tree))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        loading.append(buffer)
        try:
            widget = super().load(buffer, parent)
        finally:
            loading.remove(buffer)
        if widget is None:
            raise RuntimeError(f"Qt cannot load the .ui file: {self.errorString()}")
        for child in (widget, *widget.findChildren(QtCore.QObject)):
            _check_properties(child)
        for sender, signal, receiver, slot in connections:
            source, target = (_named(widget, name) for name in (sender, receiver))
            source.connect(signal, getattr(target, slot.partition("(")[0]))
        return widget

    def createWidget(self, class_name: str, parent: Any = None, name: str = "") -> Any:
        widget = _class(class_name)(parent)
        QtCore.QObject.setObjectName(widget, name)
        return widget

    def createLayout(self, class_name: str, parent: Any = None, name: str = "") -> Any:
        layout = derive(getattr(QtWidgets, class_name))()
        QtCore.QObject.setObjectName(layout, name)
        if isinstance(parent, QtWidgets.QWidget) and QtWidgets.QWidget.layout(parent) is None:
            parent.setLayout(layout)
        return layout


def _class(name: str) -> type:
    if name in QUiLoader.custom:
        return QUiLoader.custom[name]
    found = next((getattr(module, name) for module in PYSIDE if hasattr(module, name)), None)
    if found is None:
        raise AttributeError(f"the .ui file has a widget of class {name}, which the stand-in does not know")
    return derive(found)


def _check(tree: Any) -> None:
    for widget in tree.iter("widget"):
        if widget.get("class") != "Line":
            _class(widget.get("class"))
    for kind in ("enum", "set"):
        for value in tree.iter(kind):
            if any(word.count("::") > 1 for word in (value.text or "").split("|")):
                raise ValueError(
                    f"Qt 5 does not know the value {value.text} in the .ui file; leave out the enum's name"
                )


def _check_properties(widget: Any) -> None:
    unknown = [bytes(name.data()).decode() for name in QtCore.QObject.dynamicPropertyNames(widget)]
    unknown = [name for name in unknown if not name.startswith("_") and name not in _ALLOWED_DYNAMIC]
    if unknown:
        raise AttributeError(f"{type(widget).__name__} '{widget.objectName}' has no property {unknown[0]} in Slicer")


def _take_scene_connections(tree: Any) -> list[tuple[str, str, str, str]]:
    """Those that hand on VTK objects, which Qt's loader cannot make here; they are taken out of the tree."""
    listed = tree.find("connections")
    taken = []
    for entry in list(listed) if listed is not None else []:
        words = tuple(entry.findtext(part) or "" for part in ("sender", "signal", "receiver", "slot"))
        if "vtk" in words[1]:
            taken.append(words)
            listed.remove(entry)
    return taken


def _named(widget: Any, name: str) -> Any:
    found = widget if widget.objectName == name else widget.findChild(QtCore.QObject, name)
    if found is None:
        raise AttributeError(f"the .ui file connects {name}, which it does not have")
    return found

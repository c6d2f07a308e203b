"""The module `ctk`: the widgets of CTK that Slicer's panels use, with the properties and signals of CTK's headers."""

# ruff: noqa: N801, N815 -- the names are those of Slicer and CTK

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Signal

from .pythonqt import derive, own, plain, played

QWidget, QComboBox, QMessageBox = derive(QtWidgets.QWidget), derive(QtWidgets.QComboBox), derive(QtWidgets.QMessageBox)
QAbstractButton, QPushButton = derive(QtWidgets.QAbstractButton), derive(QtWidgets.QPushButton)


@played
class ctkCollapsibleButton(QPushButton):
    """A button with what is below it; here a checkable push button's text over the children.

    The real one is a QAbstractButton that paints itself and puts its children below its header, as this one does.
    """

    contentsCollapsed = Signal(bool)
    SIGNATURES = {"contentsCollapsed(bool)": "contentsCollapsed"}  # noqa: RUF012

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.setCheckable(True)
        self.setChecked(True)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Preferred, QtWidgets.QSizePolicy.Policy.Preferred)
        own(self, _header=24)
        self.setContentsMargins(8, self.__dict__["_header"] + 4, 2, 4)
        self.toggled.connect(lambda *values: self._show_contents(*values))

    collapsed = QtCore.Property(bool, lambda self: not self.isChecked(), lambda self, on: self.setChecked(not on))
    collapsedHeight = plain(int, "collapsedHeight", 14)
    flat = plain(bool, "flat", False)

    def _show_contents(self, shown: bool) -> None:
        for child in QtCore.QObject.children(self):
            if isinstance(child, QtWidgets.QWidget):
                child.setVisible(shown)
        self.updateGeometry()
        self.contentsCollapsed.emit(not shown)

    def hitButton(self, position: Any) -> bool:
        return position.y() <= self.__dict__["_header"]

    def childEvent(self, event: Any) -> None:
        super().childEvent(event)
        if event.added() and isinstance(event.child(), QtWidgets.QWidget) and not self.isChecked():
            event.child().setVisible(False)

    def sizeHint(self) -> Any:
        size = QtWidgets.QWidget.layout(self).sizeHint() if QtWidgets.QWidget.layout(self) else QtCore.QSize(80, 0)
        header = self.__dict__["_header"]
        return QtCore.QSize(max(size.width(), 120), header if not self.isChecked() else max(size.height(), header))

    minimumSizeHint = sizeHint

    def paintEvent(self, _event: Any) -> None:
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, self.width, self.__dict__["_header"])
        option.text = f"{'▾' if self.isChecked() else '▸'}  {self.text}"
        painter.drawControl(QtWidgets.QStyle.ControlElement.CE_PushButton, option)


@played
class ctkCollapsibleGroupBox(derive(QtWidgets.QGroupBox)):
    """A group box whose title collapses it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.setCheckable(True)
        self.toggled.connect(lambda *values: self._show_contents(*values))

    collapsed = QtCore.Property(bool, lambda self: not self.isChecked(), lambda self, on: self.setChecked(not on))

    def _show_contents(self, shown: bool) -> None:
        for child in QtCore.QObject.children(self):
            if isinstance(child, QtWidgets.QWidget):
                child.setVisible(shown)


class _NumberWidget(QWidget):
    """A slider with a spin box, for float numbers."""

    valueChanged = Signal(float)
    SIGNATURES = {"valueChanged(double)": "valueChanged"}  # noqa: RUF012

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        box, slider = QtWidgets.QDoubleSpinBox(self), QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal, self)
        slider.setRange(0, 1000)
        own(self, _box=box, _slider=slider)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(slider)
        layout.addWidget(box)
        box.setRange(0.0, 99.0)
        box.valueChanged.connect(lambda *values: self._number_changed(*values))
        slider.sliderMoved.connect(lambda *values: self._slider_moved(*values))

    def _number_changed(self, value: float) -> None:
        box, slider = self.__dict__["_box"], self.__dict__["_slider"]
        share = (value - box.minimum) / ((box.maximum - box.minimum) or 1.0)
        slider.setValue(round(share * 1000))
        self.valueChanged.emit(value)

    def _slider_moved(self, position: int) -> None:
        box = self.__dict__["_box"]
        box.setValue(box.minimum + position / 1000 * (box.maximum - box.minimum))

    def setValue(self, value: float) -> None:
        self.__dict__["_box"].setValue(value)

    def setRange(self, low: float, high: float) -> None:
        self.__dict__["_box"].setRange(low, high)


def _of_the_box(kind: type, name: str) -> Any:
    """A property that the spin box has."""
    return QtCore.Property(
        kind,
        lambda self: getattr(self.__dict__["_box"], name),
        lambda self, value: setattr(self.__dict__["_box"], name, value),
    )


@played
class ctkSliderWidget(_NumberWidget):
    value, minimum, maximum = (_of_the_box(float, name) for name in ("value", "minimum", "maximum"))
    singleStep = _of_the_box(float, "singleStep")
    decimals = _of_the_box(int, "decimals")
    suffix, prefix = _of_the_box(str, "suffix"), _of_the_box(str, "prefix")
    pageStep = plain(float, "pageStep", 10.0)
    tickInterval = plain(float, "tickInterval", 0.0)
    tracking = plain(bool, "tracking", True)
    spinBoxVisible = plain(
        bool, "spinBoxVisible", True, lambda self: self.__dict__["_box"].setVisible(self.spinBoxVisible)
    )


@played
class ctkPathLineEdit(QWidget):
    """A path with a button that chooses one."""

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    SIGNATURES = {  # noqa: RUF012
        "currentPathChanged(QString)": "currentPathChanged",
        "validInputChanged(bool)": "validInputChanged",
    }
    # ctkPathLineEdit::Filter
    NoFilter, Dirs, Files, Drives, NoSymLinks, AllEntries, TypeMask, Readable, Writable, Executable = (
        -1, 0x001, 0x002, 0x004, 0x008, 0x007, 0x00F, 0x010, 0x020, 0x040)  # fmt: skip

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        line, button = QtWidgets.QLineEdit(self), QtWidgets.QToolButton(self)
        button.setText("…")
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(line)
        layout.addWidget(button)
        own(self, _line=line)
        line.textChanged.connect(lambda path: self.currentPathChanged.emit(path))

    currentPath = QtCore.Property(
        str, lambda self: self.__dict__["_line"].text, lambda self, path: self.__dict__["_line"].setText(path)
    )
    filters = plain(int, "filters", 0x07)
    nameFilters = plain("QStringList", "nameFilters", [])
    settingKey = plain(str, "settingKey", "")
    label = plain(str, "label", "")
    showBrowseButton = plain(bool, "showBrowseButton", True)
    showHistoryButton = plain(bool, "showHistoryButton", True)
    readOnly = plain(bool, "readOnly", False, lambda self: self.__dict__["_line"].setReadOnly(self.readOnly))

    def setCurrentPath(self, path: str) -> None:
        self.currentPath = path

    def addCurrentPathToHistory(self) -> None:
        """The history is a matter of the settings."""


@played
class ctkSearchBox(derive(QtWidgets.QLineEdit)):
    showSearchIcon = plain(bool, "showSearchIcon", False)
    alwaysShowClearIcon = plain(bool, "alwaysShowClearIcon", False)
    searchIcon, clearIcon = plain("QIcon", "searchIcon", None), plain("QIcon", "clearIcon", None)


@played
class ctkFittedTextBrowser(derive(QtWidgets.QTextBrowser)):
    collapsed = plain(bool, "collapsed", False)


@played
class ctkComboBox(QComboBox):
    defaultText = plain(str, "defaultText", "")
    forceDefault = plain(bool, "forceDefault", False)


@played
class ctkMenuButton(QPushButton):
    pass


@played
class ctkExpandableWidget(derive(QtWidgets.QFrame)):
    pass


@played
class ctkMessageBox(QMessageBox):
    """Keeps what it would have shown, and answers at once with the first answer that waits, else its default."""

    shown: list[ctkMessageBox] = []  # noqa: RUF012
    answers: list[Any] = []  # noqa: RUF012
    dontShowAgainVisible = plain(bool, "dontShowAgainVisible", False)
    dontShowAgain = plain(bool, "dontShowAgain", False)
    dontShowAgainSettingsKey = plain(str, "dontShowAgainSettingsKey", "")

    def exec(self) -> Any:
        said = {name: getattr(self, name) for name in ("text", "informativeText", "detailedText")}
        said["windowTitle"] = self.windowTitle.strip()
        ctkMessageBox.shown.append(said)
        return ctkMessageBox.answers.pop(0) if ctkMessageBox.answers else QtWidgets.QMessageBox.StandardButton.Ok

    exec_ = exec

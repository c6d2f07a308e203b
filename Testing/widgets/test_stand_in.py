"""The stand-in has PythonQt's ways, and refuses what PythonQt lacks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from stand_in import Host

UI = """<?xml version="1.0"?><ui version="4.0"><class>Panel</class><widget class="qMRMLWidget" name="Panel">
<layout class="QVBoxLayout" name="rows"><item><widget class="qMRMLNodeComboBox" name="volumes">
<property name="nodeTypes"><stringlist notr="true"><string>vtkMRMLScalarVolumeNode</string></stringlist></property>
<property name="{property}"><bool>true</bool></property></widget></item>
<item><widget class="{widget}" name="go"><property name="text"><string>Go</string></property></widget></item></layout>
</widget><connections><connection><sender>Panel</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
<receiver>volumes</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection></connections></ui>"""


def test_properties_are_attributes_and_not_methods(a_slicer: Host) -> None:
    import qt

    button = qt.QPushButton("Go")
    button.text, button.enabled = "Stop", False
    assert (button.text, button.enabled) == ("Stop", False)
    with pytest.raises(TypeError, match="not callable"):
        button.text()


def test_a_slot_gets_as_many_values_as_it_takes(a_slicer: Host) -> None:
    import qt

    heard: list[object] = []
    box = qt.QCheckBox("2D")
    box.connect("toggled(bool)", lambda: heard.append("none"))
    box.connect("toggled(bool)", heard.append)
    box.checked = True
    assert heard == ["none", True]
    assert box.disconnect("toggled(bool)", heard.append)
    box.checked = False
    assert heard == ["none", True, "none"]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("button.connect('pressed(int)', print)", AttributeError),
        ("setattr(button, 'volume', 1)", AttributeError),
        ("setattr(button, 'click', print)", AttributeError),
        ("button.volume", AttributeError),
        ("qt.Qt.AlignmentFlag.AlignLeft", AttributeError),
        ("qt.QSizePolicy.Policy.Fixed", AttributeError),
        ("qt.QPushButton('Go', clicked=print)", TypeError),
        ("qt.Signal", AttributeError),
        ("qt.QtWidgets", AttributeError),
    ],
)
def test_what_pythonqt_lacks_is_refused(a_slicer: Host, code: str, error: type[Exception]) -> None:
    import qt

    with pytest.raises(error):
        eval(code, {"qt": qt, "button": qt.QPushButton("Go")})


def test_the_values_of_enums_are_in_their_class(a_slicer: Host) -> None:
    import qt

    assert qt.Qt.AlignLeft | qt.Qt.AlignTop
    assert qt.QSizePolicy(qt.QSizePolicy.Fixed, qt.QSizePolicy.Preferred).horizontalPolicy() == qt.QSizePolicy.Fixed


def test_a_class_of_ones_own_may_have_attributes_but_not_instead_of_a_method(a_slicer: Host) -> None:
    import qt

    class Chart(qt.QWidget):
        def __init__(self) -> None:
            super().__init__()
            self.curves = [1, 2]

    chart = Chart()
    assert chart.curves == [1, 2] and isinstance(chart, qt.QWidget) and not isinstance(chart, qt.QLabel)
    with pytest.raises(AttributeError, match="can not be overwritten"):
        chart.update = print


def test_a_ui_file_is_loaded_with_its_scene_connections(a_slicer: Host, tmp_path: Path) -> None:
    import slicer

    path = tmp_path / "panel.ui"
    path.write_text(UI.format(property="noneEnabled", widget="QPushButton"), encoding="utf-8")
    panel = slicer.util.loadUI(str(path))
    ui = slicer.util.childWidgetVariables(panel)
    panel.setMRMLScene(slicer.mrmlScene)
    assert ui.volumes.mrmlScene() is a_slicer.scene and ui.volumes.currentNode() is None
    assert panel.findChild("qMRMLNodeComboBox") is ui.volumes and ui.go.text == "Go"


@pytest.mark.parametrize(
    ("name", "widget"), [("nonEnabled", "QPushButton"), ("noneEnabled", "ctkPushBotton")], ids=["property", "class"]
)
def test_a_misspelt_name_in_a_ui_file_is_an_error(a_slicer: Host, tmp_path: Path, name: str, widget: str) -> None:
    import slicer

    path = tmp_path / "panel.ui"
    path.write_text(UI.format(property=name, widget=widget), encoding="utf-8")
    with pytest.raises(AttributeError):
        slicer.util.loadUI(str(path))


def test_a_node_selector_follows_the_scene(a_slicer: Host) -> None:
    import slicer

    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.setMRMLScene(slicer.mrmlScene)
    chosen: list[object] = []
    selector.connect("currentNodeChanged(vtkMRMLNode*)", chosen.append)
    first = a_slicer.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    second = a_slicer.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "MR")
    assert selector.currentNode() is first and selector.nodeCount() == 2
    selector.setCurrentNode(second)
    a_slicer.scene.RemoveNode(second)
    assert [node and node.GetName() for node in chosen] == ["CT", "MR", "CT"]
    a_slicer.close_scene()
    assert selector.currentNode() is None


def test_message_boxes_are_kept_and_answered(a_slicer: Host) -> None:
    import qt
    import slicer

    a_slicer.answers.append(qt.QMessageBox.Cancel)
    assert not slicer.util.confirmOkCancelDisplay("Install?", detailedText="torch")
    assert slicer.util.confirmOkCancelDisplay("Again?")
    assert [(box["text"], box["detailedText"]) for box in a_slicer.shown] == [("Install?", "torch"), ("Again?", "")]


def test_an_error_in_a_slot_is_told_in_the_end(a_slicer: Host) -> None:
    import qt
    from stand_in import pythonqt

    button = qt.QPushButton("Go")
    button.connect("clicked()", lambda: 1 / 0)
    button.click()
    with pytest.raises(ZeroDivisionError):
        a_slicer.raise_slot_errors()
    pythonqt.slot_errors.clear()


def test_nothing_of_slicer_is_left_behind(tmp_path: Path) -> None:
    import sys

    import slicer
    import stand_in

    with stand_in.start(tmp_path):
        assert slicer.app.testingEnabled() is False and "qt" in sys.modules
    assert not hasattr(slicer, "app") and not hasattr(slicer, "mrmlScene") and "qt" not in sys.modules


def test_a_static_method_and_a_property_may_have_one_name(a_slicer: Host) -> None:
    import qt

    heard: list[int] = []
    qt.QTimer.singleShot(0, lambda: heard.append(1))
    a_slicer.wait(lambda: heard)
    assert qt.QTimer().singleShot is False


def test_none_and_the_truth_values_outlive_any_number_of_calls(a_slicer: Host) -> None:
    """PySide6 takes references to them away, see `stand_in.host`."""
    import qt

    label = qt.QLabel("text")
    for _ in range(2000):
        label.setText("text")
    assert all(sys.getrefcount(constant) > 1_000_000_000 for constant in (None, True, False))

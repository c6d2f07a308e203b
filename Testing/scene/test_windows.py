"""How bright a CT is shown: windows with names, and one that is set only where nobody has chosen."""

from __future__ import annotations

from typing import Any

import pytest
from APFormerSlicerLib.scene.windows import PRESETS, Window, nearest, show_window, show_window_unasked

BONE = Window("Bone", 400, 1800)


def shown(node: Any) -> tuple[float, float]:
    display = node.GetDisplayNode()
    return display.GetWindowLevelMin(), display.GetWindowLevelMax()


def test_a_window_is_centre_and_width_in_hounsfield_units() -> None:
    assert (BONE.lower, BONE.upper) == (-500, 1300)
    assert {window.name: (window.lower, window.upper) for window in PRESETS}["Abdomen"] == (-150, 250)
    assert Window.between("x", -10, 30) == Window("x", 10, 40)


@pytest.mark.parametrize(
    ("lower", "upper", "name"),
    [(0, 255, "Abdomen"), (0, 100, "Brain"), (-1000, 200, "Lung"), (-1024, 3071, "Bone"), (-120, 230, "Soft tissue")],
)
def test_the_nearest_preset_shows_most_of_what_a_model_sees(lower: float, upper: float, name: str) -> None:
    assert nearest(Window.between("", lower, upper)).name == name


def test_it_is_shown_with_the_window(a_volume_node: Any) -> None:
    show_window(a_volume_node, BONE)
    assert shown(a_volume_node) == (-500, 1300) and not a_volume_node.GetDisplayNode().GetAutoWindowLevel()


def test_unasked_only_slicers_own_window_is_replaced_never_a_persons(a_volume_node: Any) -> None:
    a_volume_node.CreateDefaultDisplayNodes()
    display = a_volume_node.GetDisplayNode()
    assert show_window_unasked(a_volume_node, BONE) and shown(a_volume_node) == (-500, 1300)
    assert show_window_unasked(a_volume_node, PRESETS[0]) and shown(a_volume_node) == (-150, 250)  # ours, of before
    display.SetWindowLevelMinMax(0, 300)  # dragged
    assert not show_window_unasked(a_volume_node, BONE) and shown(a_volume_node) == (0, 300)
    show_window(a_volume_node, PRESETS[0])  # chosen by name
    assert not show_window_unasked(a_volume_node, BONE)


def test_a_window_over_all_values_was_not_chosen(a_volume_node: Any) -> None:
    a_volume_node.CreateDefaultDisplayNodes()
    display = a_volume_node.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(*a_volume_node.GetImageData().GetScalarRange())
    assert show_window_unasked(a_volume_node, BONE) and shown(a_volume_node) == (-500, 1300)

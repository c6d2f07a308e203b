"""Brightness and contrast of the chosen image: by the mouse, by windows with names and keys, by its own values."""

from __future__ import annotations

import numpy as np
import pytest
from apformer.volume import Volume

pytest.importorskip("slicer", reason="slicer-core is not installed")

from desk_samples import Seat, a_ct, an_mr, drag, window_of


@pytest.mark.parametrize("view", ["Red", "Green", "Yellow"])
def test_dragging_in_a_slice_view_sets_brightness_and_contrast_and_is_told(a_seat: Seat, view: str) -> None:
    image = a_seat.load("CT", a_ct())
    assert a_seat.state.window == {"name": "Abdomen", "line": "W 400 L 50"}
    drag(a_seat, view)
    width, level = window_of(image)
    assert width > 400 and level != 50
    assert a_seat.state.window == {"name": "", "line": f"W {width:.0f} L {level:.0f}"}


def test_a_window_that_was_dragged_stays_when_another_model_is_chosen(a_seat: Seat) -> None:
    image = a_seat.load("CT", a_ct())
    drag(a_seat)
    dragged = window_of(image)
    a_seat.act("choose_model", "slices")
    a_seat.act("choose_model", "liver-ct")
    assert window_of(image) == dragged


def test_a_tool_in_hand_draws_and_leaves_brightness_alone(a_seat: Seat) -> None:
    image = a_seat.load("CT", a_ct())
    a_seat.segment(np.zeros(a_ct().spatial_shape, np.uint8))
    a_seat.act("choose_effect", "paint")
    before = window_of(image)
    drag(a_seat)
    assert window_of(image) == before
    assert float(a_seat.state.segments[0]["ml"]) > 0.0


@pytest.mark.parametrize(
    ("key", "name", "width", "level"),
    [("6", "Abdomen", 400, 50), ("7", "Soft tissue", 350, 50), ("8", "Brain", 80, 40), ("9", "Lung", 1500, -600),
     ("0", "Bone", 1800, 400)],
)  # fmt: skip
def test_each_window_has_a_key_and_is_told_by_its_name(
    a_seat: Seat, key: str, name: str, width: float, level: float
) -> None:
    image = a_seat.load("CT", a_ct())
    drag(a_seat)
    a_seat.press(key)
    assert window_of(image) == (width, level)
    assert a_seat.state.window == {"name": name, "line": f"W {width} L {level}"}
    assert {"name": name, "key": key, "line": f"W {width} L {level}"} in a_seat.state.windows


def test_the_image_can_be_shown_by_its_own_values_again(a_seat: Seat) -> None:
    image = a_seat.load("CT", a_ct())
    a_seat.press("9")
    a_seat.press("w")
    assert image.GetDisplayNode().GetAutoWindowLevel()
    width, level = window_of(image)
    assert (level - width / 2, level + width / 2) == pytest.approx((-1000, 40), abs=10)


def test_windows_of_ct_are_offered_for_ct_alone(a_seat: Seat) -> None:
    image = a_seat.load("MR", an_mr())
    assert a_seat.state.windows == []
    before = window_of(image)
    a_seat.press("9")
    assert a_seat.told("error") == ["The image is not known to be a CT, so the window Lung means nothing for it."]
    assert window_of(image) == before
    drag(a_seat)
    assert window_of(image) != before


def test_a_colour_image_has_no_window(a_seat: Seat) -> None:
    a_seat.load("photo", Volume(np.zeros((3, 1, 8, 8), np.uint8), np.eye(4), "RGB"))
    assert a_seat.state.window is None

"""Distances between two clicks in a slice view."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")

from desk_samples import SIDE, Seat, a_ct, drag, window_of


def lines(a_seat: Seat) -> list[Any]:
    return list(a_seat.desk.scene.GetNodesByClass("vtkMRMLMarkupsLineNode"))


def click(a_seat: Seat, x: int, y: int) -> None:
    view = a_seat.desk.slicer.view_manager.get_view("Red")
    interactor = view.interactor()
    view.render_window().SetSize(SIDE, SIDE)
    interactor.UpdateSize(SIDE, SIDE)
    view._logic.ResizeSliceNode(SIDE, SIDE)

    def do() -> None:
        for event in ("EnterEvent", "MouseMoveEvent", "LeftButtonPressEvent", "LeftButtonReleaseEvent"):
            interactor.SetEventInformation(x, y, 0, 0, chr(0), 0, None)
            interactor.InvokeEvent(event)

    a_seat.do(do)


def measure(a_seat: Seat) -> Any:
    a_seat.press("l")
    click(a_seat, 100, 150)
    click(a_seat, 200, 150)
    return lines(a_seat)[-1]


def test_a_line_between_two_clicks_has_their_distance_and_then_dragging_sets_brightness_again(a_seat: Seat) -> None:
    image = a_seat.load("CT", a_ct())
    line = measure(a_seat)
    node = a_seat.desk.views.node("Red")
    mm_per_pixel = node.GetFieldOfView()[0] / SIDE
    assert line.GetMeasurement("length").GetValue() == pytest.approx(100 * mm_per_pixel, rel=0.05)
    assert (a_seat.state.measuring, a_seat.state.lengths) == (False, 1)
    before = window_of(image)
    drag(a_seat, "Green")
    assert window_of(image) != before


def test_lines_are_seen_on_their_own_image_and_go_with_it(a_seat: Seat) -> None:
    first = a_seat.load("first", a_ct())
    line = measure(a_seat)
    a_seat.load("second", a_ct())
    assert not line.GetDisplayNode().GetVisibility() and a_seat.state.lengths == 0
    a_seat.choose(first)
    assert line.GetDisplayNode().GetVisibility() and a_seat.state.lengths == 1
    a_seat.act("close_image", first.GetID())
    assert lines(a_seat) == []


def test_the_tool_is_put_down_by_its_key_or_another_tool_and_leaves_no_half_line(a_seat: Seat) -> None:
    a_seat.load("CT", a_ct())
    a_seat.segment()
    for key in ("l", "p", "Escape"):
        a_seat.press("l")
        assert a_seat.state.measuring
        click(a_seat, 100, 150)
        a_seat.press(key)
        assert not a_seat.state.measuring
        assert lines(a_seat) == []
    a_seat.press("p")
    a_seat.press("l")
    assert (a_seat.state.effect, a_seat.state.measuring) == ("none", True)


def test_measured_distances_are_removed_at_once(a_seat: Seat) -> None:
    a_seat.load("CT", a_ct())
    measure(a_seat)
    measure(a_seat)
    assert a_seat.state.lengths == 2
    a_seat.act("remove_lengths")
    assert (lines(a_seat), a_seat.state.lengths) == ([], 0)


def test_without_an_image_nothing_is_measured(a_seat: Seat) -> None:
    a_seat.press("l")
    assert not a_seat.state.measuring
    assert lines(a_seat) == []

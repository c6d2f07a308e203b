"""What a reader does to see the image through its segments: hides, dims, recolours, renames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from apformer.errors import InputError

pytest.importorskip("slicer", reason="slicer-core is not installed")

from desk_samples import SHAPE, Seat
from workflow_samples import a_block


@pytest.fixture
def a_node(a_seat: Seat) -> Any:
    """A segmentation with two segments, "anterior" and "posterior"."""
    a_seat.load("CT")
    return a_seat.segment(a_block(SHAPE))


def ids(a_seat: Seat) -> list[str]:
    return [one["id"] for one in a_seat.state.segments]


def shown(a_seat: Seat) -> list[bool]:
    return [one["shown"] for one in a_seat.state.segments]


def test_one_segment_is_hidden_and_the_other_stays(a_seat: Seat, a_node: Any) -> None:
    first, second = ids(a_seat)
    a_seat.act("toggle_segment", first)
    assert shown(a_seat) == [False, True]
    display = a_node.GetDisplayNode()
    assert (display.GetSegmentVisibility(first), display.GetSegmentVisibility(second)) == (False, True)
    a_seat.act("toggle_segment", first)
    assert shown(a_seat) == [True, True]


def test_a_key_hides_all_segments_and_brings_back_those_that_were_shown(a_seat: Seat, a_node: Any) -> None:
    first, _ = ids(a_seat)
    a_seat.act("toggle_segment", first)
    a_seat.press("h")
    assert shown(a_seat) == [False, False]
    assert not a_node.GetDisplayNode().GetVisibility()
    a_seat.press("h")
    assert shown(a_seat) == [False, True]


def test_of_hidden_segments_one_can_be_shown_alone(a_seat: Seat, a_node: Any) -> None:
    _, second = ids(a_seat)
    a_seat.press("h")
    a_seat.act("toggle_segment", second)
    assert shown(a_seat) == [False, True]
    a_seat.act("toggle_segment", second)
    a_seat.press("h")
    assert shown(a_seat) == [True, True]


def test_the_image_is_seen_through_segments_as_far_as_the_user_says(a_seat: Seat, a_node: Any) -> None:
    assert a_seat.state.fill_opacity == 0.35
    a_seat.set("fill_opacity", 0.1)
    assert a_node.GetDisplayNode().GetOpacity2DFill() == pytest.approx(0.1)
    a_seat.segment(a_block(SHAPE))
    assert a_seat.state.fill_opacity == 0.1  # what the user chose stays with the next result
    a_seat.load("another")
    a_seat.segment(a_block(SHAPE))
    assert a_seat.state.fill_opacity == 0.35


def test_a_colour_that_the_user_chose_stays_with_the_next_result(a_seat: Seat, a_node: Any) -> None:
    first, _ = ids(a_seat)
    a_seat.act("recolor_segment", first, "#336699")
    assert a_seat.state.segments[0]["color"] == "#336699"
    a_seat.segment(np.zeros(SHAPE, np.uint8))
    assert a_seat.state.segments[0]["color"] == "#336699"


@pytest.mark.parametrize("value", ["red", "#12345", "#1234567", "#gggggg", None, 7, ["#123456"]])
def test_what_is_no_colour_is_refused(a_seat: Seat, a_node: Any, value: object) -> None:
    before = a_seat.state.segments[0]["color"]
    with pytest.raises(InputError, match="a colour such as"):
        a_seat.act("recolor_segment", ids(a_seat)[0], value)
    assert a_seat.state.segments[0]["color"] == before


def test_a_segment_is_renamed_and_two_are_never_called_the_same(a_seat: Seat, a_node: Any) -> None:
    first, _ = ids(a_seat)
    a_seat.act("rename_segment", first, "  head  of it ")
    assert [one["name"] for one in a_seat.state.segments] == ["head of it", "posterior"]
    for name in ("Posterior", "", "x" * 65):
        a_seat.act("rename_segment", first, name)
        assert a_seat.told("error")
        assert [one["name"] for one in a_seat.state.segments] == ["head of it", "posterior"]
        a_seat.do(lambda: a_seat.desk.notices.clear())


def test_a_segment_that_is_not_there_is_refused(a_seat: Seat, a_node: Any) -> None:
    for action in ("toggle_segment", "rename_segment"):
        with pytest.raises(InputError):
            a_seat.act(action, "nobody", "x")


def test_the_legend_of_each_map_has_the_colours_that_the_views_use(a_seat: Seat) -> None:
    doubt, looked = a_seat.state.legends["uncertainty"], a_seat.state.legends["kept_tokens"]
    assert doubt["bar"].startswith("linear-gradient(to right, #") and doubt["bar"].count("#") == 9
    assert len(set(doubt["bar"].partition(", ")[2].split(", "))) > 5
    assert looked["bar"] == "linear-gradient(to right, #00ffff, #00ffff)"
    assert (doubt["low"], doubt["high"]) == ("a little unsure", "as unsure as can be")

"""Which slices of a volume a view goes through, and where they lie along its slider."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")

from APFormerSlicerLib.web.slices import ViewSlices

SHAPE = (5, 8, 10)  # k, j, i
GRID = np.array([[-1.0, 0, 0, 20], [0, -2.0, 0, 30], [0, 0, 3.0, -6], [0, 0, 0, 1]])  # LPS, 1 x 2 x 3 mm
AXIAL, SAGITTAL, CORONAL = np.eye(3)[[2, 0, 1]]


def turned(degrees: float) -> np.ndarray:
    """`GRID` turned about the patient's left-right axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1.0]]) @ GRID


@pytest.fixture
def axial() -> ViewSlices:
    found = ViewSlices.across(AXIAL, GRID, SHAPE)
    assert found is not None
    return found


def test_each_view_goes_through_the_slices_across_it_in_the_direction_of_its_slider() -> None:
    assert ViewSlices.across(AXIAL, GRID, SHAPE) == ViewSlices(axis=0, count=5, first=-6.0, step=3.0)
    assert ViewSlices.across(CORONAL, GRID, SHAPE) == ViewSlices(axis=1, count=8, first=30.0, step=-2.0)
    assert ViewSlices.across(SAGITTAL, GRID, SHAPE) == ViewSlices(axis=2, count=10, first=20.0, step=-1.0)


def test_a_place_of_the_slider_is_the_nearest_slice_and_back(axial: ViewSlices) -> None:
    assert [axial.number(offset) for offset in (-99.0, -6.0, -4.6, -4.4, 6.0, 99.0)] == [0, 0, 0, 1, 4, 4]
    assert all(axial.number(axial.offset(number)) == number for number in range(axial.count))


def test_a_view_that_cuts_through_slices_at_an_angle_goes_through_none_of_them() -> None:
    assert ViewSlices.across(AXIAL, turned(10), SHAPE) is None
    assert ViewSlices.across(SAGITTAL, turned(10), SHAPE) is not None  # it is turned about this axis
    assert ViewSlices.across(AXIAL, turned(0.5), SHAPE) is not None  # less than half a slice over all of it


def test_neighbouring_slices_are_one_mark_between_the_middles_of_the_gaps(axial: ViewSlices) -> None:
    first, last, right = axial.marks({"proposed": {0, 1, 4}, "drawn": set(), "right": {2}})
    assert (first["left"], first["width"], first["count"]) == (0.0, 1.5 / 4, 2)
    assert (last["left"], last["width"], last["from"]) == (3.5 / 4, 0.5 / 4, 4)
    assert (right["kind"], right["left"], right["width"]) == ("right", 1.5 / 4, 1 / 4)


def test_where_the_slider_counts_the_other_way_the_leftmost_slice_is_the_last() -> None:
    coronal = ViewSlices.across(CORONAL, GRID, SHAPE)
    assert coronal is not None
    (mark,) = coronal.marks({"right": {6, 7}})
    assert (mark["from"], mark["step"], mark["count"]) == (7, -1, 2)
    assert mark["left"] == 0.0 and mark["width"] == pytest.approx(1.5 / 7)


def test_a_strip_has_no_more_marks_than_a_screen_has_room_for_and_keeps_what_is_certain() -> None:
    found = ViewSlices(axis=0, count=4000, first=0.0, step=1.0)
    marks = found.marks({"proposed": set(range(0, 4000, 2)), "right": {1, 3001}})
    assert len(marks) == 400 and [mark["from"] for mark in marks[-2:]] == [1, 3001]

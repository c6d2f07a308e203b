"""Which slices of a structure a user outlined: found from the voxels, in any plane, and what cannot be followed."""

from __future__ import annotations

import numpy as np
import pytest
from apformer.errors import InputError
from apformer.following.drawn_slices import DrawnSlices, Earlier, NothingBetweenError, drawn_slices

SHAPE = (20, 24, 28)
SLICE, ROW, COLUMN = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
BALL = (SLICE - 10) ** 2 + (ROW - 12) ** 2 + (COLUMN - 14) ** 2 < 81


def outlined(*slices: int, axis: int = 0, of: np.ndarray = BALL) -> np.ndarray:
    return DrawnSlices(axis, slices).of(of)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_plane_is_that_in_which_slices_were_left_out(axis: int) -> None:
    assert drawn_slices(outlined(6, 10, 13, axis=axis), "Ball") == DrawnSlices(axis, (6, 10, 13))


def test_what_lies_between_is_every_other_slice_from_the_first_to_the_last() -> None:
    assert DrawnSlices(0, (6, 8, 9, 12)).between == [7, 10, 11]


def test_slices_in_a_row_count_where_others_were_left_out() -> None:
    assert drawn_slices(outlined(4, 5, 6, 7, 8, 13), "Ball").numbers == (4, 5, 6, 7, 8, 13)


def test_a_brush_that_is_a_sphere_colours_neighbours_too() -> None:
    assert drawn_slices(outlined(5, 6, 7, 12, 13, 14), "Ball").numbers == (5, 6, 7, 12, 13, 14)


def test_two_outlines_of_one_plane_that_lie_beside_each_other_are_of_that_plane() -> None:
    apart = np.zeros(SHAPE, bool)
    apart[4, 2:8, 2:8], apart[12, 14:20, 18:24] = True, True  # slices are left out along every axis
    assert drawn_slices(apart, "Two") == DrawnSlices(0, (4, 12))


def test_a_stray_stroke_in_another_plane_is_no_second_plane() -> None:
    mask = outlined(4, 10, 16)
    mask[7:9, 12, 3:5] = True
    assert drawn_slices(mask, "Ball").numbers == (4, 7, 8, 10, 16)


@pytest.mark.parametrize("more", [outlined(14, axis=2), outlined(10, 14, axis=1)])
def test_slices_of_two_planes_are_told(more: np.ndarray) -> None:
    with pytest.raises(InputError, match="Ball is outlined on slices of two planes"):
        drawn_slices(outlined(6, 13) | more, "Ball")


def test_one_slice_is_told() -> None:
    with pytest.raises(InputError, match="Ball is outlined on one slice only"):
        drawn_slices(outlined(9), "Ball")


def test_two_spots_on_one_slice_are_one_slice() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[9, 4:7, 4:6], mask[9, 15:18, 20:22] = True, True
    with pytest.raises(InputError, match="one slice only"):
        drawn_slices(mask, "Spots")


@pytest.mark.parametrize("mask", [BALL, outlined(9, 10), (np.abs(COLUMN - 14) > 8) & (SLICE > 5)])
def test_a_structure_on_each_of_its_slices_needs_nothing(mask: np.ndarray) -> None:
    with pytest.raises(NothingBetweenError, match="on each of its slices already"):
        drawn_slices(mask, "Whole")


def test_an_empty_structure_needs_nothing() -> None:
    with pytest.raises(NothingBetweenError, match="Ball is empty"):
        drawn_slices(np.zeros(SHAPE, bool), "Ball")


# ------------------------------------------------------------------ a second time


def earlier() -> Earlier:
    return Earlier(DrawnSlices(0, (4, 10, 16)), BALL & (SLICE >= 4) & (SLICE <= 16))


def test_a_proposal_that_nobody_changed_needs_nothing() -> None:
    with pytest.raises(NothingBetweenError, match="Nothing of Ball was outlined since"):
        drawn_slices(earlier().mask, "Ball", earlier())


def test_a_proposed_slice_that_was_set_right_counts_as_outlined_from_then_on() -> None:
    now = earlier().mask.copy()
    now[7, 10] = False
    now[18, 12, 14] = True
    assert drawn_slices(now, "Ball", earlier()) == DrawnSlices(0, (4, 7, 10, 16, 18))


def test_a_proposed_slice_that_was_erased_is_empty_from_then_on() -> None:
    now = earlier().mask.copy()
    now[14] = False
    assert drawn_slices(now, "Ball", earlier()).numbers == (4, 10, 14, 16)


def test_erasing_all_but_one_outline_is_told() -> None:
    now = earlier().mask.copy()
    now[[4, 16]] = False
    with pytest.raises(InputError, match="one slice only"):
        drawn_slices(now, "Ball", earlier())


def test_a_stroke_through_all_slices_leaves_none_between() -> None:
    now = earlier().mask.copy()
    now[4:17, 12, 20:22] ^= True
    with pytest.raises(NothingBetweenError, match="on each of its slices"):
        drawn_slices(now, "Ball", earlier())

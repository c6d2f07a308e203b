"""Parts of arrays: cut to what is not 0, placed again, refused where they cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from apformer.errors import InputError
from apformer.part import Part
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

SHAPES = st.tuples(*[st.integers(1, 5)] * 3)


@given(arrays(np.uint8, SHAPES, elements=st.integers(0, 1), fill=st.just(0)))
def test_a_part_is_the_smallest_box_and_gives_the_whole_back(whole: np.ndarray) -> None:
    part = Part.of(whole)
    assert np.array_equal(part.whole(), whole)
    again = Part.at(part.array, part.place())
    assert np.array_equal(again.whole(), whole) and again.box_kji == part.box_kji
    for axis in range(3) if part.array.size else ():
        assert part.array.take(0, axis).any() and part.array.take(-1, axis).any()


def test_an_array_of_zeros_has_an_empty_part() -> None:
    part = Part.of(np.zeros((3, 4, 5), np.uint8))
    assert part.array.size == 0 and part.shape_kji == (3, 4, 5) and not part.whole().any()


@pytest.mark.parametrize(
    "place",
    [
        {"start_kji": [2, 0, 0], "shape_kji": [3, 4, 5]},
        {"start_kji": [-1, 0, 0], "shape_kji": [3, 4, 5]},
        {"start_kji": [0, 0], "shape_kji": [3, 4, 5]},
        {"start_kji": [0, 0, 0]},
        {"start_kji": "abc", "shape_kji": None},
    ],
)
def test_a_part_outside_of_the_whole_is_refused(place: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Part.at(np.ones((2, 2, 2), np.uint8), place)

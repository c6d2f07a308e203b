"""Boxes around what is kept: together where that is cheaper, inside the image, cut and pasted without a trace."""

from __future__ import annotations

import pytest
import torch
from apformer.pruning.boxes import BACKGROUND_LOGIT, GROUP_CELLS, Boxes, boxes_around, cut, merged, paste
from torch import Tensor

GRID = (40, 30)


def kept_in(*places: tuple[slice, slice]) -> Tensor:
    """(B, *GRID), 1 in one rectangle per image."""
    kept = torch.zeros(len(places), *GRID)
    for image, place in zip(kept, places, strict=True):
        image[place] = 1
    return kept


def test_boxes_that_hardly_differ_are_computed_together_in_training() -> None:
    kept = kept_in((slice(0, 8), slice(0, 8)), (slice(30, 40), slice(0, 8)), (slice(5, 13), slice(22, 28)))
    groups = boxes_around(kept)
    assert sorted(boxes.extent for boxes in groups) == [(8, 6), (8, 8), (10, 8)]
    (together,) = merged(groups, GRID)
    assert together.extent == (10, 8) and sorted(together.images) == [0, 1, 2]


def test_a_small_box_does_not_become_a_large_one_where_that_costs_more_than_a_group() -> None:
    groups = boxes_around(kept_in((slice(0, 24), slice(0, 24)), (slice(3, 5), slice(3, 5))))
    assert GROUP_CELLS < 24 * 24 - 2 * 2
    assert sorted(boxes.extent for boxes in merged(groups, GRID)) == [(2, 2), (24, 24)]


def test_a_box_made_larger_still_holds_what_is_kept_and_ends_inside_the_image() -> None:
    kept = kept_in((slice(38, 40), slice(27, 30)), (slice(0, 12), slice(4, 14)))
    (together,) = merged(boxes_around(kept), GRID)
    inside = torch.zeros_like(kept)
    for image, starts in zip(together.images, together.starts, strict=True):
        assert all(0 <= start <= n - length for start, length, n in zip(starts, together.extent, GRID, strict=True))
        inside[image, starts[0] : starts[0] + 12, starts[1] : starts[1] + 10] = 1
    assert (inside >= kept).all()


@pytest.mark.parametrize("cell", [(1, 1), (2, 3)])
def test_cutting_and_pasting_have_the_values_and_gradients_of_slices(cell: tuple[int, int]) -> None:
    groups = [Boxes((2, 0), ((1, 0), (0, 2)), (2, 2)), Boxes((3,), ((0, 0),), (3, 4))]
    size = (3 * cell[0], 4 * cell[1])
    features = torch.rand(4, 5, *size, requires_grad=True)
    weights = torch.rand(4, 5, *size)

    def rows_columns(starts: tuple[int, ...], extent: tuple[int, ...]) -> tuple[slice, slice]:
        rows, columns = (slice(s * c, (s + n) * c) for s, n, c in zip(starts, extent, cell, strict=True))
        return rows, columns

    whole = paste([2 * part for part in cut(features, groups, cell)], groups, features, 5, cell)
    (whole * weights).sum().backward()
    expected, gradient = torch.full_like(whole, -BACKGROUND_LOGIT), torch.zeros_like(whole)
    expected[:, 0] = BACKGROUND_LOGIT
    for boxes in groups:
        for image, starts in zip(boxes.images, boxes.starts, strict=True):
            place = (image, slice(None), *rows_columns(starts, boxes.extent))
            expected[place] = 2 * features.detach()[place]
            gradient[place] = 2 * weights[place]
    assert torch.equal(whole.detach(), expected)
    assert features.grad is not None and torch.equal(features.grad, gradient)


def test_without_any_box_all_is_background() -> None:
    like = torch.zeros(2, 1, 4, 4)
    logits = paste([], [], like, 3, (1, 1))
    assert (logits[:, 0] == BACKGROUND_LOGIT).all() and (logits[:, 1:] == -BACKGROUND_LOGIT).all()

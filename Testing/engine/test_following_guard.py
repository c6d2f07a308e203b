"""What is left out, what is counted, and how far that lets the network go."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from apformer.following.corrections import Corrections, Plane
from apformer.following.examples import Examples, worth
from apformer.following.guard import Evidence, folds
from torch import Tensor, nn


def known(groups: Tensor, classes: Tensor | None = None) -> Examples:
    """Items (N, 1, rows, columns) of which only the groups matter."""
    classes = torch.zeros_like(groups).long() if classes is None else classes
    return Examples(torch.zeros(groups.shape), classes, groups, torch.ones(groups.shape), None)


def test_of_several_corrections_each_is_left_out_once() -> None:
    groups = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    groups[0], groups[1, :, :2] = 1, 2
    held = folds(known(groups))
    assert len(held) == 2
    assert torch.equal(held[0], groups == 1) and torch.equal(held[1], groups == 2)


def test_many_corrections_are_left_out_in_three_parts_that_together_are_all() -> None:
    groups = torch.arange(1, 8, dtype=torch.uint8).reshape(7, 1, 1, 1).expand(7, 1, 2, 2).contiguous()
    held = folds(known(groups))
    assert len(held) == 3 and torch.stack(held).sum(0).eq(1).all()


def test_a_single_correction_is_cut_where_its_structure_is_longest() -> None:
    groups = torch.ones(1, 1, 6, 8, dtype=torch.uint8)
    classes = torch.zeros(1, 1, 6, 8).long()
    classes[0, 0, 2:4, 1:7] = 1
    first, second = folds(known(groups, classes))
    assert first[..., :4].all() and not first[..., 4:].any()
    assert torch.equal(second, ~first)


def test_strokes_beside_a_whole_slice_go_with_its_halves() -> None:
    groups = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    groups[0], groups[1, :, 0, 0], groups[2, :, 3, 3] = 1, 2, 3
    held = folds(known(groups))
    assert len(held) == 2 and torch.stack(held).sum(0).eq(groups > 0).all()
    assert [int(part[0].sum()) for part in held] == [8, 8]
    assert held[0][1].any() and held[1][2].any() and not held[0][2].any()


def test_corrections_that_the_network_does_not_see_are_not_left_out() -> None:
    groups = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    groups[0] = 5
    assert all(part[0].any() and not part[1].any() for part in folds(known(groups)))


def squares(*sizes: int) -> Tensor:
    """Items (N, 1, 64, 64) with a square of class 1 in the middle, of these sizes."""
    items = torch.zeros(len(sizes), 1, 64, 64, dtype=torch.uint8)
    for item, size in zip(items, sizes, strict=True):
        item[:, 32 - size // 2 : 32 + size // 2, 32 - size // 2 : 32 + size // 2] = 1
    return items


def test_what_was_wrong_on_a_slice_that_is_right_now_is_not_rehearsed_on_others() -> None:
    proposed, classes = squares(20, 20, 20), squares(12, 20, 20)
    settled = torch.zeros_like(proposed, dtype=torch.bool)
    settled[0] = True
    found = worth(proposed, classes, settled)
    assert found[2, 0, 32, 32] == 0.0, "a third of what was called the structure is"
    assert found[2, 0, 32, 18] == found[2, 0, 0, 0] == 1.0, "all that was called background is"
    settled[1] = True  # a second slice is right, on which the proposal was right
    found = worth(proposed, classes, settled)
    assert 0 < found[2, 0, 32, 32] < 1 and found[2, 0, 32, 18] == 1.0


def test_background_beside_a_structure_that_was_found_too_small_is_not_rehearsed_but_that_far_from_it_is() -> None:
    proposed, classes = squares(12, 12), squares(28, 28)
    settled = torch.zeros_like(proposed, dtype=torch.bool)
    settled[0] = True
    found = worth(proposed, classes, settled)
    assert found[1, 0, 32, 32] == 1.0, "all that was called the structure is"
    assert found[1, 0, 32, 22] < 0.3
    assert found[1, 0, 0, 0] == 1.0


def test_strokes_tell_nothing_of_what_else_is_right() -> None:
    proposed, classes = squares(20), squares(12)
    assert worth(proposed, classes, proposed != classes).eq(1).all()


def evidence(base: int, half: int, all_of_it: int) -> Evidence:
    return Evidence({0.0: base, 0.5: half, 1.0: all_of_it})


def test_the_smallest_share_that_is_as_good_is_taken() -> None:
    assert evidence(100, 54, 50).share() == 0.5
    assert evidence(100, 60, 50).share() == 1.0
    assert evidence(100, 50, 80).share() == 0.5


def test_where_fewer_than_a_tenth_of_the_errors_go_nothing_is_changed() -> None:
    assert evidence(100, 95, 91).share() == 0.0
    assert evidence(100, 120, 150).share() == 0.0
    assert evidence(0, 0, 0).share() == 0.0


def test_wrong_voxels_are_counted_at_every_share_among_those_left_out_alone() -> None:
    class Constant(nn.Module):
        """Class 1 everywhere when its weight is above 0.75."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, image: Tensor) -> Tensor:
            return torch.cat([torch.full_like(image, 0.75), self.weight.expand_as(image)], dim=1)

    classes = torch.ones(1, 1, 2, 3).long()
    held = torch.zeros(1, 1, 2, 3, dtype=torch.bool)
    held[..., 0] = True
    found = Evidence()
    examples = known(torch.ones(1, 1, 2, 3, dtype=torch.uint8), classes)
    found.add(Constant(), {"weight": torch.zeros(1)}, {"weight": torch.ones(1)}, examples, held)
    assert found.wrong[0.0] == found.wrong[0.5] == 2 and found.wrong[1.0] == found.wrong[2.0] == 0


def test_strokes_on_slices_are_groups_of_their_own_and_crossing_slices_share_no_voxel() -> None:
    proposal = np.zeros((3, 4, 5), np.uint8)
    proposal[:, 1, 1] = 1
    now = proposal.copy()
    now[2, 3, 3] = 1
    corrections = Corrections.of(proposal, now, [1], right=[Plane(0, 1), Plane(2, 4)])
    assert (corrections.groups[1, :, :4] == 1).all() and (corrections.groups[:, :, 4] == 2).all()
    assert corrections.groups[2, 3, 3] == 3 and corrections.groups[0, 0, 0] == 0
    assert str(corrections) == "2 corrected slices and strokes on 1 slice"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_strokes_are_counted_by_the_slices_that_the_user_draws_on(axis: int) -> None:
    proposal = np.zeros((6, 6, 6), np.uint8)
    proposal[0, 0, 0] = 1
    now = proposal.copy()
    now[2:5, 3, 3] = 1
    assert Corrections.of(proposal, now, [1], axis=axis).stroked == (3 if axis == 0 else 1)

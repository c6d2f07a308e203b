"""Where thresholds are put: the budget is met, and what images show is not lost; when a prune head knows enough."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")
from apformer.errors import InputError
from apformer.networks import build_network
from apformer.pruning.gates import dilate
from apformer.training.calibration import Calibration, foreground_inside, set_threshold, voxels_with_foreground
from torch import Tensor, nn

CELL = 8  # pixels along an axis


class Said(nn.Module):
    """In place of a prune head: these margins (rows, columns), image after image."""

    def __init__(self, margins: Sequence[Tensor]) -> None:
        super().__init__()
        self.margins, self.next = list(margins), 0

    def forward(self, cells: Tensor) -> Tensor:
        margin = self.margins[self.next % len(self.margins)]
        self.next += 1
        return torch.stack([-margin / 2, margin / 2])[None]


class Cases:
    """In place of prepared cases: images of noise with these labels (rows, columns)."""

    preprocessing = SimpleNamespace(patch_size=(32, 32))

    def __init__(self, labels: Sequence[Tensor]) -> None:
        self.labels = list(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def item(self, index: int) -> tuple[Tensor, Tensor]:
        label = self.labels[index]
        return torch.rand(1, *label.shape), label[None].to(torch.uint8)


def a_network(margins: Sequence[Tensor], ring: int = 0, name: str = "leanformer") -> Any:
    """A network of 4 x 4 tokens whose prune head says these margins."""
    torch.manual_seed(0)
    small = {"out_channels": 2, "image_size": (32, 32), "heads": 2, "head_dim": 4, "ffn_dim": 8, "depth": 1}
    own = {
        "leanformer": {"channels": (4, 6), "detail": 2, "width": 8},
        "apformer": {"channels": (4, 4, 8, 8), "spatial_dims": 2, "in_channels": 1},
    }
    network: Any = build_network(name, {**small, **own[name], "prune_queries": True, "safety_ring": ring})
    network.prune_head = Said(margins)
    return network


def a_label(*pixels: tuple[slice, slice]) -> Tensor:
    label = torch.zeros(32, 32)
    for place in pixels:
        label[place] = 1
    return label


def cell(row: int, column: int) -> tuple[slice, slice]:
    """The pixels of a cell."""
    return slice(CELL * row, CELL * (row + 1)), slice(CELL * column, CELL * (column + 1))


RAMP = torch.arange(16.0).reshape(4, 4)  # the later the cell, the surer the head


def kept(network: Any) -> Tensor:
    return (network.query_gate.threshold.detach() < RAMP).float()


def test_the_share_is_met_where_the_foreground_allows_it() -> None:
    network = a_network([RAMP])
    set_threshold(network, Cases([a_label(cell(3, 3))]), 0.25)
    assert kept(network).sum() == 4


def test_more_is_kept_where_the_share_would_leave_out_foreground() -> None:
    network = a_network([RAMP])
    set_threshold(network, Cases([a_label(cell(1, 2), cell(3, 3))]), 0.25)
    assert kept(network)[1, 2] == 1 and kept(network).sum() == 10, "cells 6 to 15"


def test_what_counts_are_voxels_so_a_cell_full_of_foreground_outweighs_many_with_a_corner_of_it() -> None:
    corners = [(slice(0, 1), slice(CELL * n, CELL * n + 1)) for n in range(1, 4)]  # cells 1 to 3, a pixel each
    label = a_label(cell(0, 0), cell(2, 0), *corners)
    network = a_network([RAMP])
    set_threshold(network, Cases([label]), 0.25, cells=0.5)  # half of the cells, which leaves out cell 0
    assert kept(network)[0, 0] == 1, "half of the foreground's voxels"


def test_a_case_that_has_become_unreadable_tells_nothing_and_without_any_the_threshold_stays() -> None:
    label = a_label(cell(3, 3))

    class Damaged(Cases):
        def item(self, index: int) -> tuple[Tensor, Tensor]:
            if index in lost:
                raise InputError("It is gone.", "", "")
            return super().item(index)

    lost = {0}
    network = a_network([RAMP])
    set_threshold(network, Damaged([label, label]), 0.25)
    assert kept(network).sum() == 4
    before, lost = float(network.query_gate.threshold.detach()), {0, 1}
    set_threshold(network, Damaged([label, label]), 1.0)
    assert float(network.query_gate.threshold.detach()) == before


def test_looking_at_the_cases_leaves_the_network_as_it_was() -> None:
    network = a_network([RAMP]).train()
    network.gating = "off"
    network.query_gate.threshold.data.fill_(0.25)
    set_threshold(network, Cases([a_label()]), None)
    assert network.training and network.gating == "off" and float(network.query_gate.threshold.detach()) == 0.25


def test_a_head_that_tells_foreground_apart_is_ready_and_one_that_does_not_is_not() -> None:
    label = a_label(cell(3, 2), cell(3, 3))
    cases = Cases([label, label])
    for margins, ready in ((RAMP, True), (-RAMP, False), (torch.zeros(4, 4), False)):
        assert Calibration(lambda: cases, 0.2).is_ready(a_network([margins, margins])) == ready


def test_a_head_is_not_ready_for_images_without_any_foreground() -> None:
    assert not Calibration(lambda: Cases([a_label()]), 0.5).is_ready(a_network([RAMP]))


def test_a_head_is_ready_although_the_structures_are_larger_than_the_budget() -> None:
    label = a_label((slice(16, 32), slice(0, 32)))  # half of the image
    assert Calibration(lambda: Cases([label]), 0.1).is_ready(a_network([RAMP]))


def test_what_lies_inside_is_counted_in_voxels_and_for_the_box_where_there_is_one() -> None:
    """Cells 5 and 10 are kept; the box around them holds cells 6 and 9 too."""
    margin = torch.full((4, 4), -1.0)
    margin[1, 1] = margin[2, 2] = 1.0
    label = a_label(cell(1, 1), cell(1, 2), (slice(0, 1), slice(0, 32)))  # a row of 32 pixels outside
    for name, inside in (("leanformer", 128), ("apformer", 64)):
        network = a_network([margin], name=name)
        network.query_gate.threshold.data.fill_(0.0)
        assert foreground_inside(network, Cases([label])) == pytest.approx(inside / 160)


def test_the_safety_ring_counts_as_inside() -> None:
    margin = torch.full((4, 4), -1.0)
    margin[0, 0] = 1.0
    network = a_network([margin], ring=1, name="apformer")
    network.query_gate.threshold.data.fill_(0.0)
    assert dilate((margin[None] > 0).float(), 1).sum() == 4
    assert foreground_inside(network, Cases([a_label(cell(0, 1), cell(3, 3))])) == 0.5


def test_without_foreground_there_is_no_share_of_it() -> None:
    assert foreground_inside(a_network([RAMP]), Cases([a_label()])) is None


def test_voxels_of_a_cell_are_counted_also_where_the_image_ends_in_the_middle_of_it() -> None:
    label = torch.zeros(1, 1, 10, 9)
    label[..., 7:, 8:] = 3
    assert voxels_with_foreground(label, (8, 8)).tolist() == [[[[0.0, 1.0], [0.0, 2.0]]]]

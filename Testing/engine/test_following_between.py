"""Any structure from a few slices: interpolated shapes, a network that moves them to edges, and its guard."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from apformer.errors import BundleError, InputError
from apformer.following import between as module
from apformer.following.between import Between
from apformer.following.drawn_slices import DrawnSlices
from apformer.following.edge_learning import Draw, asked_anew, learn
from apformer.following.edge_network import REACH, STEEPNESS, Channel, EdgeNetwork, started
from apformer.following.interpolation import Outline, interpolated
from apformer.following.outlined import LONGEST, Outlined
from apformer.volume import Volume

SIDE = 40
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE]


def disc(row: float, column: float, radius: float) -> np.ndarray:
    return (ROWS - row) ** 2 + (COLUMNS - column) ** 2 < radius**2


def a_bent_tube(seed: int = 0) -> tuple[Volume, np.ndarray]:
    """A bright tube whose middle slices lie far beside the line between its ends, and its label map."""
    rng = np.random.default_rng(seed)
    labels = np.stack([disc(18 + 5 * np.sin(k * 0.8), 20, 8) for k in range(13)]).astype(np.uint8)
    image = 100 + 80.0 * labels + rng.normal(0, 8, labels.shape)
    return Volume(image.astype(np.float32), np.diag([1.5, 1.5, 5.0, 1.0]), "MR"), labels


def only(labels: np.ndarray, slices: list[int]) -> np.ndarray:
    drawn = np.zeros_like(labels)
    drawn[slices] = labels[slices]
    return drawn


def between(volume: Volume, labels: np.ndarray, axis: int, slices: list[int], wanted: tuple = (), **how) -> Between:
    """All structures of a label map, or those that are wanted, outlined on the same slices."""
    values = wanted or sorted(set(np.unique(labels).tolist()) - {0})
    return module.between(volume, labels, {value: DrawnSlices(axis, tuple(slices)) for value in values}, **how)


def overlap(found: np.ndarray, true: np.ndarray) -> float:
    return 2 * (found & true).sum() / (found.sum() + true.sum())


# ---------------------------------------------------------------------- shapes


def test_halfway_between_two_discs_lies_the_disc_of_the_mean_radius() -> None:
    found = interpolated(Outline(disc(20, 20, 4)), Outline(disc(20, 20, 10)), 0.5) < 0
    assert overlap(found, disc(20, 20, 7)) > 0.97


def test_a_disc_that_moves_aside_keeps_its_size_on_the_way() -> None:
    first, second = disc(20, 10, 6), disc(20, 28, 6)  # apart: distances alone would lose it halfway
    found = interpolated(Outline(first), Outline(second), 0.5) < 0
    assert overlap(found, disc(20, 19, 6)) > 0.97


def test_the_wall_of_a_ring_that_narrows_stays_closed() -> None:
    wide, narrow = disc(20, 20, 14) & ~disc(20, 20, 11), disc(20, 20, 8) & ~disc(20, 20, 5)
    found = interpolated(Outline(wide), Outline(narrow), 0.5) < 0
    assert overlap(found, disc(20, 20, 11) & ~disc(20, 20, 8)) > 0.9


def test_an_arch_whose_ends_move_forward_is_not_moved_onto_itself() -> None:
    """Moved by the way of its centre of gravity, half of it would be missed."""
    wall = disc(20, 20, 14) & ~disc(20, 20, 11)
    found = interpolated(Outline(wall & (ROWS < 22)), Outline(wall & (ROWS < 14)), 0.5) < 0
    assert overlap(found, wall & (ROWS < 18)) > 0.85


def test_towards_an_empty_slice_a_structure_shrinks_and_is_gone_there() -> None:
    full, empty = Outline(disc(20, 20, 9)), Outline(np.zeros((SIDE, SIDE), bool))
    sizes = [int((interpolated(full, empty, share) < 0).sum()) for share in (0, 0.25, 0.5, 0.75, 1)]
    assert all(a > b for a, b in itertools.pairwise(sizes)) and sizes[-1] == 0
    assert not (interpolated(empty, empty, 0.5) < 0).any()


def test_a_structure_that_splits_in_two_ends_as_two() -> None:
    one, two = Outline(disc(20, 20, 9)), Outline(disc(20, 10, 5) | disc(20, 30, 5))
    found = (interpolated(one, two, 0.9) < 0).astype(np.uint8)
    parts = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(found)))
    assert parts.max() == 2


def test_distances_of_pixels_that_are_no_squares_are_measured_in_space() -> None:
    distance = Outline(COLUMNS < 20, (4.0, 0.5)).distance
    assert distance[5, 30] == pytest.approx(10 * 0.5 + 0.25, abs=0.3)
    across = Outline(ROWS < 20, (4.0, 0.5)).distance
    assert across[30, 5] == pytest.approx(11 * 4.0, abs=4.0)


# ---------------------------------------------------------------------- the network and what it sees


def test_a_network_that_has_learned_nothing_answers_the_interpolation() -> None:
    seen = torch.randn(2, len(Channel), 21, 30)
    assert torch.equal(EdgeNetwork()(seen), -seen[:, Channel.PRIOR] * (REACH * STEEPNESS))


def test_damaged_weights_are_refused(tmp_path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises((BundleError, RuntimeError)):
        started(broken)
    broken.write_bytes(b"nothing of the kind")
    with pytest.raises(BundleError):
        started(broken)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (7.7, 1.25), (0.2, 0.2)])
def test_a_structure_comes_back_to_where_it_was(spacing: tuple[float, float]) -> None:
    mask = disc(22, 14, 9)
    structure = Outlined(np.zeros((3, SIDE, SIDE)), {0: mask, 2: mask}, spacing)
    found = np.zeros_like(mask)
    found[structure.box] = structure.restored(-structure.outline[0].distance[None])[0] > 0
    assert overlap(found, mask) > 0.95


def test_a_long_thin_structure_costs_no_more_than_a_small_cut() -> None:
    line = np.zeros((600, 600), bool)
    line[300, 5:595] = True
    structure = Outlined(np.zeros((3, 600, 600), np.float32), {0: line, 2: line}, (0.5, 0.5))
    assert max(structure.shape) <= LONGEST


def test_an_outlined_slice_is_asked_for_with_less_error_than_twice_the_gap_has() -> None:
    """Interpolated from its neighbours it errs at twice the gap; the examples err as slices between do."""
    volume, labels = a_bent_tube()
    slices = [0, 4, 8, 12]
    structure = Outlined(volume.array, {k: labels[k] > 0 for k in slices}, (1.5, 1.5))
    true = structure.outline[4].mask
    at_twice = overlap(structure.prior(4, 0, 8) < 0, true)
    draw = Draw(0)
    asked = [overlap(asked_anew(structure, 4, draw)[Channel.PRIOR] < 0, true) for _ in range(20)]
    assert at_twice < np.mean(asked) < 1.0


def test_learning_lowers_what_it_is_judged_by_and_its_seed_decides() -> None:
    volume, labels = a_bent_tube()
    structure = Outlined(volume.array, {k: labels[k] > 0 for k in (0, 3, 6, 9, 12)}, (1.5, 1.5))
    twins = [started(), started()]
    for network in twins:
        assert learn(network, structure, structure.drawn, steps=2, draw=Draw(3)) == 2
    first, second = (network.state_dict() for network in twins)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["head.weight"], started().state_dict()["head.weight"])


# ---------------------------------------------------------------------- a proposal


def test_between_outlined_slices_the_image_decides() -> None:
    volume, labels = a_bent_tube()
    slices = [0, 4, 8, 12]
    gaps = [k for k in range(13) if k not in slices]
    drawn = only(labels, slices)
    found = between(volume, drawn, 0, slices, seconds=60, steps=4)
    shapes = between(volume, drawn, 0, slices, start=None, steps=0)
    (structure,) = found.structures
    assert structure.learned and structure.dice_learned > structure.dice_interpolated
    ours, theirs = (overlap(result.labels[gaps] > 0, labels[gaps] > 0) for result in (found, shapes))
    assert ours > theirs + 0.03
    assert structure.slices.between == gaps


def test_where_nothing_is_gained_the_interpolation_is_proposed_and_said_to_be_just_that() -> None:
    volume, labels = a_bent_tube()
    slices = [0, 4, 8, 12]
    found = between(volume, only(labels, slices), 0, slices, start=None, steps=0)  # nothing learned: nothing gained
    (structure,) = found.structures
    assert not structure.learned and "interpolated" in structure.reason and "gained nothing" in structure.reason
    middle = interpolated(Outline(labels[4] > 0), Outline(labels[8] > 0), 0.5) < 0
    assert np.array_equal(found.labels[6] > 0, middle)


def test_what_the_user_has_drawn_is_never_changed() -> None:
    volume, labels = a_bent_tube()
    drawn = only(labels, [0, 4, 8])
    drawn[2, 18:24, 18:22] = 7  # another structure, drawn on a slice between
    drawn[10] = labels[10]  # beyond the last outlined slice
    before = drawn.copy()
    found = between(volume, drawn, 0, [0, 4, 8], wanted=(1,), start=None, steps=0)
    assert np.array_equal(drawn, before)
    assert np.array_equal(found.labels[before > 0], before[before > 0])
    assert np.array_equal(found.labels != before, found.added)
    assert not found.added[[0, 4, 8, 9, 10, 11, 12]].any() and found.added[[1, 2, 3, 5, 6, 7]].any(axis=(1, 2)).all()


@pytest.mark.parametrize("axis", [1, 2])
def test_every_plane_gives_what_the_axial_one_gives(axis: int) -> None:
    volume, labels = a_bent_tube()
    slices = [0, 4, 8, 12]
    axial = between(volume, only(labels, slices), 0, slices, seconds=60, steps=1).labels
    edges = np.insert([1.5, 1.5], axis, 5.0)
    turned = Volume(np.moveaxis(volume.array, 0, axis), np.diag([*edges[::-1], 1.0]), "MR")
    found = between(turned, np.moveaxis(only(labels, slices), 0, axis), axis, slices, seconds=60, steps=1).labels
    same = np.moveaxis(found, axis, 0)
    assert overlap(same > 0, axial > 0) > 0.99


def test_slices_need_not_be_evenly_spaced_and_may_be_empty() -> None:
    volume, labels = a_bent_tube()
    labels[9:] = 0
    slices = [0, 2, 7, 8, 11]  # nothing on the last one
    found = between(volume, only(labels, slices), 0, slices, seconds=60, steps=1)
    assert found.structures[0].slices.between == [1, 3, 4, 5, 6, 9, 10]
    assert found.added[[1, 3, 4, 5, 6]].any(axis=(1, 2)).all() and not found.labels[11].any()


def test_two_structures_side_by_side_do_not_overlap() -> None:
    volume, labels = a_bent_tube()
    labels[(COLUMNS > 20)[None] & (labels > 0)] = 2
    slices = [0, 4, 8, 12]
    found = between(volume, only(labels, slices), 0, slices, seconds=60, steps=1)
    assert [structure.label for structure in found.structures] == [1, 2]
    for value in (1, 2):
        assert overlap(found.labels == value, labels == value) > 0.7


def test_fewer_than_three_outlines_are_not_enough_to_learn_from() -> None:
    volume, labels = a_bent_tube()
    drawn = only(labels, [4, 8])
    (structure,) = between(volume, drawn, 0, [0, 4, 8]).structures
    assert not structure.learned and "fewer than three" in structure.reason and structure.dice_learned is None


def test_an_image_without_contrast_gives_a_proposal_all_the_same() -> None:
    volume, labels = a_bent_tube()
    flat = volume.with_array(np.zeros(labels.shape, np.int16))
    found = between(flat, only(labels, [0, 6, 12]), 0, [0, 6, 12], seconds=60, steps=1)
    assert found.added.any()


def test_of_several_channels_the_first_is_looked_at() -> None:
    volume, labels = a_bent_tube()
    twice = Volume(np.stack([volume.array, np.zeros_like(volume.array)]), volume.ijk_to_ras, "MR")
    drawn = only(labels, [0, 6, 12])
    one, two = (between(image, drawn, 0, [0, 6, 12], seconds=60, steps=1).labels for image in (volume, twice))
    assert np.array_equal(one, two)


def test_on_a_slow_machine_the_networks_learn_for_less_long() -> None:
    volume, labels = a_bent_tube()
    ticking = itertools.count()
    found = between(
        volume, only(labels, [0, 6, 12]), 0, [0, 6, 12], seconds=30, steps=500, clock=lambda: float(next(ticking))
    )
    assert 0 < found.structures[0].steps < 30


def test_the_work_can_be_cancelled_at_any_step() -> None:
    volume, labels = a_bent_tube()
    asked = itertools.count()

    def check() -> None:
        if next(asked) > 3:
            raise KeyboardInterrupt

    drawn = only(labels, [0, 6, 12])
    with pytest.raises(KeyboardInterrupt):
        between(volume, drawn, 0, [0, 6, 12], check=check)
    assert np.array_equal(drawn, only(labels, [0, 6, 12]))


@pytest.mark.parametrize(
    ("slices", "said"),
    [
        ([], "No slice"),
        ([4], "1 slice"),
        ([4, 5, 6], "Every slice"),
        ([0, 99], "not in the image"),
        ([1, 3], "Label 1 is on none"),
    ],
)
def test_slices_that_cannot_be_used_are_told(slices: list[int], said: str) -> None:
    volume, labels = a_bent_tube()
    with pytest.raises(InputError, match=said):
        between(volume, only(labels, [0, 4, 8, 12]), 0, slices)


def test_labels_that_do_not_fit_the_image_are_told() -> None:
    volume, labels = a_bent_tube()
    with pytest.raises(InputError, match="changed meanwhile"):
        between(volume, labels[:, :20], 0, [0, 4])
    with pytest.raises(InputError, match="changed meanwhile"):
        between(volume, labels.astype(float), 0, [0, 4])
    with pytest.raises(InputError, match="0 to 255"):
        between(volume, labels.astype(np.int16) * 300, 0, [0, 4])
    with pytest.raises(InputError, match="no axis 3"):
        between(volume, labels, 3, [0, 4])
    with pytest.raises(InputError, match="Label 9 is on none"):
        between(volume, labels, 0, [0, 4], wanted=(9,))


def test_the_learned_answer_is_the_mean_of_networks_that_left_out_different_slices(monkeypatch) -> None:
    """Each outlined slice is judged by a network that has not learned from it."""
    learned_from: list[list[int]] = []
    monkeypatch.setattr(
        module, "learn", lambda network, structure, slices, **rest: learned_from.append(list(slices)) or 0
    )
    volume, labels = a_bent_tube()
    slices = [0, 3, 6, 9, 12]
    (structure,) = between(volume, only(labels, slices), 0, slices).structures
    _, _, *folds = learned_from  # the first two are the steps whose time is taken
    assert len(folds) == module.FOLDS and structure.left_out == len(slices) - 2
    assert sorted(index for fold in folds for index in set(slices) - set(fold)) == slices

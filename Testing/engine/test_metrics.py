"""Dice and surface distances: cases small enough to count by hand, and MONAI on random ones."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from apformer.errors import InputError
from apformer.metrics import Overlap, assd_mm, dice, evaluate, hd95_mm, over_cases, pooled_dice, surface_distances
from apformer.volume import Volume


def mask(*rows: str) -> np.ndarray:
    """A one-slice mask (1, j, i) drawn with # and ."""
    return np.array([[[character == "#" for character in row] for row in rows]])


def label_map(array: np.ndarray, matrix: np.ndarray | None = None) -> Volume:
    return Volume(np.asarray(array, np.uint8), np.eye(4) if matrix is None else matrix)


def rotated(spacing: tuple[float, float, float]) -> np.ndarray:
    """An oblique matrix: 30 degrees about the third axis."""
    c, s = math.cos(math.pi / 6), math.sin(math.pi / 6)
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) * spacing
    return matrix


def blob(seed: int, shape: tuple[int, int, int] = (9, 14, 12)) -> np.ndarray:
    """A random lumpy mask: thresholded noise, smoothed a little."""
    noise = np.random.default_rng(seed).normal(size=shape)
    for axis in range(3):
        noise = noise + np.roll(noise, 1, axis) + np.roll(noise, -1, axis)
    return noise > 4.0


def test_dice_counts_the_overlap_twice():
    assert dice(mask("##.."), mask(".##.")) == pytest.approx(2 * 1 / (2 + 2))


def test_dice_of_two_empty_masks_is_one_and_of_one_empty_mask_is_zero():
    assert dice(mask("...."), mask("....")) == 1.0
    assert dice(mask("#..."), mask("....")) == 0.0


def test_pooled_dice_weighs_cases_by_their_size():
    small_miss = (mask("#..."), mask("...#"))  # Dice 0 of 2 voxels
    large_hit = (mask("####", "####"), mask("####", "####"))  # Dice 1 of 16
    assert pooled_dice(iter([small_miss, large_hit])) == pytest.approx(16 / 18)
    assert pooled_dice([]) is None


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(InputError, match="shapes"):
        dice(mask("##"), mask("###"))


def test_single_voxels_are_as_far_apart_as_their_centres_in_mm():
    one, other = np.zeros((2, 3, 4), bool), np.zeros((2, 3, 4), bool)
    one[0, 0, 0] = other[1, 2, 3] = True
    expected = math.sqrt((3 * 0.5) ** 2 + (2 * 1.0) ** 2 + (1 * 3.0) ** 2)  # i, j, k steps times spacing
    assert hd95_mm(one, other, (0.5, 1.0, 3.0)) == pytest.approx(expected, rel=1e-6)
    assert assd_mm(one, other, (0.5, 1.0, 3.0)) == pytest.approx(expected, rel=1e-6)


def test_distances_of_two_bars_match_a_count_by_hand():
    # bars of 2 and 3 voxels in one row, 2 mm per voxel: A at 0, 1; B at 1, 2, 3
    ours, theirs = mask("##.."), mask(".###")
    to_theirs, to_ours = surface_distances(ours, theirs, (2.0, 1.0, 1.0))
    assert sorted(to_theirs) == [0.0, 2.0]
    assert sorted(to_ours) == [0.0, 2.0, 4.0]
    assert assd_mm(ours, theirs, (2.0, 1.0, 1.0)) == pytest.approx((0 + 2 + 0 + 2 + 4) / 5)
    assert hd95_mm(ours, theirs, (2.0, 1.0, 1.0)) == pytest.approx(np.percentile([0, 2, 4], 95))


def test_hd95_takes_the_worse_direction():
    ours, theirs = mask("#........."), mask("#........#")
    assert hd95_mm(ours, ours | theirs, (1.0, 1.0, 1.0)) == pytest.approx(np.percentile([0, 9], 95))


def test_the_inside_of_a_mask_is_not_surface():
    filled = mask(".....", ".###.", ".###.", ".###.", ".....")
    to_point, _ = surface_distances(filled, mask(".....", ".....", "..#..", ".....", "....."), (1.0, 1.0, 1.0))
    assert len(to_point) == 8  # the ring; the centre of the single slice is inside
    assert to_point.min() == pytest.approx(1.0)


def test_a_mask_cut_by_the_edge_of_the_image_has_a_surface_there():
    full = np.ones((3, 3, 3), bool)
    directed, _ = surface_distances(full, full, (1.0, 1.0, 1.0))
    assert len(directed) == 26


def test_thick_surfaces_have_no_distance_to_themselves():
    plus = mask(".#.", "###", ".#.") | mask("...", ".#.", "...")
    assert hd95_mm(plus, plus, (1.0, 1.0, 1.0)) == 0.0
    checkered = np.indices((5, 5, 5)).sum(0) % 2 == 0
    assert hd95_mm(checkered, checkered, (1.0, 1.0, 1.0)) == 0.0


def test_distances_are_undefined_when_a_mask_is_empty():
    assert hd95_mm(mask("#..."), mask("...."), (1.0, 1.0, 1.0)) is None
    assert assd_mm(mask("...."), mask("...."), (1.0, 1.0, 1.0)) is None


def test_cropping_to_the_masks_does_not_change_the_distances():
    ours, theirs = blob(1), blob(2)
    frame = ((20, 30), (5, 0), (0, 40))
    spacing = (0.7, 1.1, 2.5)
    assert hd95_mm(np.pad(ours, 1), np.pad(theirs, 1), spacing) == pytest.approx(
        hd95_mm(np.pad(ours, frame), np.pad(theirs, frame), spacing)
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.3, 4.0)])
def test_metrics_agree_with_monai_on_random_masks(seed: int, spacing: tuple[float, float, float]):
    monai = pytest.importorskip("monai.metrics", reason="MONAI is a development dependency")
    pytest.importorskip("scipy", reason="MONAI's surface distances need scipy")
    import torch

    ours, theirs = blob(2 * seed), blob(2 * seed + 1)
    kji = tuple(reversed(spacing))
    one, other = (torch.from_numpy(m[None, None].astype(np.float32)) for m in (ours, theirs))
    hausdorff = monai.compute_hausdorff_distance(one, other, include_background=True, percentile=95, spacing=kji)
    average = monai.compute_average_surface_distance(one, other, include_background=True, symmetric=True, spacing=kji)
    assert hd95_mm(ours, theirs, spacing) == pytest.approx(float(hausdorff), rel=1e-4)
    assert assd_mm(ours, theirs, spacing) == pytest.approx(float(average), rel=1e-4)
    assert dice(ours, theirs) == pytest.approx(float(monai.compute_dice(one, other)), rel=1e-5)


def test_evaluate_reports_each_label_and_survives_json():
    prediction = label_map([[[1, 1, 0, 2]]])
    reference = label_map([[[1, 0, 0, 2]]])
    report = json.loads(json.dumps(evaluate(prediction, reference, {1: "head", 2: "tail", 3: "absent"}).as_dict()))
    assert report["labels"]["1"] == {
        "name": "head",
        "dice": pytest.approx(2 / 3),
        "hd95_mm": pytest.approx(np.percentile([0, 1], 95)),
        "assd_mm": pytest.approx(1 / 3),
        "volume_ml": pytest.approx(0.002),
        "reference_volume_ml": pytest.approx(0.001),
        "false_positive_ml": 0.0,
    }
    assert report["mean_dice"] == pytest.approx((2 / 3 + 1) / 2)


def test_a_label_that_the_reference_has_not_is_judged_by_nobody_and_what_was_found_of_it_is_told():
    evaluation = evaluate(label_map([[[1, 0, 2, 2]]]), label_map([[[1, 0, 0, 0]]]), {1: "x", 2: "found", 3: "absent"})
    found, absent = evaluation.labels[2], evaluation.labels[3]
    assert found.dice is None and found.false_positive_ml == pytest.approx(0.002)
    assert absent.dice is None and absent.false_positive_ml == 0.0
    assert evaluation.mean_dice == 1.0
    assert evaluate(label_map([[[2]]]), label_map([[[0]]]), {2: "found"}).mean_dice is None


def test_over_a_set_of_cases_a_label_counts_in_all_of_them_as_soon_as_one_has_it():
    hit, nothing_found, false_positive = Overlap(4, 4, 4), Overlap(0, 0, 0), Overlap(0, 3, 0)
    together = over_cases([hit, nothing_found, false_positive])
    assert together.case_dice == (1.0, 1.0, 0.0) and together.mean_dice == pytest.approx(2 / 3)
    assert together.pooled_dice == pytest.approx(8 / 11)
    assert (together.false_positives, together.false_positive_cases) == (3, 1)


def test_a_label_that_no_case_of_a_set_has_is_judged_by_nobody():
    together = over_cases([Overlap(0, 0, 0), Overlap(0, 3, 0)])
    assert together.case_dice == (None, None)
    assert together.mean_dice is None and together.pooled_dice is None
    assert (together.false_positives, together.false_positive_cases) == (3, 1)
    assert pooled_dice([(mask("##"), mask(".."))]) is None


def test_evaluate_finds_the_labels_itself_when_none_are_named():
    evaluation = evaluate(label_map([[[0, 4, 4]]]), label_map([[[0, 4, 7]]]))
    assert list(evaluation.labels) == [4, 7]
    assert evaluation.labels[7].volume_difference_ml == pytest.approx(-0.001)
    assert evaluate(label_map([[[0, 0]]]), label_map([[[0, 0]]])).mean_dice is None


def test_distances_on_an_oblique_grid_use_its_spacing():
    spacing = (0.5, 2.0, 3.0)
    array, shifted = np.zeros((3, 3, 3)), np.zeros((3, 3, 3))
    array[1, 0, 1] = shifted[1, 2, 1] = 1
    score = evaluate(label_map(array, rotated(spacing)), label_map(shifted, rotated(spacing)), {1: "x"}).labels[1]
    assert score.assd_mm == pytest.approx(4.0)
    assert score.volume_ml == pytest.approx(0.003)


def test_grids_of_different_shapes_are_refused():
    with pytest.raises(InputError, match="grids differ"):
        evaluate(label_map(np.zeros((1, 2, 3))), label_map(np.zeros((1, 3, 2))), {1: "x"})


@pytest.mark.parametrize(("row", "column", "shift"), [(0, 3, 0.11), (2, 2, 0.11), (0, 1, 0.5), (1, 3, math.nan)])
def test_grids_in_different_places_are_refused(row: int, column: int, shift: float):
    matrix = np.eye(4)
    matrix[row, column] += shift
    with pytest.raises(InputError, match="apart"):
        evaluate(label_map(np.zeros((2, 2, 2)), matrix), label_map(np.zeros((2, 2, 2))), {1: "x"})


def test_spacings_that_drift_apart_over_many_voxels_are_refused():
    matrix = np.diag([1.0003, 1.0, 1.0, 1.0])
    with pytest.raises(InputError, match="apart"):
        evaluate(label_map(np.zeros((1, 1, 512)), matrix), label_map(np.zeros((1, 1, 512))), {1: "x"})


def test_a_tenth_of_a_voxel_is_tolerated():
    matrix = np.eye(4)
    matrix[0, 3] += 0.09
    assert evaluate(label_map([[[1]]], matrix), label_map([[[1]]]), {1: "x"}).mean_dice == 1.0


def test_an_image_in_place_of_a_label_map_is_refused():
    image = Volume(np.full((1, 2, 2), 0.5), np.eye(4))
    with pytest.raises(InputError, match="whole numbers"):
        evaluate(image, label_map(np.zeros((1, 2, 2))), {1: "x"})
    with pytest.raises(InputError, match="channels"):
        evaluate(Volume(np.zeros((3, 1, 2, 2)), np.eye(4)), label_map(np.zeros((1, 2, 2))), {1: "x"})

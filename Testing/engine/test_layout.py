"""The grid of a model from nothing: the whole organ first, then as fine as there is room for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from apformer.bundles.preprocessing import Preprocessing
from apformer.datasets import SiteDataset
from apformer.datasets.table import make_table
from apformer.errors import ConfigError
from apformer.finetuning.design import PERCENTILES, Design
from apformer.finetuning.extents import Extent, Seen, extents
from apformer.finetuning.labels import LabelPlan, plan_labels
from apformer.finetuning.layout import MOST_VOXELS, is_flat, lay_out
from apformer.finetuning.request import Request
from apformer.finetuning.setup import refuse_lost
from apformer.volume import Volume


def a_case(
    size_ijk: tuple[int, int, int],
    spacing_ijk: tuple[float, float, float],
    *structures: tuple[float, float],
    picture: bool = False,
) -> Seen:
    """Structures: (edge of the box, length across), in mm, of the values 1, 2, ..."""
    seen = [Extent(n, np.full(3, box), np.full(3, chord)) for n, (box, chord) in enumerate(structures, 1)]
    i, j, k = size_ijk
    return Seen((k, j, i), np.diag([*spacing_ijk, 1.0]), picture, tuple(seen))


def test_a_box_is_as_large_as_the_structure_and_a_chord_as_long_as_its_lines() -> None:
    labels = np.zeros((6, 8, 10), np.uint8)  # k, j, i
    labels[1:3, 2:6, 3:9] = 2
    labels[1, 2, 3] = 0
    (found,) = extents(labels, (1, 2), np.array([1.0, 2.0, 3.0]))
    assert found.value == 2
    assert found.box_mm.tolist() == [6.0, 8.0, 6.0]
    assert found.chord_mm == pytest.approx([47 / 8 * 1, 47 / 12 * 2, 47 / 24 * 3])


def test_a_small_field_is_seen_whole_at_its_own_spacing() -> None:
    found = lay_out([a_case((35, 50, 36), (1.0, 1.0, 1.0), (25.0, 9.0))])
    assert found.spacing_mm == (1.0, 1.0, 1.0)
    assert found.patch == (40, 56, 40)


def test_an_organ_in_a_large_field_is_seen_with_all_of_the_field_where_that_is_not_much_coarser() -> None:
    atrium = a_case((256, 256, 110), (1.25, 1.25, 1.37), (90.0, 40.0))
    found = lay_out([atrium])
    edges = np.array(found.spacing_mm) * found.patch
    assert (edges >= [300, 300, 140]).all()
    assert max(found.spacing_mm) < 3.5
    assert np.prod(found.patch) <= MOST_VOXELS[3]


def test_a_small_structure_in_a_large_field_keeps_a_fine_spacing_and_all_the_room_around_it() -> None:
    nodule = a_case((512, 512, 600), (0.8, 0.8, 1.0), (8.0, 6.0))
    found = lay_out([nodule])
    assert found.spacing_mm == (0.8, 0.8, 1.0)
    assert (np.array(found.spacing_mm) * found.patch > 60).all()
    assert MOST_VOXELS[3] * 0.8 < np.prod(found.patch) <= MOST_VOXELS[3]


def test_the_thinnest_structure_is_three_voxels_wide_whatever_else_is_large() -> None:
    torso = a_case((512, 512, 600), (0.8, 0.8, 1.0), (220.0, 100.0), (150.0, 9.0))
    assert max(lay_out([torso]).spacing_mm) <= 3.0 + 1e-6


def test_one_odd_case_does_not_decide_for_all() -> None:
    usual = [a_case((256, 256, 110), (1.25, 1.25, 1.37), (90.0, 40.0)) for _ in range(8)]
    odd = a_case((256, 256, 110), (1.25, 1.25, 1.37), (2.0, 1.0))  # hardly anything was outlined in it
    assert lay_out([*usual, odd]) == lay_out(usual)


def test_slices_far_apart_get_a_network_of_slices() -> None:
    assert is_flat([a_case((320, 320, 40), (1.25, 1.25, 7.7), (150.0, 80.0))])
    assert is_flat([a_case((320, 320, 3), (0.7, 0.7, 0.7), (60.0, 40.0))])
    assert not is_flat([a_case((128, 128, 128), (3.9, 3.9, 2.5), (60.0, 40.0))])


def test_a_large_photo_is_seen_as_a_whole() -> None:
    found = lay_out([a_case((4000, 3000, 1), (1.0, 1.0, 1.0), (90.0, 70.0), picture=True)])
    assert np.prod(found.patch) <= MOST_VOXELS[2]
    assert found.patch[0] / found.patch[1] == pytest.approx(4 / 3, rel=0.05)


def test_axes_of_the_patient_are_found_in_a_sagittal_volume() -> None:
    matrix = np.array([[0, 0, 2.0, 0], [1.0, 0, 0, 0], [0, 1.5, 0, 0], [0, 0, 0, 1]])  # i = A, j = S, k = R
    found = lay_out([Seen((20, 40, 60), matrix, False)])
    assert found.spacing_mm == (2.0, 1.0, 1.5)
    assert found.patch == (24, 64, 40)


def test_without_labels_the_whole_image_decides() -> None:
    assert lay_out([a_case((24, 24, 24), (1.0, 1.0, 1.0))]).patch == (24, 24, 24)


# ------------------------------------------------------------------------------------------------ what would be lost


def a_model(spacing_mm: tuple[float, ...] | None) -> Design:
    dims = 3 if spacing_mm is None else len(spacing_mm)
    settings = Preprocessing(dims, "RAS" if dims == 3 else "LPS", spacing_mm, (16,) * dims, dict(PERCENTILES))
    return Design("MR", 1, settings, "apformer", {})


def a_site_with_a_dot(folder: Path) -> tuple[SiteDataset, LabelPlan]:
    """Two voxels of 1 mm are Nodule, a third of the image is Organ."""
    dataset = SiteDataset.create(folder, make_table(["Nodule,Organ"]))
    image = Volume(np.random.default_rng(0).normal(size=(12, 12, 12)).astype(np.float32), np.eye(4), "MR")
    labels = np.zeros(image.spatial_shape, np.uint8)
    labels[6, 6, 6:8], labels[:4] = 1, 2
    dataset.add(image, image.with_array(labels), patient="a")
    return dataset, plan_labels(dataset.labels, {1, 2}, None, Request(dataset.root, "new", None))


@pytest.mark.parametrize(("spacing", "remedy"), [((3.0, 3.0, 3.0), "0.42 mm"), ((2.0, 2.0), "0.47 mm")])
def test_a_structure_smaller_than_a_voxel_of_the_model_is_refused_with_the_spacing_that_would_do(
    tmp_path: Path, spacing: tuple[float, ...], remedy: str
) -> None:
    dataset, plan = a_site_with_a_dot(tmp_path / "site")
    with pytest.raises(ConfigError) as refused:
        refuse_lost(a_model(spacing), dataset.cases(), plan)
    assert "Nodule is smaller than a voxel" in refused.value.what
    assert remedy in refused.value.remedy


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.0), None])
def test_a_structure_of_a_voxel_or_more_is_not(tmp_path: Path, spacing: tuple[float, ...] | None) -> None:
    dataset, plan = a_site_with_a_dot(tmp_path / "site")
    refuse_lost(a_model(spacing), dataset.cases(), plan)

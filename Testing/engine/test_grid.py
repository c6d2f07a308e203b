"""Labels on the grid of their image: what is tolerated is told, and a place that was lost is never guessed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from apformer.errors import InputError
from apformer.files import read_volume
from apformer.grid import put_on_grid
from apformer.volume import Roi, Volume

PLACED = np.array([[-1.5, 0, 0, 20.0], [0, -1.5, 0, 30.0], [0, 0, 3.0, -40.0], [0, 0, 0, 1.0]])


def image(matrix: np.ndarray = PLACED) -> Volume:
    return Volume(np.zeros((4, 6, 5), np.int16), matrix)


def labels(matrix: np.ndarray = PLACED) -> Volume:
    array = np.zeros((4, 6, 5), np.uint8)
    array[1, 2, 3] = 1
    return Volume(array, matrix)


def moved(*by_mm: float) -> np.ndarray:
    matrix = PLACED.copy()
    matrix[:3, 3] += by_mm
    return matrix


def test_a_tenth_of_a_voxel_is_tolerated_and_told() -> None:
    placed = put_on_grid(labels(moved(0.14, 0, 0)), image())
    assert np.array_equal(placed.ijk_to_ras, PLACED) and np.array_equal(placed.array, labels().array)
    assert len(placed.notes) == 1 and "0.093 voxels beside" in placed.notes[0]


def test_rounding_is_not_worth_a_word() -> None:
    assert put_on_grid(labels(moved(1e-4, -1e-4, 1e-4)), image()).notes == ()


@pytest.mark.parametrize("shift", [(0.2, 0, 0), (1.5, 0, 0), (0, 0, 3.0)])
def test_labels_of_the_same_size_in_another_place_are_never_shifted(shift: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="not on the grid of the image"):
        put_on_grid(labels(moved(*shift)), image())


def without_origin() -> np.ndarray:
    return moved(*-PLACED[:3, 3])


@pytest.mark.parametrize("matrix", [without_origin(), np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0])])
def test_labels_that_lost_their_place_are_refused_with_the_sign_of_it(matrix: np.ndarray) -> None:
    for given, reference, role in ((matrix, PLACED, "label map"), (PLACED, matrix, "image")):
        with pytest.raises(InputError, match=f"The {role} has (the origin|no geometry)") as caught:
            put_on_grid(labels(given), image(reference))
        assert "lost" in caught.value.meaning and "export" in caught.value.remedy.casefold()


def test_labels_that_lost_their_origin_are_told_also_on_turned_axes() -> None:
    turned = labels().oriented("RAS")
    lost = turned.ijk_to_ras.copy()
    lost[:3, 3] = 0
    with pytest.raises(InputError, match="The label map has the origin"):
        put_on_grid(replace(turned, ijk_to_ras=lost), image())


def test_a_part_that_lost_its_origin_is_not_put_where_it_seems_to_fit() -> None:
    part = labels().cropped(Roi((1, 1, 0), (5, 4, 3)))
    assert np.array_equal(put_on_grid(part, image()).array, labels().array)
    whole = moved(10.0, 0, 1.0)  # an image whose voxels lie on whole steps from 0, 0, 0
    lost = without_origin()
    with pytest.raises(InputError, match="origin 0, 0, 0"):
        put_on_grid(replace(part, ijk_to_ras=lost), image(whole))


def test_an_image_that_begins_at_zero_has_lost_nothing() -> None:
    whole = labels(without_origin())
    part = whole.cropped(Roi((1, 1, 0), (5, 4, 3)))
    assert np.array_equal(put_on_grid(part, image(without_origin())).array, whole.array)


def test_the_shared_labels_beside_their_image(cases_root: Path) -> None:
    folder = cases_root / "15-lost-origin"
    shown = read_volume(folder / "image.nrrd")
    placed = put_on_grid(read_volume(folder / "labels-0.02mm.nrrd"), shown)
    assert np.array_equal(placed.ijk_to_ras, shown.ijk_to_ras) and "0.02 voxels beside" in placed.notes[0]
    with pytest.raises(InputError, match=r"no geometry"):
        put_on_grid(read_volume(folder / "labels-origin-lost.nrrd"), shown)

"""Where to look first: regions of doubt, the heaviest first, divided where they are large; no pass for each of them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from apformer.places import LARGEST_MM, MOST, Place, uncertain_places

SHAPE = (12, 40, 40)


def two_spots() -> np.ndarray:
    """A large spot of doubt around (i, j, k) = (10, 10, 4), a small one around (30, 30, 8), a thin line elsewhere."""
    array = np.zeros(SHAPE, np.float32)
    array[2:7, 7:14, 7:14] = 0.9
    array[7:10, 29:32, 29:32] = 0.8
    array[4, 35, 2:30] = 0.6
    return array


def test_places_are_centres_of_regions_in_the_patient_the_heaviest_first() -> None:
    matrix = np.array([[0.0, -1, 0, 100], [1, 0, 0, -20], [0, 0, 2, 7], [0, 0, 0, 1]])  # i to A, j to L
    first, second, *rest = uncertain_places(two_spots(), matrix)
    assert first.ijk == (10, 10, 4) and second.ijk == (30, 30, 8)
    assert first.ras == (90.0, -10.0, 15.0) and second.ras == (70.0, 10.0, 23.0)
    assert first.weight_ml == pytest.approx(5 * 7 * 7 * 0.9 * 2 / 1000, rel=0.1)
    assert not rest  # the thin line is faint when smoothed


def test_the_shell_of_an_organ_is_divided_at_the_spots_within_it() -> None:
    k, j, i = np.mgrid[:48, :48, :48]
    shell = np.where(np.abs(np.sqrt((k - 24.0) ** 2 + (j - 24.0) ** 2 + (i - 24.0) ** 2) - 18) < 1.5, 0.7, 0.0)
    spots = (42, 24, 24), (24, 6, 24)  # i, j, k
    for spot, radius in zip(spots, (5, 4), strict=True):
        shell[np.linalg.norm(np.stack([i, j, k]) - np.reshape(spot, (3, 1, 1, 1)), axis=0) < radius] = 1.0
    assert LARGEST_MM < 2 * 18
    places = uncertain_places(shell.astype(np.float32), np.eye(4))
    for spot, place in zip(spots, places, strict=False):
        assert np.abs(np.subtract(place.ijk, spot)).max() <= 2
    assert len(places) >= 2 and all(shell[place.ijk[::-1]] > 0 for place in places)


@pytest.mark.parametrize("shape", [(1, 9, 9), (3, 3, 3), (1, 1, 1)])
def test_single_slices_and_tiny_images_have_places_too(shape: tuple[int, int, int]) -> None:
    (place,) = uncertain_places(np.ones(shape, np.float32), np.eye(4))
    assert place.ijk == tuple((length - 1) // 2 for length in reversed(shape))
    assert uncertain_places(np.zeros(shape, np.float32), np.eye(4)) == []


def test_a_place_tells_its_box_and_goes_through_json() -> None:
    first, second = uncertain_places(two_spots(), np.diag([1.0, 1.0, 2.0, 1.0]))
    for place, spot in ((first, (slice(7, 14), slice(7, 14), slice(2, 7))), (second, (slice(29, 32),) * 2)):
        for start, stop, side in zip(place.start_ijk, place.stop_ijk, spot, strict=False):
            assert start <= side.start + 1 and stop >= side.stop - 1
    assert Place.from_dict(json.loads(json.dumps(first.as_dict()))) == first


@pytest.mark.parametrize(
    "change", [{"ijk": [1, 2]}, {"ras": ["x", 1, 2]}, {"ras": [1, 2, float("nan")]}, {"ijk": None}]
)
def test_a_place_that_is_none_is_refused(change: dict[str, Any]) -> None:
    place = uncertain_places(two_spots(), np.eye(4))[0]
    with pytest.raises((ValueError, TypeError)):
        Place.from_dict({**place.as_dict(), **change})


def test_hundreds_of_regions_cost_no_more_passes_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What once took 49 s on a CT: the whole array was compared with the number of each region."""
    passes: list[int] = []
    for name in ("ConnectedComponent", "GreaterEqual", "DiscreteGaussian"):
        real = getattr(sitk, name)

        def counted(image: Any, *more: Any, real: Any = real) -> Any:
            passes.append(image.GetNumberOfPixels())
            return real(image, *more)

        monkeypatch.setattr(sitk, name, counted)
    shape = (40, 60, 60)
    one, many = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    one[2:38, 10:14, 10:14] = 0.9
    many[2:38:4, 2:58:4, 2:58:4] = 1.0
    many[3:38:4, 2:58:4, 2:58:4] = 1.0
    uncertain_places(many, np.eye(4))
    of_many, passes[:] = list(passes), []
    uncertain_places(one, np.eye(4))
    whole = [size for size in of_many if size > 0.5 * many.size]
    assert len(whole) <= 3 and sum(of_many) <= 4 * many.size


def test_no_more_places_than_a_person_visits() -> None:
    array = np.zeros((12, 80, 80), np.float32)
    for row in range(5, 75, 10):
        for column in range(5, 75, 10):
            array[3:9, row : row + 5, column : column + 5] = 0.95
    assert len(uncertain_places(array, np.eye(4))) == MOST

"""Fields of view that no patient has are refused with the unit that the spacing seems to be in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from apformer.checks import check_image
from apformer.errors import InputError
from apformer.files import read_volume
from apformer.volume import Roi, Source, Volume


def noise(
    spacing: tuple[float, float, float], shape: tuple[int, int, int] = (20, 64, 64), kind: str = "nifti"
) -> Volume:
    voxels = np.random.default_rng(0).normal(0, 100, shape)
    return Volume(voxels, np.diag([*spacing, 1.0]), source=Source(None, kind=kind))


@pytest.mark.parametrize(
    ("spacing", "unit", "factor"),
    [
        ((700.0, 700.0, 1500.0), "micrometres", "0.001"),
        ((0.0007, 0.0007, 0.0015), "metres", "1000"),
        ((0.7, 0.7, 1500.0), "another unit", None),
        ((0.7e6, 0.7e6, 1.5e6), "nanometres", "1e-06"),
    ],
)
def test_a_field_of_view_that_cannot_be_is_refused_with_the_unit(
    spacing: tuple[float, float, float], unit: str, factor: str | None
) -> None:
    with pytest.raises(InputError, match="covers") as caught:
        check_image(noise(spacing))
    assert f"in {unit}, not in millimetres" in caught.value.meaning
    assert (f"multiply it by {factor}" in caught.value.remedy) == (factor is not None)


@pytest.mark.parametrize(
    ("spacing", "shape"),
    [
        ((4.0, 4.0, 5.0), (400, 128, 128)),  # whole-body PET/CT, 2 m
        ((0.02, 0.02, 0.02), (64, 64, 64)),  # micro-CT of 1.3 mm
        ((0.5, 0.5, 5000.0), (1, 64, 64)),  # one slice: how thick it is says nothing
        ((0.7, 0.7, 0.4), (4, 64, 64)),
    ],
)
def test_what_exists_is_let_through(spacing: tuple[float, float, float], shape: tuple[int, int, int]) -> None:
    check_image(noise(spacing, shape))


def test_the_nominal_pixels_of_pictures_say_nothing() -> None:
    check_image(noise((1.0, 1.0, 1.0), (1, 8, 4000), kind="picture"))


def test_a_part_of_an_image_may_be_small() -> None:
    whole = noise((0.3, 0.3, 0.3))
    part = whole.cropped(Roi((0, 0, 0), (3, 3, 3)))
    check_image(part, whole=whole)
    check_image(replace(part, source=Source(None, kind="part")))
    with pytest.raises(InputError, match=r"covers 0\.9 x 0\.9 x 0\.9 mm"):
        check_image(part)


def test_the_shared_image_in_micrometres_is_refused(cases_root: Path) -> None:
    with pytest.raises(InputError, match="covers") as caught:
        check_image(read_volume(cases_root / "10-implausible-spacing" / "micrometres-as-mm.nii.gz"))
    assert "micrometres" in caught.value.meaning

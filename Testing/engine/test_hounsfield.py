"""CT values that are no Hounsfield units are told with the remedy; true ones never are, whatever was done to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from apformer.files import read_volume
from apformer.hounsfield import doubtful_ct
from apformer.volume import Volume

Change = Callable[[np.ndarray], np.ndarray]


def a_ct(seed: int = 0) -> np.ndarray:
    """HU (k, j, i): a body of muscle, fat, lung and bone in air, with noise and blurred borders."""
    random = np.random.default_rng(seed)
    _, j, i = np.mgrid[0:12, -40:40, -40:40]
    radius = np.hypot(j, i * 0.8)
    hu = np.full(radius.shape, -1000.0)
    hu[radius < 34] = -100
    hu[radius < 29] = 50
    hu[np.hypot(j, i - 12) < 8] = -850
    bone = np.hypot(j - 18, i) < 6
    hu[bone] = random.gamma(2.0, 150.0, int(bone.sum())) + 150
    for axis in (1, 2):
        hu = (hu + np.roll(hu, 1, axis) + np.roll(hu, -1, axis)) / 3
    return np.rint(hu + random.normal(0, 12, hu.shape))


def window(low: float, high: float) -> Change:
    return lambda hu: np.clip((hu - low) / (high - low), 0, 1)


def outside(hu: np.ndarray, value: float) -> np.ndarray:
    """The corners of the slices replaced, as scanners and table removal do."""
    _, j, i = np.indices(hu.shape)
    middle_j, middle_i = hu.shape[1] / 2, hu.shape[2] / 2
    return np.where(np.hypot(j - middle_j, i - middle_i) > min(middle_i, middle_j), value, hu)


def soft_tissue(hu: np.ndarray) -> np.ndarray:
    """A crop without air and fat, from the middle of the largest box of muscle that the phantom has."""
    return np.clip(hu, 0, 130)


TRUE: dict[str, Change] = {
    "as it is": lambda hu: hu,
    "padding of -2000": lambda hu: outside(hu, -2000),
    "padding of -3024": lambda hu: outside(hu, -3024),
    "background of 0": lambda hu: np.where(hu < -400, 0, hu),
    "corners of 0": lambda hu: outside(hu, 0),
    "cut at -1024 and 3071": lambda hu: np.clip(hu, -1024, 3071),
    "cut at 0": lambda hu: np.clip(hu, 0, None),
    "cut to a window": lambda hu: np.clip(hu, -160, 240),
    "soft tissue alone": soft_tissue,
    "contrast": lambda hu: np.where((hu > 30) & (hu < 60), hu + 250, hu),
    "metal": lambda hu: np.where(np.random.default_rng(0).random(hu.shape) < 1e-3, 30000, hu),
    "low dose": lambda hu: hu + np.random.default_rng(0).normal(0, 60, hu.shape),
    "cone beam": lambda hu: 0.8 * hu + 50 + np.random.default_rng(0).normal(0, 100, hu.shape),
    "nothing but air around a finger": lambda hu: np.pad(hu[:, ::8, ::8], ((0, 0), (90, 90), (90, 90)),
                                                         constant_values=-1000),
}  # fmt: skip
WRONG: dict[str, tuple[Change, str]] = {
    "HU + 1024": (lambda hu: hu + 1024, "subtract 1024"),
    "stored values": (lambda hu: np.clip(hu + 1024, 0, 4095).astype(np.uint16), "subtract 1024"),
    "HU + 1000": (lambda hu: np.clip(hu + 1000, 0, None), "subtract 1024"),
    "stored values with padding": (lambda hu: outside(np.clip(hu + 1024, 0, None), -2000), "subtract 1024"),
    "HU - 1024": (lambda hu: hu - 1024, "add 1024"),
    "0..1": (window(-1024, 3071), "normalising"),
    "0..1 of a window": (window(-160, 240), "normalising"),
    "-1..1": (lambda hu: 2 * window(-1000, 1000)(hu) - 1, "normalising"),
    "zero mean, unit variance": (lambda hu: (hu - hu.mean()) / hu.std(), "normalising"),
    "thousands": (lambda hu: hu / 1000, "normalising"),
    "0..255 of a window": (lambda hu: np.rint(255 * window(-160, 240)(hu)).astype(np.uint8), "display window"),
    "0..65535 of a window": (lambda hu: 65535 * window(-160, 240)(hu), "check that the image is a CT"),
}


def said_of(array: np.ndarray) -> str | None:
    return doubtful_ct(Volume(array, np.eye(4), "CT"))


@pytest.mark.parametrize("change", TRUE.values(), ids=TRUE.keys())
def test_hounsfield_units_are_never_doubted(change: Change) -> None:
    assert said_of(change(a_ct())) is None


@pytest.mark.parametrize(("change", "remedy"), WRONG.values(), ids=WRONG.keys())
def test_other_values_are_told_with_the_remedy(change: Change, remedy: str) -> None:
    said = said_of(change(a_ct()))
    assert said is not None and remedy in said and "Export the image in Hounsfield units" in said


def a_few_ct(root: Path) -> list[np.ndarray]:
    paths = [
        root / "torso-ct" / "torso_ct.nii.gz",
        *sorted((root / "head-neck-ct" / "imagesTr").glob("*.nii.gz"))[::34],
    ]
    found = [read_volume(path).array.astype(np.float32) for path in paths if path.is_file()]
    if not found:
        pytest.skip("no CT is among the labelled data")
    return found


def test_real_ct_is_doubted_when_it_is_changed_and_only_then(data_root: Path) -> None:
    for hu in a_few_ct(data_root):
        for name in ("as it is", "padding of -2000", "background of 0", "cut at 0", "low dose", "cone beam", "metal"):
            assert said_of(TRUE[name](hu)) is None, name
        for name, (change, remedy) in WRONG.items():
            said = said_of(change(hu))
            assert said is not None and remedy in said, name


def test_small_pieces_of_real_ct_without_air_are_left_alone_and_moved_ones_recognised(data_root: Path) -> None:
    random = np.random.default_rng(3)
    for hu in a_few_ct(data_root):
        inside = np.argwhere((hu > 0) & (hu < 120))
        for _ in range(6):
            k, j, i = inside[random.integers(len(inside))]
            piece = hu[max(0, k - 6) : k + 6, max(0, j - 8) : j + 8, max(0, i - 8) : i + 8]
            assert said_of(piece) is None
            assert "subtract 1024" in str(said_of(piece + 1024))


def test_the_shared_ct_without_its_offset_is_told(cases_root: Path) -> None:
    said = doubtful_ct(read_volume(cases_root / "09-ct-offset" / "hu-plus-1024.nii.gz"))
    assert said is not None and "offset were missing" in said and "subtract 1024" in said

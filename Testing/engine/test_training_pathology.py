"""Random organ intensities and lesions: only the image changes, only inside the label, repeatably."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.training.augment import build_augmentation
from apformer.training.config import Augmentation
from apformer.training.pathology import RandLesionsd, RandOrganShiftd

EDGE = 1  # voxels on each side of the border, where a change fades


def _item(*size: int) -> dict[Any, Tensor]:
    label = torch.zeros(1, *size)
    label[(0, *(slice(n // 4, 3 * n // 4) for n in size))] = 1
    return {"image": torch.full((1, *size), 0.5), "label": label}


def _deep_and_far(label: Tensor) -> tuple[Tensor, Tensor]:
    """Voxels that are inside, and outside, by more than the edge."""
    pool = torch.nn.functional.max_pool2d if label.ndim == 3 else torch.nn.functional.max_pool3d
    far = pool(label, 2 * EDGE + 1, stride=1, padding=EDGE) == 0
    deep = pool(1 - label, 2 * EDGE + 1, stride=1, padding=EDGE) == 0
    return deep, far


@pytest.mark.parametrize("size", [(40, 48), (24, 28, 20)])
def test_an_organ_becomes_darker_or_brighter_as_a_whole(size: tuple[int, ...]) -> None:
    item = _item(*size)
    deep, far = _deep_and_far(item["label"])
    shifts = set()
    transform = RandOrganShiftd(1.0, (-0.3, 0.1)).set_random_state(seed=1)
    for _ in range(12):
        out = transform(item)
        assert torch.equal(out["label"], item["label"])
        assert torch.equal(out["image"][far], item["image"][far])
        inside = (out["image"] - item["image"])[deep]
        assert inside.max() - inside.min() < 1e-6
        shifts.add(round(float(inside[0]), 5))
    assert len(shifts) == 12
    assert min(shifts) < -0.1 and max(shifts) < 0.1 + 1e-6
    assert (item["image"] == 0.5).all()  # what was given is not changed


@pytest.mark.parametrize("size", [(64, 72), (24, 28, 20)])
def test_lesions_lie_inside_the_label_and_leave_it(size: tuple[int, ...]) -> None:
    item = _item(*size)
    deep, far = _deep_and_far(item["label"])
    transform = RandLesionsd(1.0, (-0.4, 0.2)).set_random_state(seed=2)
    shares = []
    for _ in range(20):
        out = transform(item)
        change = out["image"] - item["image"]
        assert torch.equal(out["label"], item["label"])
        assert (change[far] == 0).all()
        assert change.abs().max() <= 3 * 0.4 + 1e-6
        shares.append(float((change[deep].abs() > 0.02).float().mean()))
    assert 0.0 < sum(shares) / len(shares) < 0.6  # parts of the organ, not all of it
    assert sum(share > 0 for share in shares) >= 15


def test_without_an_organ_there_is_no_lesion() -> None:
    item = {"image": torch.rand(1, 16, 16), "label": torch.zeros(1, 16, 16)}
    assert torch.equal(RandLesionsd(1.0, (-0.4, 0.2))(item)["image"], item["image"])


def test_the_recipe_decides_whether_they_are_there_and_the_seed_what_they_do() -> None:
    item = _item(48, 48)
    off = Augmentation(
        affine_p=0, zoom_p=0, noise_p=0, blur_p=0, low_resolution_p=0, contrast_p=0, intensity_p=0
    )  # fmt: skip
    on = replace(off, organ_p=1.0, lesion_p=1.0)
    assert torch.equal(_augmented(off, item, 5)["image"], item["image"])
    assert not torch.equal(_augmented(on, item, 5)["image"], item["image"])
    assert torch.equal(_augmented(on, item, 5)["image"], _augmented(on, item, 5)["image"])
    assert not torch.equal(_augmented(on, item, 5)["image"], _augmented(on, item, 6)["image"])


def _augmented(config: Augmentation, item: dict[Any, Tensor], seed: int) -> Mapping[Any, Tensor]:
    transform = build_augmentation(config, 2, (48, 48), air_is_zero=True)
    transform.set_random_state(seed=seed)
    return transform(item)

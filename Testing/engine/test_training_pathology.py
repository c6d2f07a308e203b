"""Random organ intensities and lesions: only the image changes, only inside the label, repeatably."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

from apformer.training.augment import Augmenter
from apformer.training.config import Augmentation
from apformer.training.pathology import add_lesions, shift_organs

EDGE = 1  # voxels on each side of the border, where a change fades


def a_batch(count: int, *size: int) -> tuple[Tensor, Tensor]:
    label = torch.zeros(count, 1, *size)
    label[(slice(None), 0, *(slice(n // 4, 3 * n // 4) for n in size))] = 1
    return torch.full((count, 1, *size), 0.5), label


def _deep_and_far(label: Tensor) -> tuple[Tensor, Tensor]:
    """Voxels that are inside, and outside, by more than the edge."""
    pool = torch.nn.functional.max_pool2d if label.ndim == 4 else torch.nn.functional.max_pool3d
    far = pool(label, 2 * EDGE + 1, stride=1, padding=EDGE) == 0
    deep = pool(1 - label, 2 * EDGE + 1, stride=1, padding=EDGE) == 0
    return deep, far


@pytest.mark.parametrize("size", [(40, 48), (24, 28, 20)])
def test_an_organ_becomes_darker_or_brighter_as_a_whole(size: tuple[int, ...]) -> None:
    images, labels = a_batch(12, *size)
    deep, far = _deep_and_far(labels)
    changed = shift_organs(images, labels, 1.0, (-0.3, 0.1), torch.Generator().manual_seed(1))
    assert torch.equal(changed[far], images[far])
    shifts = []
    for image, before, inside in zip(changed, images, deep, strict=True):
        added = (image - before)[inside]
        assert added.max() - added.min() < 1e-6
        shifts.append(round(float(added[0]), 5))
    assert len(set(shifts)) == 12
    assert min(shifts) < -0.1 and max(shifts) < 0.1 + 1e-6
    assert (images == 0.5).all()  # what was given is not changed


@pytest.mark.parametrize("size", [(64, 72), (24, 28, 20)])
def test_lesions_lie_inside_the_label(size: tuple[int, ...]) -> None:
    images, labels = a_batch(20, *size)
    deep, far = _deep_and_far(labels)
    change = add_lesions(images, labels, 1.0, (-0.4, 0.2), torch.Generator().manual_seed(2)) - images
    assert (change[far] == 0).all()
    assert change.abs().max() <= 3 * 0.4 + 1e-6
    shares = [float((one[inside].abs() > 0.02).float().mean()) for one, inside in zip(change, deep, strict=True)]
    assert 0.0 < sum(shares) / len(shares) < 0.6  # parts of the organ, not all of it
    assert sum(share > 0 for share in shares) >= 15


def test_without_an_organ_there_is_no_lesion() -> None:
    images = torch.rand(3, 1, 16, 16)
    found = add_lesions(images, torch.zeros(3, 1, 16, 16), 1.0, (-0.4, 0.2), torch.Generator().manual_seed(0))
    assert torch.equal(found, images)


def test_they_happen_as_often_as_asked() -> None:
    images, labels = a_batch(400, 16, 16)
    changed = shift_organs(images, labels, 0.3, (0.1, 0.2), torch.Generator().manual_seed(3))
    assert float((changed != images).flatten(1).any(1).float().mean()) == pytest.approx(0.3, abs=0.07)


def test_the_recipe_decides_whether_they_are_there_and_the_seed_what_they_do() -> None:
    off = Augmentation(
        affine_p=0, zoom_p=0, noise_p=0, blur_p=0, low_resolution_p=0, contrast_p=0, intensity_p=0
    )  # fmt: skip
    on = replace(off, organ_p=1.0, lesion_p=1.0)
    images, _ = a_batch(2, 48, 48)
    assert torch.equal(_augmented(off, 5), images)
    assert not torch.equal(_augmented(on, 5), images)
    assert torch.equal(_augmented(on, 5), _augmented(on, 5))
    assert not torch.equal(_augmented(on, 5), _augmented(on, 6))


def _augmented(config: Augmentation, seed: int) -> Tensor:
    images, labels = a_batch(2, 48, 48)
    return Augmenter(config, (48, 48), air_is_zero=True)(images, labels, torch.Generator().manual_seed(seed))[0]

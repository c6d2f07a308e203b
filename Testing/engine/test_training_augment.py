"""Whole batches are changed as MONAI's transforms change single images: the same ranges, chances and moments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

import monai.transforms as mt
from apformer.training.augment import Augmenter
from apformer.training.config import Augmentation
from monai.data import set_track_meta

OFF = Augmentation(
    affine_p=0, zoom_p=0, noise_p=0, blur_p=0, low_resolution_p=0, contrast_p=0, intensity_p=0
)  # fmt: skip
DRAWS = 240


def monai_transforms(config: Augmentation, size: Sequence[int], air_is_zero: bool) -> mt.Compose:
    """The peer: what MONAI has for each entry of a recipe."""
    both, dims = ["image", "label"], len(size)
    radians = math.radians(config.rotate_degrees)
    padding = "zeros" if air_is_zero else "border"
    linear = "bilinear" if dims == 2 else "trilinear"
    steps = [mt.RandFlipd(both, prob=config.flip_p, spatial_axis=axis) for axis in config.flip_axes]
    steps.append(mt.RandRotate90d(both, prob=config.rotate90_p, max_k=3, spatial_axes=(0, 1)))
    steps.append(
        mt.RandAffined(
            both,
            prob=config.affine_p,
            rotate_range=(radians,) if dims == 2 else (radians,) * 3,
            shear_range=(config.shear,) * (2 if dims == 2 else 6),
            translate_range=[config.translate * n for n in size],
            scale_range=(config.stretch,) * dims,
            mode=("bilinear", "nearest"),
            padding_mode=padding,
        )
    )
    least, most = config.zoom
    edge = "constant" if air_is_zero else "edge"
    modes = (linear, "nearest-exact")
    steps.append(mt.RandZoomd(both, prob=config.zoom_p, min_zoom=least, max_zoom=most, mode=modes, padding_mode=edge))
    if config.elastic_p:
        spacing = max(8, min(size) // 8)
        steps.append(
            mt.Rand2DElasticd(
                both,
                spacing=(spacing, spacing),
                magnitude_range=(0.5, 2.0),
                prob=config.elastic_p,
                mode=("bilinear", "nearest"),
                padding_mode=padding,
            )
        )
    steps += [
        mt.RandBiasFieldd("image", prob=config.bias_field_p, degree=2, coeff_range=(0.0, 0.2)),
        mt.RandAdjustContrastd("image", prob=config.contrast_p, gamma=config.gamma, retain_stats=False),
        mt.RandScaleIntensityd("image", factors=config.intensity_scale, prob=config.intensity_p),
        mt.RandShiftIntensityd("image", offsets=config.intensity_shift, prob=config.intensity_p),
        mt.RandSimulateLowResolutiond(
            "image", prob=config.low_resolution_p, zoom_range=(0.4, 0.9), downsample_mode="area", upsample_mode=linear
        ),
        mt.RandGaussianSmoothd(
            "image", prob=config.blur_p, sigma_x=(0.25, 1.2), sigma_y=(0.25, 1.2), sigma_z=(0.25, 1.2)
        ),
        mt.RandGaussianNoised("image", prob=config.noise_p, std=config.noise_std),
    ]
    return mt.Compose(steps)


def a_picture(size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(1, *size): a bright box off the centre on a smooth ramp, and where it is."""
    label = torch.zeros(1, *size)
    label[(0, *(slice(n // 4, n // 2 + n // 8) for n in size))] = 1
    ramp = sum(torch.linspace(0, 0.2, n).reshape([-1 if a == axis else 1 for a in range(len(size))])
               for axis, n in enumerate(size))  # fmt: skip
    return ramp + 0.5 * label, label


def ours(config: Augmentation, size: Sequence[int], air: bool = True, draws: int = DRAWS) -> tuple[Tensor, Tensor]:
    image, label = a_picture(size)
    augmenter, generator = Augmenter(config, size, air_is_zero=air), torch.Generator().manual_seed(1)
    batch = (image.expand(8, *image.shape), label.expand(8, *label.shape))
    made = [augmenter(*batch, generator) for _ in range(draws // 8)]
    return torch.cat([images for images, _ in made]), torch.cat([labels for _, labels in made])


def theirs(config: Augmentation, size: Sequence[int], air: bool = True, draws: int = DRAWS) -> tuple[Tensor, Tensor]:
    set_track_meta(False)
    image, label = a_picture(size)
    transform = monai_transforms(config, size, air).set_random_state(seed=2)
    made = [transform({"image": image.clone(), "label": label.clone()}) for _ in range(draws)]
    return torch.stack([one["image"] for one in made]), torch.stack([one["label"] for one in made])


def moments(images: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
    """What a distribution of batches is compared by: (mean, spread) over the draws of a few numbers of each."""
    inside = labels > 0.5
    volume = inside.flatten(1).float().mean(1)
    places = [
        (inside * torch.arange(n).reshape([-1 if a == axis else 1 for a in range(images.ndim - 2)])).flatten(1).sum(1)
        / inside.flatten(1).sum(1).clamp_min(1)
        / n
        for axis, n in enumerate(images.shape[2:])
    ]
    rough = sum(images.diff(dim=axis).square().flatten(1).mean(1) for axis in range(2, images.ndim)).sqrt()
    numbers = {
        "mean": images.flatten(1).mean(1),
        "spread": images.flatten(1).std(1),
        "roughness": rough,
        "volume": volume,
        **{f"place {axis}": place for axis, place in enumerate(places)},
    }
    return {name: np.array([float(value.mean()), float(value.std())]) for name, value in numbers.items()}


RECIPES = {
    "affine": replace(OFF, affine_p=0.9, rotate_degrees=30.0),
    "zoom": replace(OFF, zoom_p=0.8, zoom=(0.6, 2.0)),
    "flips": replace(OFF, flip_axes=(0, 1), flip_p=0.3),
    "quarter turns": replace(OFF, rotate90_p=0.5),
    "elastic": replace(OFF, elastic_p=1.0),
    "bias field": replace(OFF, bias_field_p=0.8),
    "contrast": replace(OFF, contrast_p=0.8, gamma=(0.4, 1.8)),
    "intensity": replace(OFF, intensity_p=0.8, intensity_scale=0.4, intensity_shift=0.3),
    "low resolution": replace(OFF, low_resolution_p=0.8),
    "blur": replace(OFF, blur_p=0.8),
    "noise": replace(OFF, noise_p=0.8, noise_std=0.3),
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("size", [(48, 48), (20, 20, 20)], ids=["2D", "3D"])
def test_each_change_has_the_moments_of_monais(recipe: str, size: tuple[int, ...]) -> None:
    if recipe == "elastic" and len(size) == 3:
        pytest.skip("elastic changes are of 2D images")
    mine, peers = moments(*ours(RECIPES[recipe], size)), moments(*theirs(RECIPES[recipe], size))
    plain = moments(*(one[None] for one in a_picture(size)))
    for name, expected in peers.items():
        allowed = 0.3 * expected[1] + 0.02 * abs(plain[name][0]) + 1e-4  # three standard errors, and interpolation
        if name == "roughness" and recipe in ("zoom", "affine", "elastic"):
            allowed += 0.1 * abs(plain[name][0])  # the place of samples
        if recipe in ("blur", "elastic"):  # MONAI's blur lets zeros in at the edges; its control grid shrinks a little
            allowed += 0.06 * abs(plain[name][0])
        assert mine[name] == pytest.approx(expected, abs=allowed), name


def test_all_changes_together_have_the_moments_of_monais() -> None:
    config = Augmentation(flip_axes=(0, 1), zoom=(0.75, 1.35), noise_std=0.12, bias_field_p=0.15, rotate90_p=0.3)
    for air in (True, False):
        mine, peers = moments(*ours(config, (48, 48), air)), moments(*theirs(config, (48, 48), air))
        for name, expected in peers.items():
            if name != "roughness":  # MONAI interpolates twice
                assert mine[name] == pytest.approx(expected, abs=0.35 * expected[1] + 0.01), name


# ------------------------------------------------------------------ image and labels


STRONG = replace(
    OFF, affine_p=1.0, rotate_degrees=40, translate=0.2, zoom_p=1.0, flip_axes=(0, 1), rotate90_p=1.0, elastic_p=0.5
)


@pytest.mark.parametrize("size", [(64, 64), (24, 24, 24)], ids=["2D", "3D"])
def test_image_and_labels_move_alike(size: tuple[int, ...]) -> None:
    label = torch.zeros(8, 1, *size)
    label[(slice(None), 0, *(slice(n // 3, 2 * n // 3) for n in size))] = 1
    images, labels = Augmenter(STRONG, size, True)(label.clone(), label, torch.Generator().manual_seed(3))
    assert not torch.equal(labels, label)
    agreement = ((images > 0.5) == (labels > 0.5)).float().mean()
    assert agreement > 0.97


def test_labels_lie_on_the_image_to_a_fraction_of_a_pixel() -> None:
    square = torch.zeros(64, 1, 48, 48)
    square[:, :, 15:30, 18:36] = 1
    images, labels = Augmenter(replace(OFF, zoom_p=1.0), (48, 48), True)(
        square.clone(), square, torch.Generator().manual_seed(0)
    )
    rows = torch.arange(48.0)
    middles = [(batch.sum(3)[:, 0] * rows).sum(1) / batch.flatten(1).sum(1) for batch in (images, labels)]
    shift = float((middles[1] - middles[0]).mean())
    assert abs(shift) < 0.15, "a constant shift teaches the network outlines beside the organ"


def test_every_image_of_a_batch_is_changed_differently_and_the_given_one_stays() -> None:
    image, label = a_picture((32, 32))
    batch, maps = image.expand(6, 1, 32, 32).clone(), label.expand(6, 1, 32, 32).to(torch.uint8)
    augmenter = Augmenter(Augmentation(affine_p=1.0, intensity_p=1.0), (32, 32), True)
    images, labels = augmenter(batch, maps, torch.Generator().manual_seed(5))
    assert torch.equal(batch, image.expand(6, 1, 32, 32))
    assert labels.dtype == torch.uint8
    assert len({float(one.sum()) for one in images}) == 6
    again = augmenter(batch, maps, torch.Generator().manual_seed(5))
    assert torch.equal(again[0], images) and torch.equal(again[1], labels)


def test_a_recipe_that_changes_nothing_changes_nothing() -> None:
    image, label = a_picture((20, 22, 24))
    images, labels = Augmenter(OFF, (20, 22, 24), False)(image[None], label[None], torch.Generator())
    assert torch.equal(images, image[None]) and torch.equal(labels, label[None])


TURNED = replace(OFF, affine_p=1.0, rotate_degrees=45.0, shear=0.0, stretch=0.0, translate=0.0)


def a_ball_in_mm(size: Sequence[int], edges: Sequence[float], radius: float) -> Tensor:
    """(1, *size) of 0 and 1: all voxels within `radius` mm of the centre."""
    places = [(torch.arange(n) - (n - 1) / 2) * edge for n, edge in zip(size, edges, strict=True)]
    return (torch.stack(torch.meshgrid(*places, indexing="ij")).square().sum(0) < radius**2).float()[None]


def spreads_in_mm(images: Tensor, edges: Sequence[float]) -> Tensor:
    """(B, dims): how far what is bright lies from its middle along each axis, mm."""
    weights, found = images[:, 0] / images.flatten(1).sum(1).reshape(-1, *[1] * len(edges)), []
    for axis, edge in enumerate(edges):
        along = weights.sum([other + 1 for other in range(len(edges)) if other != axis])
        places = torch.arange(along.shape[1]) * edge
        middle = (along * places).sum(1, keepdim=True)
        found.append((along * (places - middle).square()).sum(1).sqrt())
    return torch.stack(found, dim=1)


@pytest.mark.parametrize(
    ("size", "edges", "radius"),
    [((16, 48, 48), (7.7, 2.5, 2.5), 32.0), ((48, 32, 32), (2.5, 3.9, 3.9), 32.0), ((40, 80), (4.0, 2.0), 48.0)],
)
def test_a_turned_ball_stays_a_ball_in_voxels_that_are_no_cubes(
    size: Sequence[int], edges: Sequence[float], radius: float
) -> None:
    ball = a_ball_in_mm(size, edges, radius).expand(16, 1, *size)
    turned, labels = Augmenter(TURNED, size, True, edges)(ball, ball, torch.Generator().manual_seed(2))
    plain = spreads_in_mm(ball, edges)
    for made in (turned, labels):
        assert spreads_in_mm(made, edges) == pytest.approx(plain, rel=0.03)
    sheared, _ = Augmenter(TURNED, size, True)(ball, ball, torch.Generator().manual_seed(2))
    assert (spreads_in_mm(sheared, edges) / plain - 1).abs().max() > 0.2, "what turning voxels makes of it"


def test_a_bar_is_turned_by_the_angle_in_space_and_not_in_voxels() -> None:
    """A bar of 60 mm along columns has as many mm along rows when it is turned by a quarter, so half as many voxels."""
    size, edges = (40, 80), (4.0, 2.0)
    bar = torch.zeros(1, 1, *size)
    bar[..., 19:21, 25:55] = 1
    augmenter = Augmenter(replace(TURNED, rotate_degrees=90.0), size, True, edges)
    turned = torch.cat([augmenter(bar, bar, torch.Generator().manual_seed(seed))[0] for seed in range(40)])
    rows, columns = spreads_in_mm(turned, edges).T
    assert rows.max() == pytest.approx(60 / math.sqrt(12), rel=0.1), "some are turned by nearly a quarter"
    length = (rows.square() + columns.square()).sqrt()
    assert length == pytest.approx(spreads_in_mm(bar, edges).norm().expand(40), rel=0.03), "no turn makes it longer"


@pytest.mark.parametrize("size", [(32, 40), (16, 20, 24)], ids=["2D", "3D"])
def test_cubes_of_any_edge_are_changed_as_if_nothing_were_known_of_them(size: tuple[int, ...]) -> None:
    image, label = a_picture(size)
    batch = image.expand(4, *image.shape), label.expand(4, *label.shape)
    made = [
        Augmenter(STRONG, size, True, edges)(*batch, torch.Generator().manual_seed(4))
        for edges in (None, [1.7] * len(size))
    ]
    assert torch.equal(made[0][0], made[1][0]) and torch.equal(made[0][1], made[1][1])


def test_sizes_that_differ_along_the_axes_keep_directions() -> None:
    """A shift along rows moves along rows, by its share of them."""
    image = torch.zeros(1, 1, 20, 60)
    image[..., 10, 30] = 1
    config = replace(OFF, affine_p=1.0, rotate_degrees=0.0, shear=0.0, stretch=0.0, translate=0.2)
    moved, _ = Augmenter(config, (20, 60), True)(image, image, torch.Generator().manual_seed(11))
    weights = moved[0, 0] / moved.sum()
    rows, columns = ((weights.sum(1 - axis) * torch.arange(n)).sum() for axis, n in enumerate((20, 60)))
    assert abs(float(rows) - 10) <= 4.01 and abs(float(columns) - 30) <= 12.01
    assert abs(float(rows) - 10) > 0.2 or abs(float(columns) - 30) > 0.2

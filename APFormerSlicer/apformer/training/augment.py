"""Random changes that stand for other scanners, protocols, positions and readers. MONAI transforms throughout."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import monai.transforms as mt
import torch
from monai.data import set_track_meta
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from .cases import PreparedCases
from .config import Augmentation, Stage
from .pathology import RandLesionsd, RandOrganShiftd


def build_augmentation(config: Augmentation, spatial_dims: int, size: Sequence[int], air_is_zero: bool) -> mt.Compose:
    """Transforms on {"image": (C, *size), "label": (1, *size)}; geometry moves both, intensity the image alone."""
    both = ["image", "label"]
    radians = math.radians(config.rotate_degrees)
    rotations = (radians,) if spatial_dims == 2 else (radians,) * 3
    # Air is 0 after a window; after percentile scaling 0 is the mean, so the edge is repeated instead.
    padding = "zeros" if air_is_zero else "border"
    steps: list[mt.Transform] = []
    if config.organ_p:
        steps.append(RandOrganShiftd(config.organ_p, config.organ_shift))
    if config.lesion_p:
        steps.append(RandLesionsd(config.lesion_p, config.lesion_shift))
    steps += [mt.RandFlipd(both, prob=config.flip_p, spatial_axis=axis) for axis in config.flip_axes]
    if config.rotate90_p:
        steps.append(mt.RandRotate90d(both, prob=config.rotate90_p, max_k=3, spatial_axes=(0, 1)))
    steps.append(
        mt.RandAffined(
            both,
            prob=config.affine_p,
            rotate_range=rotations,
            shear_range=(config.shear,) * (2 if spatial_dims == 2 else 6),
            translate_range=[config.translate * n for n in size],
            scale_range=(config.stretch,) * spatial_dims,
            mode=("bilinear", "nearest"),
            padding_mode=padding,
        )
    )
    if config.zoom_p:
        # "nearest-exact": torch's plain "nearest" lays labels half a voxel beside the image (0.51 pixels over 40
        # zooms, on average), and a network learns that shift.
        steps.append(
            mt.RandZoomd(
                both,
                prob=config.zoom_p,
                min_zoom=config.zoom[0],
                max_zoom=config.zoom[1],
                mode=("bilinear" if spatial_dims == 2 else "trilinear", "nearest-exact"),
                padding_mode="constant" if air_is_zero else "edge",
            )
        )
    if config.elastic_p and spatial_dims == 2:
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
    if config.bias_field_p:
        steps.append(mt.RandBiasFieldd("image", prob=config.bias_field_p, degree=2, coeff_range=(0.0, 0.2)))
    steps += [
        mt.RandAdjustContrastd("image", prob=config.contrast_p, gamma=config.gamma, retain_stats=False),
        mt.RandScaleIntensityd("image", factors=config.intensity_scale, prob=config.intensity_p),
        mt.RandShiftIntensityd("image", offsets=config.intensity_shift, prob=config.intensity_p),
        mt.RandSimulateLowResolutiond(
            "image",
            prob=config.low_resolution_p,
            zoom_range=(0.4, 0.9),
            downsample_mode="area",
            upsample_mode="bilinear" if spatial_dims == 2 else "trilinear",
        ),
        mt.RandGaussianSmoothd(
            "image", prob=config.blur_p, sigma_x=(0.25, 1.2), sigma_y=(0.25, 1.2), sigma_z=(0.25, 1.2)
        ),
        mt.RandGaussianNoised("image", prob=config.noise_p, std=config.noise_std),
    ]
    return mt.Compose(steps)


def fit(image: Tensor, size: Sequence[int], offset: Sequence[float] | None = None) -> Tensor:
    """Pad with the edge value and cut (C, *spatial) to `size`.

    Args:
        offset: where in the surplus the cut starts, 0 to 1 per axis; the centre by default.
    """
    padding: list[int] = []
    for old, new in zip(reversed(image.shape[1:]), reversed(tuple(size)), strict=True):
        missing = max(0, new - old)
        padding += [missing // 2, missing - missing // 2]
    if any(padding):
        image = F.pad(image[None], padding, mode="replicate")[0]
    starts = [  # floor, as in the padding above: fitting back to the first size then returns every voxel to its place
        (old - new) // 2 if offset is None else round((old - new) * offset[axis])
        for axis, (old, new) in enumerate(zip(image.shape[1:], size, strict=True))
    ]
    return image[(slice(None), *(slice(s, s + n) for s, n in zip(starts, size, strict=True)))]


def erase_organ(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """A slice without the organ: the half of the image that has least of it, mirrored over the other half.

    What little of the organ remains keeps its label, so image and label always agree.
    """
    middle = image.shape[-1] // 2
    left, right = label[:1, ..., :middle].count_nonzero(), label[:1, ..., -middle:].count_nonzero()
    kept = slice(None, middle) if left < right else slice(-middle, None)
    halves = [(t[..., kept], t[..., kept].flip(-1)) for t in (image, label)]
    joined = [torch.cat(pair if left < right else pair[::-1], dim=-1) for pair in halves]
    return tuple(F.pad(t[None].float(), (0, image.shape[-1] - t.shape[-1], 0, 0), mode="replicate")[0] for t in joined)  # type: ignore[return-value]


REPLACED_MARGIN = 4  # pixels around the organ that go with it, so that nothing of its outline remains
REPLACED_EDGE = 2  # pixels over which the two sides blend


def replace_organ(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """A slice in which the organ's place shows what the other side of the body has there: bowel, stomach, fat.

    More like a slice beyond the organ's tip than what `erase_organ` makes: the rest of the image stays. What the other
    side has of the organ itself comes along with its label, so image and label always agree.

    Args:
        image, label: (C, rows, columns), columns from one side of the body to the other.
    """
    outgrown = F.max_pool2d((label[:1] > 0).float(), 2 * REPLACED_MARGIN + 1, stride=1, padding=REPLACED_MARGIN)
    other = F.avg_pool2d(outgrown, 2 * REPLACED_EDGE + 1, stride=1, padding=REPLACED_EDGE, count_include_pad=False)
    replaced = torch.where(other > 0.5, label.flip(-1), label)
    return torch.lerp(image, image.flip(-1), other), replaced


Item = tuple[int, int]  # (which case or slice, how often it was drawn before in this epoch)


class Draws:
    """Which items an epoch draws: every one once before any is drawn again, in an order that `seed` decides."""

    def __init__(self, items: int, batch_size: int, steps: int, seed: int) -> None:
        self.items, self.batch_size, self.steps, self.seed = items, batch_size, steps, seed

    def batches(self) -> Iterator[list[Item]]:
        """`steps` batches; smaller ones only when there are fewer items than fill a batch."""
        generator = torch.Generator().manual_seed(self.seed)
        size = min(self.batch_size, self.items)
        drawn: list[Item] = []
        passes = 0
        for _ in range(self.steps):
            while len(drawn) < size:
                drawn += [(index, passes) for index in torch.randperm(self.items, generator=generator).tolist()]
                passes += 1
            yield drawn[:size]
            drawn = drawn[size:]


class AugmentedCases(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Training items of one stage: fitted to its size, augmented, seeded by (seed, epoch, item, draw).

    Seeding each item by its own number makes a run repeatable whatever the number of loader processes, and lets a
    resumed run continue exactly where it stopped.

    An item whose prepared form has become unreadable is replaced by the next one, and `unreadable` names its case.
    """

    def __init__(self, cases: PreparedCases, stage: Stage, config: Augmentation, seed: int) -> None:
        set_track_meta(False)
        self.cases, self.stage, self.config, self.seed = cases, stage, config, seed
        self.patch_size = cases.preprocessing.patch_size
        self.spatial_dims = cases.preprocessing.spatial_dims
        self.epoch = 0
        self.windowed = cases.preprocessing.intensity["kind"] == "window"
        self.transform = build_augmentation(config, self.spatial_dims, stage.size, air_is_zero=self.windowed)
        self.unreadable: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, item: int | Item) -> dict[str, Tensor]:
        """ "image" (C, *size) float32, "label" (1, *size) uint8; "marks" (1, *size) uint8 where there are any, and
        "missing" (256,) bool where any case of the set leaves structures out; see `PreparedCases`."""
        index, drawn = item if isinstance(item, tuple) else (item, 0)
        seed = (self.seed * 1_000_003 + self.epoch * 100_003 + drawn * 15_485_863 + index) % 2**32
        generator = torch.Generator().manual_seed(seed)
        self.transform.set_random_state(seed=seed)
        index, image, label = self._read(index)
        draw = torch.rand(1 + self.spatial_dims, generator=generator).tolist()
        if self.spatial_dims == 2 and draw[0] < self.config.empty_p:
            image, label = erase_organ(image, label)
        elif self.spatial_dims == 2 and draw[0] < self.config.empty_p + self.config.replace_p:
            image, label = replace_organ(image, label)
        if self.spatial_dims == 3 or self.stage.crop:
            image, label = fit(image, self.stage.size, draw[1:]), fit(label.float(), self.stage.size, draw[1:])
        else:
            image, label = fit(image, self.patch_size), fit(label.float(), self.patch_size)
            image = F.interpolate(image[None], size=self.stage.size, mode="bilinear", antialias=True)[0]
            label = F.interpolate(label[None], size=self.stage.size, mode="nearest-exact")[0]
        out = self.transform({"image": image.contiguous(), "label": label.float().contiguous()})
        changed = out["image"].float()
        if self.windowed:
            changed = changed.clamp(0.0, 1.0)  # real input is clipped by the window too
        maps = out["label"].round().to(torch.uint8)
        told = {"marks": maps[1:] if len(maps) > 1 else None, "missing": self.cases.missing(index)}
        known = {name: tensor for name, tensor in told.items() if tensor is not None}
        return {"image": changed, "label": maps[:1], **known}

    def _read(self, index: int) -> tuple[int, Tensor, Tensor]:
        """The item, or the next one that can be read, and which it is."""
        for step in range(len(self.cases)):
            place = (index + step) % len(self.cases)
            try:
                return place, *self.cases.item(place)
            except InputError as error:
                self.unreadable[self.cases.case(place).name] = error.what
        raise InputError(
            "None of the prepared training cases can be read.",
            "There is nothing left to train on.",
            "Check the disk, then start the training again; cases are prepared anew.",
        )

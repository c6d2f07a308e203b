"""Random changes of what is labelled: the appearances of an organ that few training cases show, and its absence.

A fatty liver is darker than a spleen, a cyst is darker than both, and each still is liver. Among seventy patients there
are a handful of either; a network that saw few takes such parts for something else.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

BRIGHTER_LESIONS = 0.2  # share; most are darker than what is around them
MOST_LESIONS = 3
LESION_RADIUS = (0.02, 0.16)  # of the image's shorter side
LESION_EDGE = 0.2  # of the radius, over which a lesion fades on each side of its border
REPLACED_MARGIN = 4  # pixels around the organ that go with it, so that nothing of its outline remains
REPLACED_EDGE = 2  # pixels over which the two sides blend


def shift_organs(
    images: Tensor, labels: Tensor, probability: float, shifts: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Add a random amount where the label is not 0, as fat, iron or another contrast phase do.

    Args:
        images: (B, C, *size); labels: (B, maps, *size), the first of which counts.
        shifts: least and most of what is added, in units of the image.
    """
    happens, amount = torch.rand(2, len(images), generator=generator)
    shift = torch.where(happens < probability, shifts[0] + (shifts[1] - shifts[0]) * amount, 0.0)
    return images + shift.reshape(-1, *[1] * (images.ndim - 1)) * _softened(labels)


def add_lesions(
    images: Tensor, labels: Tensor, probability: float, shifts: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Put up to `MOST_LESIONS` darker or brighter ellipsoids with soft edges into what is labelled. The labels stay: a
    lesion of an organ is part of it.

    Args:
        images, labels: as `shift_organs` takes them.
        shifts: how far the darkest and the brightest are from what is around them, in units of the image: (-, +).
    """
    changed = images.clone()
    for number in torch.nonzero(torch.rand(len(images), generator=generator) < probability)[:, 0].tolist():
        inside = labels[number, 0].nonzero()
        if len(inside):
            added = _lesions(inside, images.shape[2:], shifts, generator)
            changed[number] += added * _softened(labels[number : number + 1])[0]
    return changed


def _lesions(inside: Tensor, shape: tuple[int, ...], shifts: tuple[float, float], generator: torch.Generator) -> Tensor:
    """(*shape): what lesions around some of the voxels `inside` (n, dims) add."""
    added = torch.zeros(shape)
    for _ in range(int(torch.randint(1, MOST_LESIONS + 1, (1,), generator=generator))):
        centre = inside[int(torch.randint(len(inside), (1,), generator=generator))]
        brighter, strength, *sizes = torch.rand(2 + len(shape), generator=generator).tolist()
        low, high = (min(shape) * radius for radius in LESION_RADIUS)
        radii = [low + (high - low) * size for size in sizes]
        added += strength * shifts[1 if brighter < BRIGHTER_LESIONS else 0] * _ellipsoid(shape, centre, radii)
    return added


def _softened(labels: Tensor) -> Tensor:
    """(B, 1, *size): 1 inside, 0 outside, halfway at the border, so that no edge is sharper than an image's."""
    pool = F.avg_pool2d if labels.ndim == 4 else F.avg_pool3d
    return pool((labels[:, :1] > 0).float(), 3, stride=1, padding=1, count_include_pad=False)


def _ellipsoid(shape: tuple[int, ...], centre: Tensor, radii: list[float]) -> Tensor:
    """1 inside, 0 outside, fading around the border."""
    square = torch.zeros(shape)
    for axis, (size, middle, radius) in enumerate(zip(shape, centre, radii, strict=True)):
        line = ((torch.arange(size) - middle) / radius) ** 2
        square = square + line.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return torch.sigmoid((1 - square.sqrt()) / LESION_EDGE * 4)  # 0.98 an edge inside the border, 0.02 an edge outside


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

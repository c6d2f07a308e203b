"""What the network learns from: the corrected slices, and what it is sure of elsewhere, as it sees them.

A 2D network is given slices, a 3D one a part of the volume. Every voxel of these has a class and a weight: 1 for what
was corrected, and for all else how sure the base is of what was proposed, so that it is rehearsed: 0 where it says
something else. How much that is worth is read off the slices that are right: a base that called myocardium cavity
there, and was sure of it, is not to be rehearsed in calling it so elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..bundles import Bundle
from ..inference.preprocess import IntensityScaling, model_axes, model_size, resize
from ..volume import Volume
from .corrections import Corrections, only

MOST_CORRECTED, MOST_OTHERS = 16, 8  # slices: what a few seconds can hold
BEYOND = 2  # slices before and after the structures that are rehearsed too
MARGIN = 24  # voxels of the network's grid around the structures
SMALLEST = 128  # pixels along an axis of what is cut out of slices, as far as they reach
DOUBTFUL = 0.25  # of certainty: what the base is less sure of is not rehearsed
NEAR = 12  # voxels from a structure, where it tells what a base's answers are worth; background farther away is easy
STROKES_COUNT = 1.0  # of the weight of what is rehearsed in an item, its corrected voxels have at least as much
HEAVIEST = 30.0


@dataclass(frozen=True, eq=False)
class Examples:
    """Items of one size, cut around the structures.

    Attributes:
        images: float32 (N, C, *size), scaled.
        classes: int64 (N, 1, *size), channels of the network.
        groups: uint8 (N, 1, *size), which correction settled the voxel; 0: none.
        weights: float32 (N, 1, *size).
        edges: of a voxel along the axes of `size`, mm; None for pictures.
    """

    images: Tensor
    classes: Tensor
    groups: Tensor
    weights: Tensor
    edges: tuple[float, ...] | None

    @property
    def corrected(self) -> list[int]:
        """Items with corrected voxels that count."""
        return self._where((self.groups > 0) & (self.weights > 0))

    @property
    def others(self) -> list[int]:
        """Items without corrections."""
        return self._where(self.groups > 0, inverted=True)

    @cached_property
    def judged(self) -> Tensor:
        """Bool (N, 1, *size): what Dice is taken over: in items with corrections these alone, or few of them would be
        outvoted by all that is rehearsed around them."""
        settled = self.groups > 0
        alone = settled.flatten(1).any(1).reshape(-1, *[1] * (settled.ndim - 1))
        return (self.weights > 0) & (settled | ~alone)

    def _where(self, flags: Tensor, inverted: bool = False) -> list[int]:
        found = flags.flatten(1).any(1)
        return torch.nonzero(~found if inverted else found).flatten().tolist()

    def without(self, held: Tensor) -> Examples:
        """The same where the voxels `held` (N, 1, *size) are not known."""
        return replace(self, weights=self.weights.masked_fill(held, 0.0))


def examples(volume: Volume, bundle: Bundle, network: nn.Module, corrections: Corrections) -> Examples:
    """The items for these corrections.

    Args:
        network: the bundle's own, in evaluation mode on any device; it is asked what it is sure of.
    """
    settings = bundle.preprocessing
    change = model_axes(volume, settings)
    array = change.apply(volume.array if volume.array.ndim == 4 else volume.array[None])
    found, known, groups = (
        change.apply(part)
        for part in (only(corrections.proposal, corrections.values), corrections.known, corrections.groups)
    )
    scaling, size = IntensityScaling.for_array(volume.array, settings.intensity), model_size(volume, settings, change)
    maps = [_channels(found, bundle), _channels(known, bundle), groups]
    if settings.spatial_dims == 2:
        chosen = _chosen(groups, np.logical_or(found, known))
        images = resize(scaling.apply(array[:, chosen]).transpose(0, 1), size)
        maps = [part[chosen] for part in maps]
    else:
        images = resize(scaling.apply(array)[None], size)
        maps = [part[None] for part in maps]
    structures: np.ndarray = np.logical_or(found, known)
    around = _region(structures, groups > 0, size, settings.patch_size)
    where = (slice(None), slice(None), *around)
    images = images[where].contiguous()
    proposed, classes, settled = (_nearest(part, size)[where] for part in maps)
    spacing = None if volume.source.kind == "picture" else settings.spacing_mm
    if spacing is None and volume.source.kind != "picture":
        spacing = tuple(volume.spacing_ijk[axis] for axis in change.order[: settings.spatial_dims])
    sure = _sure(network, images, proposed) * worth(proposed, classes, settled > 0)
    return Examples(
        images,
        classes.long(),
        settled,
        _weights(settled > 0, sure),
        None if spacing is None else tuple(reversed(spacing)),
    )


def _channels(labels: np.ndarray, bundle: Bundle) -> np.ndarray:
    """Label values -> channels of the network."""
    table = np.zeros(256, np.uint8)
    for channel, label in enumerate(bundle.labels, 1):
        table[label.value] = channel
    return table[labels]


def _chosen(groups: np.ndarray, structures: np.ndarray) -> list[int]:
    """Slices to learn from: corrected ones, and some of the others in and near the structures."""
    settled = np.asarray(groups.any(axis=(1, 2)))
    filled = np.flatnonzero(structures.any(axis=(1, 2)))
    first, last = (filled[0], filled[-1]) if filled.size else (0, len(groups) - 1)
    near = np.arange(max(0, first - BEYOND), min(len(groups), last + BEYOND + 1))
    return [*_spread(np.flatnonzero(settled), MOST_CORRECTED), *_spread(near[~settled[near]], MOST_OTHERS)]


def _spread(indices: np.ndarray, most: int) -> list[int]:
    """At most so many of them, evenly over all."""
    if indices.size <= most:
        return indices.tolist()
    return indices[np.linspace(0, indices.size - 1, most).round().astype(int)].tolist()


def _region(
    structures: np.ndarray, settled: np.ndarray, size: Sequence[int], patch: Collection[int]
) -> tuple[slice, ...]:
    """The box around the structures on the network's grid, with a margin, no larger than the patch: then around what
    was corrected of them."""
    dims = len(size)
    inside = structures if structures.any() else settled
    both: np.ndarray = np.logical_and(settled, structures)
    focus = both if both.any() else inside
    sides = []
    for axis, (wanted, most) in enumerate(zip(size, patch, strict=True), 3 - dims):
        scale = wanted / structures.shape[axis]
        low, high = _extent(inside, axis, scale)
        low, high = low - MARGIN, high + MARGIN
        length = min(wanted, most if dims == 3 else max(high - low, SMALLEST))
        middle = (low + high) / 2 if length >= high - low else sum(_extent(focus, axis, scale)) / 2
        length = min(length, most) if length > most else length
        start = round(min(max(0, middle - length / 2), wanted - length))
        sides.append(slice(start, start + length))
    return tuple(sides)


def _extent(mask: np.ndarray, axis: int, scale: float) -> tuple[int, int]:
    filled = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
    return int(filled[0] * scale), int(np.ceil((filled[-1] + 1) * scale))


def _nearest(labels: np.ndarray, size: Sequence[int]) -> Tensor:
    """uint8 (N, *spatial) -> (N, 1, *size)."""
    tensor = torch.from_numpy(np.ascontiguousarray(labels))[:, None]
    return tensor if tuple(tensor.shape[2:]) == tuple(size) else F.interpolate(tensor, size=size, mode="nearest-exact")


@torch.inference_mode()
def _sure(network: nn.Module, images: Tensor, proposed: Tensor) -> Tensor:
    """Float32 (N, 1, *size): 0 where the base is in doubt or says something else than was proposed, up to 1."""
    device = next(network.parameters()).device
    sure = []
    for image, label in zip(images.split(1), proposed.split(1), strict=True):
        probability, channel = network(image.to(device)).float().softmax(1).max(1, keepdim=True)
        certainty = (2 * probability.cpu() - 1).clamp_min(0.0) ** 2
        sure.append(certainty * ((channel.cpu() == label) & (certainty >= DOUBTFUL)))
    return torch.cat(sure).clone()


def worth(proposed: Tensor, classes: Tensor, settled: Tensor) -> Tensor:
    """What rehearsing each voxel is worth, float32 (N, 1, *size): in and near structures 1 where all that was proposed
    as its class, in and near those of items that are settled as a whole, was right, 0 where half of it or less was. 1
    far from them; and everywhere without such items: strokes are made where a proposal is wrong, and tell nothing of
    the rest.

    Args:
        proposed, classes: (N, 1, *size), channels as proposed and as settled. settled: bool (N, 1, *size).
    """
    whole = settled.flatten(1).all(1)
    pool = F.max_pool2d if proposed.ndim == 4 else F.max_pool3d
    structures = torch.where(settled, torch.maximum(proposed, classes), proposed)
    near = pool(structures.gt(0).float(), 2 * NEAR + 1, 1, NEAR) > 0
    found = torch.ones(proposed.shape)
    for channel in torch.unique(proposed[whole][near[whole]]).tolist():
        said = near & (proposed == channel)
        right = (classes == channel)[whole][said[whole]].float().mean()
        found[said] = (2 * right - 1).clamp_min(0.0) ** 2
    return found


def _weights(settled: Tensor, sure: Tensor) -> Tensor:
    """Of settled voxels 1, or more where they are few: two strokes must not drown in rehearsal."""
    known = torch.where(settled, 0.0, sure).flatten(1).sum(1)
    few = (STROKES_COUNT * known / settled.flatten(1).sum(1).clamp_min(1)).clamp(1.0, HEAVIEST)
    return torch.where(settled, few.reshape(-1, *[1] * (settled.ndim - 1)), sure)

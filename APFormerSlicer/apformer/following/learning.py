"""A few steps that teach a copy of the network one patient's corrections."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ..training.augment import Augmenter
from ..training.config import Augmentation
from ..training.marginal import dice_and_entropy
from .examples import Examples

Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Images (B, C, *size); classes, weights, and what Dice is taken over, (B, 1, *size) each."""
WINDOW = 128  # pixels: what is cut out of larger items for a step
# Items of a step, by dimensions; in 3D torch takes its plain convolutions for a single one, and two cost no more.
BATCHES = {2: 4, 3: 2}
# Adam's, by dimensions: 2e-3 in 3D makes all of a volume background.
RATES = {2: 2e-3, 3: 5e-4}
OF_ALL = 0.3  # times the rate, where all of a network learns
_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}  # a fifth faster on processors
# The same patient on the same scanner: turned, scaled and shaded a little, so that few slices are not learned by heart.
CHANGES = Augmentation(
    rotate_degrees=20.0,
    zoom_p=0.8,
    zoom=(0.7, 1.3),
    translate=0.05,
    noise_p=0.1,
    blur_p=0.1,
    low_resolution_p=0.0,
    contrast_p=0.5,
    gamma=(0.7, 1.4),
)


def learn(
    network: nn.Module, known: Examples, pace: Callable[[int], float], generator: torch.Generator, windowed: bool
) -> int:
    """Train `network`, which is in evaluation mode: its norms keep their statistics, its gates prune as they do.

    Args:
        known: what to learn.
        pace: told how many steps were made; the share of the learning that is over, 1 to end it. The learning rate
            falls with it, so that the last batches do not decide. What it raises ends the learning too.
        generator: on the CPU; decides all that is random.
        windowed: whether images were scaled by a window, so that 0 is air.

    Returns: the steps that were made.
    """
    parameters, share = learnable(network)
    rate = RATES[known.images.ndim - 2] * share
    optimizer = torch.optim.Adam(parameters, rate)
    batches = _batches(known, generator, windowed)
    device = next(network.parameters()).device
    network.to(memory_format=_LAYOUTS[known.images.ndim])  # type: ignore[call-overload] # torch's stubs leave it out
    steps = 0
    while (done := pace(steps)) < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 + math.cos(math.pi * done)) / 2
        image, classes, weights, judged = (part.to(device) for part in next(batches))
        loss = dice_and_entropy(network(image).float(), classes, weights, None, judged)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    network.requires_grad_(False)
    return steps


def learnable(network: nn.Module) -> tuple[list[nn.Parameter], float]:
    """What learns, and its share of the learning rate: the way up from the deepest features, where a network says which
    of its modules these are (`way_up`), else all but gates. Everything else is frozen.

    The way up is where a patient's borders are drawn; without the way down a step costs half, and the base's knowledge
    of what an organ is stays as it is.
    """
    network.requires_grad_(False)
    names = tuple(getattr(network, "way_up", ()))
    chosen = {
        name: parameter
        for name, parameter in network.named_parameters()
        if (name.split(".")[0] in names if names else not _decides(name))
    }
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    return list(chosen.values()), 1.0 if names else OF_ALL


def _decides(name: str) -> bool:
    """Whether a parameter decides what is computed at all."""
    return any(word in name for word in ("gate", "prune", "threshold"))


def _batches(known: Examples, generator: torch.Generator, windowed: bool) -> Iterator[Batch]:
    """Batches without end: half of a batch corrected items in turn, half others at random."""
    size = known.images.shape[2:]
    window = tuple(min(n, WINDOW) for n in size) if len(size) == 2 else tuple(size)
    augment = Augmenter(CHANGES, window, windowed, known.edges)
    corrected, others = known.corrected, known.others
    batch = BATCHES[len(size)]
    half = batch // 2 if others else batch
    while True:
        for start in range(len(corrected)):
            items = [corrected[(start * half + n) % len(corrected)] for n in range(half)]
            if others:
                picked = torch.randint(len(others), (batch - half,), generator=generator).tolist()
                items += [others[n] for n in picked]
            yield _augmented(known, items, window, augment, generator)


def _augmented(
    known: Examples, items: Sequence[int], window: Sequence[int], augment: Augmenter, generator: torch.Generator
) -> Batch:
    cut = []
    for item in items:
        box = (slice(None), *_window(known.classes[item, 0], window, generator))
        maps = torch.cat([known.classes[item][box].float(), known.weights[item][box], known.judged[item][box].float()])
        cut.append((known.images[item][box], maps))
    images, moved = augment(torch.stack([image for image, _ in cut]), torch.stack([two for _, two in cut]), generator)
    return images, moved[:, :1].long(), moved[:, 1:2], moved[:, 2:] > 0


def _window(classes: Tensor, window: Sequence[int], generator: torch.Generator) -> tuple[slice, ...]:
    """A box of that size around a voxel of a structure, or anywhere in an item without."""
    surplus = [have - wanted for have, wanted in zip(classes.shape, window, strict=True)]
    if not any(surplus):
        return tuple(slice(0, n) for n in window)
    inside = torch.nonzero(classes)
    draw = torch.rand(1 + len(window), generator=generator).tolist()
    middle = (
        inside[int(draw[0] * len(inside))].tolist()
        if len(inside)
        else [share * n for share, n in zip(draw[1:], classes.shape, strict=True)]
    )
    starts = [
        int(min(max(0, place - wanted // 2), most)) for place, wanted, most in zip(middle, window, surplus, strict=True)
    ]
    return tuple(slice(start, start + wanted) for start, wanted in zip(starts, window, strict=True))

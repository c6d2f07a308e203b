"""A few steps that teach a copy of the network one patient's corrections."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ..training.augment import Augmenter
from ..training.config import Augmentation
from ..training.marginal import dice_and_entropy
from .examples import Examples

Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Images (B, C, *size); classes, weights, and what Dice is taken over, (B, 1, *size) each."""
# Items of a step, by dimensions; in 3D torch takes its plain convolutions for a single one, and two cost no more.
BATCHES = {2: 4, 3: 2}
LARGE, SMALLEST_BATCH = 160 * 160, 2  # voxels of an item from which a step has fewer
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
    """Batches without end: half of a batch corrected items in turn, half others at random.

    Items are learned whole. A network with positions takes a smaller window for a stretched image, and what it learns
    there does not hold for the image: from windows of 96 pixels in items of 128, nothing was gained where +0.07 of Dice
    was (`left-ventricle-cine-mr` on one volume of ACDC).
    """
    size = known.images.shape[2:]
    augment = Augmenter(CHANGES, size, windowed, known.edges)
    maps = torch.cat([known.classes.float(), known.weights, known.judged.float()], dim=1)
    corrected, others = known.corrected, known.others
    batch = BATCHES[len(size)] if math.prod(size) < LARGE else SMALLEST_BATCH
    half = batch // 2 if others else batch
    while True:
        for start in range(len(corrected)):
            items = [corrected[(start * half + n) % len(corrected)] for n in range(half)]
            if others:
                picked = torch.randint(len(others), (batch - half,), generator=generator).tolist()
                items += [others[n] for n in picked]
            images, moved = augment(known.images[items], maps[items], generator)
            yield images, moved[:, :1].long(), moved[:, 1:2], moved[:, 2:] > 0

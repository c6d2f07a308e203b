"""Dice on the frozen validation cases, at the model's own resolution, while training runs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ..metrics import Overlap, over_cases
from .augment import fit
from .cases import UNKNOWN, PreparedCases
from .config import TrainingConfig


@torch.inference_mode()
def validate(
    network: nn.Module,
    cases: PreparedCases,
    config: TrainingConfig,
    device: torch.device,
    check: Callable[[], None] = lambda: None,
) -> dict[str, float | None]:
    """Pooled Dice per label name: intersections and sizes are summed over all cases that outline it before dividing,
    and over voxels that are known. None for a label that no case has: nothing judges it (see `metrics`).

    Each item is fitted to the patch size if smaller, run whole, and compared on its own grid. The bundle's card reports
    the same cases through the Segmenter, on the files' own grids. `check` may stop it by raising, between two items.
    """
    network.eval()
    counts = {label.name: [0, 0, 0] for label in config.labels}
    for index in range(len(cases)):
        check()
        image, label = cases.item(index)
        shape = tuple(label.shape[1:])
        patch = [max(a, b) for a, b in zip(shape, config.preprocessing.patch_size, strict=True)]
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            logits = network(fit(image, patch)[None].to(device))
        predicted = fit(logits[0].float().argmax(0)[None].float().cpu(), shape)[0].to(torch.uint8)
        known = label[-1] != UNKNOWN if len(label) > 1 else torch.ones_like(predicted, dtype=torch.bool)
        missing = cases.case(index).missing
        for entry in config.labels:
            if entry.value in missing:
                continue
            a, b = (predicted == entry.value) & known, (label[0] == entry.value) & known
            found = (int(mask.sum()) for mask in (a & b, a, b))
            counts[entry.name] = [sum(pair) for pair in zip(counts[entry.name], found, strict=True)]
    pooled = {name: over_cases([Overlap(*count)]).pooled_dice for name, count in counts.items()}
    return {name: None if dice is None else round(dice, 5) for name, dice in pooled.items()}

"""What a trained network is worth, and what it costs, for `apformer benchmark systems`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..metrics import dice, hd95_mm, pooled_dice
from ..pruning import count_macs, count_parameters
from ..pruning.attention import GatedNetwork
from ..pruning.budget import dense_macs
from ..training.augment import fit
from ..training.cases import UNKNOWN, PreparedCases
from ..training.config import TrainingConfig
from .comparison import interleaved_seconds
from .systems_data import Task
from .systems_training import forward

ROUNDS = 15


@torch.inference_mode()
def quality(network: nn.Module, cases: PreparedCases, config: TrainingConfig, task: Task) -> dict[str, Any]:
    """Per label: Dice (mean over cases, pooled), HD95 (mean over cases where both are there), and for pictures SE, SP,
    ACC, IoU as means over images; at the resolution that the network works at, in float32. Networks see the middle of
    an image that is larger than their input; what is outside counts as not found, for all alike. A case judges the
    labels that were outlined in it, where it is known what is there."""
    found: dict[str, tuple[list[Tensor], list[Tensor]]] = {}  # slices of a case, or its volume
    size = config.preprocessing.patch_size
    for index in range(len(cases)):
        image, label = cases.item(index)
        predicted = forward(network, fit(image, size)[None])[0][0].argmax(0)
        ours, theirs = found.setdefault(cases.case(index).name, ([], []))
        seen = _placed(predicted.to(torch.uint8), label.shape[1:])
        ours.append(seen.masked_fill(label[1] == UNKNOWN, 0) if len(label) > 1 else seen)
        theirs.append(label[0])
    missing = {case.name: case.missing for case in cases.cases}
    volumes = {name: (_volume(ours), _volume(theirs)) for name, (ours, theirs) in found.items()}
    scores = {}
    for structure in config.labels:
        outlined = [pair for name, pair in volumes.items() if structure.value not in missing[name]]
        if any((reference == structure.value).any() for _, reference in outlined):
            scores[structure.name] = _agreement(outlined, structure.value, task)
    return scores


def _volume(items: Sequence[Tensor]) -> np.ndarray:
    """A case's slices, or its one volume, as (k, j, i)."""
    return (items[0] if items[0].ndim == 3 else torch.stack(list(items))).numpy()


def _placed(predicted: Tensor, shape: Sequence[int]) -> Tensor:
    """What was found in the middle of an image, where it belongs in the whole image: nothing is found outside."""
    largest = [max(a, b) for a, b in zip(predicted.shape, shape, strict=True)]
    canvas = predicted.new_zeros(largest)
    starts = [(whole - part) // 2 for whole, part in zip(largest, predicted.shape, strict=True)]
    canvas[tuple(slice(start, start + n) for start, n in zip(starts, predicted.shape, strict=True))] = predicted
    return fit(canvas[None], shape)[0]


def _agreement(volumes: Sequence[tuple[np.ndarray, np.ndarray]], value: int, task: Task) -> dict[str, Any]:
    pairs = [(ours == value, theirs == value) for ours, theirs in volumes]
    distances = [hd95_mm(ours, theirs, task.voxel or (1.0, 1.0, 1.0)) for ours, theirs in pairs]
    known = [distance for distance in distances if distance is not None]
    scores: dict[str, Any] = {
        "dice": _mean(dice(*pair) for pair in pairs),
        "pooled_dice": round(pooled_dice(pairs) or 0.0, 4),
        "hd95": round(statistics.fmean(known), 3) if known else None,
        "hd95_unit": "px" if task.voxel is None else "mm",
        "hd95_cases": [len(known), len(pairs)],
    }
    if task.pixelwise:
        scores |= {name: _mean(values) for name, values in _pixelwise(pairs).items()}
    return scores


def _pixelwise(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, list[float]]:
    """SE = TP / (TP + FN), SP = TN / (TN + FP), ACC, IoU of every image; 1 where there is nothing to divide by."""
    found: dict[str, list[float]] = {"se": [], "sp": [], "acc": [], "iou": []}
    for ours, theirs in pairs:
        hit, right = int((ours & theirs).sum()), int((~ours & ~theirs).sum())
        own, reference = int(ours.sum()), int(theirs.sum())
        found["se"].append(_ratio(hit, reference))
        found["sp"].append(_ratio(right, theirs.size - reference))
        found["acc"].append((hit + right) / theirs.size)
        found["iou"].append(_ratio(hit, own + reference - hit))
    return found


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _mean(values: Any) -> float:
    return round(statistics.fmean(values), 4)


@torch.inference_mode()
def cost(network: nn.Module, baseline: nn.Module, cases: PreparedCases, config: TrainingConfig) -> dict[str, Any]:
    """Parameters, multiply-accumulates with and without q.k and A.v, and milliseconds, in turns with the baseline.

    Gates prune every image differently: their operations and times are means over validation images.
    """
    shape = (1, config.channels, *config.preprocessing.patch_size)
    step = max(1, len(cases) // ROUNDS)
    images = [fit(cases.item(index)[0], shape[2:])[None] for index in range(0, len(cases), step)][:ROUNDS]
    seconds: Mapping[str, list[float]] = {"own": [], "baseline": []}
    for image in images:
        passes = {"own": lambda image=image: network(image), "baseline": lambda image=image: baseline(image)}
        for name, measured in interleaved_seconds(passes, 1).items():
            seconds[name].extend(measured)
    ratios = [own / base for own, base in zip(seconds["own"], seconds["baseline"], strict=True)]
    return {
        "parameters": count_parameters(network),
        **_operations(network, images, shape),
        "cpu_ms": round(1e3 * statistics.median(seconds["own"]), 2),
        "baseline_ms": round(1e3 * statistics.median(seconds["baseline"]), 2),
        "cpu_ratio": round(statistics.median(ratios), 3),
    }


def _operations(network: nn.Module, images: Sequence[Tensor], shape: Sequence[int]) -> dict[str, float]:
    if getattr(network, "query_gate", None) is None:
        macs = count_macs(network, shape)
        return {"gmac": macs.total / 1e9, "gmac_without_attention": macs.without_attention / 1e9}
    gated = cast(GatedNetwork, network)
    works = [forward(network, image)[1] for image in images]
    kept = statistics.fmean(float(work.kept.float().mean()) for work in works)
    gated.gating = "off"
    macs = count_macs(network, shape)
    gated.gating = "hard"
    dense = dense_macs(gated.costs, works[0].kept[0].numel())
    spent = statistics.fmean(float(work.transformer_macs.mean()) for work in works)
    total = macs.total - dense + spent
    # of products of activations, the share that the transformer's operations as a whole have kept
    return {
        "gmac": total / 1e9,
        "gmac_without_attention": (total - macs.attention * spent / dense) / 1e9,
        "kept_tokens": round(kept, 4),
    }

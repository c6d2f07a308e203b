"""What pruning leaves of a trained network, and what it gained: dead parts removed, kept shares and times measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..bundles import Bundle
from ..inference import Segmenter
from ..networks import build_network
from ..networks.apformer import APFormer
from ..pruning.compact import compact, find_living
from ..pruning.idle import without_idle_gates
from ..pruning.threshold import find_threshold, recorded_margins
from .augment import fit
from .cases import PreparedCases
from .config import TrainingConfig

CALIBRATION_IMAGES = 64  # enough that every kind of slice is among them
THRESHOLD_IMAGES = 512  # a share of tokens is an average: it takes more of them
TIMED_IMAGES = 40
REPEATS = 3  # the fastest counts: what other programs take only ever makes it slower


def compacted(
    config: TrainingConfig, weights: dict[str, Tensor], training: PreparedCases
) -> tuple[TrainingConfig, dict[str, Tensor]]:
    """The trained network as it ships: its query threshold is set for [pruning] final_keep; then dependency gates go as
    idle says, and at last the heads and channels that energy allows to remove.

    Returns: the configuration with new network arguments, and new weights.
    """
    if config.pruning is None:
        return config, weights
    network = build_network(config.network, config.network_arguments)
    if not isinstance(network, APFormer):
        return config, weights
    network.load_state_dict(weights)
    network.eval()
    if config.pruning.final_keep is not None:
        _set_threshold(network, _spread(training, config, THRESHOLD_IMAGES), config.pruning.final_keep)
    images = [image[None] for image in _spread(training, config, CALIBRATION_IMAGES)]
    if config.pruning.idle:
        network = without_idle_gates(network, images, config.pruning.idle)
    small = compact(network, find_living(network, images, config.pruning.energy))
    shapes = [list(shape) for shape in small.config.layer_shapes]
    changes = {"layer_shapes": shapes, "prune_keys": list(small.config.key_gates)}
    return replace(config, network_arguments={**config.network_arguments, **changes}), small.state_dict()


@torch.no_grad()
def _set_threshold(network: APFormer, images: Iterable[Tensor], share: float) -> None:
    """Keep `share` of the tokens, ring included, on average over `images` (C, *size)."""
    gate = network.query_gate
    assert gate is not None  # a configuration with final_keep has prune_queries
    with recorded_margins(gate) as margins:
        for image in images:
            network(image[None])
    gate.threshold.fill_(find_threshold(margins, share, gate.ring))


def _spread(cases: PreparedCases, config: TrainingConfig, count: int) -> Iterator[Tensor]:
    """At least `count` images (C, *size) where there are so many, evenly over the cases, as the network meets them."""
    step = max(1, len(cases) // count)
    for index in range(0, len(cases), step):
        image, _ = cases.item(index)
        shape = image.shape[1:]
        yield fit(image, [max(a, b) for a, b in zip(shape, config.preprocessing.patch_size, strict=True)])


@torch.no_grad()
def measure_pruning(bundle: Bundle, base: Bundle, validation: PreparedCases, config: TrainingConfig) -> dict[str, Any]:
    """Kept shares per validation image, and the network's time against the dense base's, on the CPU.

    Both networks run as the Segmenter prepares them, one image at a time, in turns.
    """
    pruned, dense = (Segmenter(model, "cpu").network for model in (bundle, base))
    kept, cost, seconds = [], [], []
    for image in _spread(validation, config, TIMED_IMAGES):
        work = pruned(image[None], auxiliaries=True)[1]  # these calls also warm both networks up for images this size
        kept.append(float(work.kept.float().mean()))
        cost.append(float(work.transformer_macs[0] / dense(image[None], auxiliaries=True)[1].transformer_macs[0]))
        turns = [(_seconds(dense, image), _seconds(pruned, image)) for _ in range(REPEATS)]
        seconds.append([min(times) for times in zip(*turns, strict=True)])
    assert config.pruning is not None
    return {
        "budget": config.pruning.budget,
        "final_keep": config.pruning.final_keep,
        "base": f"{base.name} {base.version}",
        "kept_tokens": {name: round(value, 4) for name, value in five_numbers(kept).items()},
        "kept_tokens_mean": round(statistics.fmean(kept), 4),
        "transformer_macs_share": round(statistics.fmean(cost), 4),
        "speedup_cpu": round(sum(d for d, _ in seconds) / sum(p for _, p in seconds), 3),
        "threads": torch.get_num_threads(),
    }


def _seconds(network: nn.Module, image: Tensor) -> float:
    started = time.perf_counter()
    network(image[None])
    return time.perf_counter() - started


def five_numbers(values: Sequence[float]) -> dict[str, float]:
    """Least, greatest and quartiles, by name."""
    inner = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else list(values) * 3
    return dict(zip(("min", "q1", "median", "q3", "max"), (min(values), *inner, max(values)), strict=True))

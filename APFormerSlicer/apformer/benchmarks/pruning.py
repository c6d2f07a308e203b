"""What pruning saves: the same network masked as published, dense, and pruned to stated shares, interleaved in one run.

How the kept sets are made is told in `kept_sets`; `pruned_bundle` measures what a trained model keeps by itself.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ..inference.ready import ready
from ..networks.apformer import APFormer
from ..pruning import count_macs
from .comparison import interleaved_seconds
from .kept_sets import DENSE, FLOOR, VARIANTS, Rig, Variant
from .machine import describe_machine
from .memory import peak_memory_bytes
from .process import run_apart
from .pruning_report import render
from .segment import chosen_devices

__all__ = ["render", "run"]

_FORWARD = f"{__name__}:first_forward"
_GATES = {"prune_queries": True, "prune_keys": True}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Setting:
    """A network and an input, (B, C, *size)."""

    name: str
    arguments: Mapping[str, Any]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """How much is measured. memory: names of the variants whose peak is taken on the CPU, each in a fresh process."""

    settings: tuple[Setting, ...]
    rounds: int
    memory: tuple[str, ...]


def _plan(quick: bool) -> Plan:
    side, volume, batch = (64, (16, 24, 16), 2) if quick else (256, (64, 64, 48), 8)
    flat = {"spatial_dims": 2, "in_channels": 1, "out_channels": 9, "image_size": (side, side)}  # published
    deep = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "image_size": volume, "head_dim": 64}
    settings = (
        Setting("published 2D network", flat, (1, 1, side, side)),
        Setting("published 2D network", flat, (batch, 1, side, side)),
        Setting("3D network of hippocampus-mr", deep, (1, 1, *volume)),
    )
    if quick:
        return Plan((settings[0], settings[2]), rounds=1, memory=(DENSE.name,))
    return Plan(settings, rounds=9, memory=tuple(variant.name for variant in VARIANTS))


def run(
    device: str = "auto",
    *,
    quick: bool = False,
    rounds: int | None = None,
    bundle: str | None = None,
    dataset: Path | None = None,
    say: Say = lambda message: None,
) -> dict[str, Any]:
    """Measure; the record is ready for JSON and for `render`.

    Args:
        device: "auto" measures the CPU and, where there is one, the CUDA device; otherwise the one that is named.
        quick: tiny inputs, one round: shows that everything runs, its numbers mean nothing.
        rounds: of the comparison.
        bundle, dataset: a pruned model and labelled cases: instead of kept sets of stated shares, its own are measured.
        say: is told what is being measured.

    Raises:
        BundleError: the model is missing, unsound, or does not prune.
        ConfigError: the data set cannot be used.
        DeviceError: the named device is absent.
    """
    devices, plan = chosen_devices(device), _plan(quick)
    record: dict[str, Any] = {"quick": quick, "machine": describe_machine(), "tables": [], "bundles": []}
    if bundle is not None and dataset is not None:
        from .pruned_bundle import measure

        for name in devices:
            say(f"{bundle} on {name}")
            record["bundles"].append(measure(bundle, dataset, name, most_images=8 if quick else None))
        return record
    for name in devices:
        for setting in plan.settings:
            say(f"{setting.name}, {' x '.join(map(str, setting.shape))}, on {name}")
            memory = plan.memory if name == "cpu" else tuple(variant.name for variant in VARIANTS)
            record["tables"].append(compare(setting, rounds or plan.rounds, name, memory))
    return record


def compare(setting: Setting, rounds: int, device: str, memory: Sequence[str]) -> dict[str, Any]:
    """One row per variant, all on the same input, in float32 on the CPU and in bfloat16 on CUDA.

    Each round runs every variant once. "seconds" is the median over rounds; "ratio" is the median of the round-by-round
    ratios to dense SDPA, and "convolutions" that of the pass without transformer layers to this one. MACs are per
    image. "peak_bytes" is what the first pass adds to the process, positions included; on CUDA, what a later pass adds.
    """
    counted_rig = Rig(_network(setting), setting.shape[2:])  # a counter does not know oneDNN's convolutions
    rig = Rig(_ready(setting).to(device), setting.shape[2:])
    rows: dict[str, dict[str, Any]] = {}
    for variant in VARIANTS:
        macs = count_macs(counted_rig.use(variant), (1, *setting.shape[1:]))
        counted = {"gmac": macs.total / 1e9, "gmac_without_attention": macs.without_attention / 1e9}
        rows[variant.name] = {"variant": variant.name, "keep": variant.keep, "peak_bytes": None, **counted}
    image = _image(setting).to(device)
    passes = {variant.name: _forward(rig, variant, image) for variant in VARIANTS}
    seconds = interleaved_seconds(passes, rounds)
    for variant in VARIANTS:
        own, row = seconds[variant.name], rows[variant.name]
        ratios = [time / base for time, base in zip(own, seconds[DENSE.name], strict=True)]
        shares = [base / time for time, base in zip(own, seconds[FLOOR.name], strict=True)]
        row |= {"seconds": statistics.median(own), "ratio": statistics.median(ratios)}
        row |= {"ratio_range": [min(ratios), max(ratios)], "convolutions": statistics.median(shares)}
        if variant.name in memory:
            row["peak_bytes"] = _peak(setting, variant) if device == "cpu" else _peak_cuda(passes[variant.name], device)
    precision = "bfloat16" if image.device.type == "cuda" else "float32"
    return {
        "setting": setting.name,
        "shape": list(setting.shape),
        "tokens": int(torch.tensor(rig.grid).prod()),
        "device": device,
        "precision": precision,
        "rounds": rounds,
        "baseline": DENSE.name,
        "rows": list(rows.values()),
    }


def first_forward(setting: dict[str, Any], variant: dict[str, Any]) -> int:
    """One pass in the measured process; returns the peak before it, bytes."""
    chosen = Setting(**setting)
    rig = Rig(_ready(chosen), chosen.shape[2:])
    forward = _forward(rig, Variant(**variant), _image(chosen))
    before = peak_memory_bytes()
    forward()
    return before


def _peak(setting: Setting, variant: Variant) -> int:
    apart = run_apart(_FORWARD, {"setting": asdict(setting), "variant": asdict(variant)})
    return apart.peak_bytes - int(apart.value)


def _peak_cuda(forward: Callable[[], object], device: str) -> int:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    forward()
    return torch.cuda.max_memory_allocated(device) - before


def _network(setting: Setting) -> APFormer:
    """With random weights: the kept sets do not depend on them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return APFormer(**{**setting.arguments, **_GATES}).eval()


def _ready(setting: Setting) -> APFormer:
    """As the Segmenter prepares it."""
    return cast(APFormer, ready(_network(setting), len(setting.shape) - 2))


def _image(setting: Setting) -> Tensor:
    return torch.rand(setting.shape, generator=torch.Generator().manual_seed(0))


def _forward(rig: Rig, variant: Variant, image: Tensor) -> Callable[[], object]:
    """One forward pass as inference does it, finished when the call returns."""
    device = image.device.type

    @torch.inference_mode()
    def run() -> None:
        network = rig.use(variant)
        with torch.autocast("cuda", torch.bfloat16) if device == "cuda" else nullcontext():
            network(image)
        if device != "cpu":
            torch.accelerator.synchronize(image.device)

    return run

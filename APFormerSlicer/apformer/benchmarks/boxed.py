"""What it saves that LeanFormer's way up runs on the box of the kept cells: forward passes and training steps, in turns
with the dense form and MONAI's DynUNet; and a training step of the published network that keeps a share of its tokens.

What is kept are the cells in which the reference labels of a data set's validation cases have foreground, and the
safety ring around them: as if the prune head were right everywhere. So the sizes are those that organs have, and what a
network learned to prune does not matter.
"""

from __future__ import annotations

import io
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..inference.ready import ready
from ..networks import build_network
from ..networks.apformer import APFormer
from ..networks.leanformer import LeanFormer
from ..pruning.boxes import boxes_around
from ..pruning.gates import dilate
from ..training.augment import fit
from ..training.cases import PreparedCases, read_dataset, split_cases
from ..training.config import LossWeights, TrainingConfig
from ..training.losses import APFormerLoss, cells_with_foreground
from .kept_sets import PreparedQueryGate, blob
from .machine import describe_machine
from .peer import PEER
from .report import WIDTH, machine_line
from .systems_data import configuration, task_of
from .systems_entrants import entrant
from .systems_training import forward

__all__ = ["render", "run"]

Say = Callable[[str], None]
FORM = "leanformer"
GATED = f"{FORM}[prune_queries=True]"
PUBLISHED, PUBLISHED_KEEP, PUBLISHED_BATCH = "apformer", 0.3, 4
IMAGES = 15  # forward passes, each of its own image, so many and a few more
STEPS = 5


def run(
    datasets: Sequence[Path], *, size: tuple[int, int] = (256, 256), say: Say = lambda line: None
) -> dict[str, Any]:
    """Measure; the record is ready for JSON and for `render`. On the CPU.

    Args:
        datasets: folders in Medical Segmentation Decathlon layout, named as in `systems_data.TASKS`.
        size: of slices and pictures; volumes have their task's.

    Raises:
        ConfigError: a data set is not known.
        InputError: a case cannot be read.
    """
    rows = []
    for dataset in datasets:
        config = configuration(task_of(dataset), 0, size)
        _, cases = split_cases(read_dataset(dataset, config.split), config.split)
        with tempfile.TemporaryDirectory(prefix="apformer-benchmark-") as scratch:
            prepared = PreparedCases(cases, Path(scratch), config.preprocessing)
            prepared.build()
            say(f"{dataset.name}, {len(prepared)} images")
            rows.append({"dataset": dataset.name, **_measure(prepared, config)})
    say(f"{PUBLISHED}, {PUBLISHED_KEEP:.0%} of the tokens kept")
    published = [_published(size, learned) for learned in (False, True)]
    return {"machine": describe_machine(), "threads": torch.get_num_threads(), "rows": rows, "published": published}


def _published(size: tuple[int, int], learned: bool) -> dict[str, Any]:
    """Milliseconds of a training step of the published network on noise, dense and with a compact blob of tokens kept.

    Args:
        learned: whether positions learn too; in a fine-tuning from a base they do not.
    """
    torch.manual_seed(0)
    network = cast(APFormer, build_network(PUBLISHED, {"image_size": size, "out_channels": 4, "prune_queries": True}))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(learned or ".position." not in name)
    assert network.query_gate is not None
    network.query_gate = PreparedQueryGate(network.query_gate, blob(network.config.base_grid, PUBLISHED_KEEP))
    step = _Stepper(network.train(), "bfloat16")
    images, labels = torch.randn(PUBLISHED_BATCH, 1, *size), torch.randint(0, 4, (PUBLISHED_BATCH, 1, *size))
    seconds: dict[str, list[float]] = {"off": [], "hard": []}
    for number in range(STEPS + 1):  # the first one does not count
        for gating, times in seconds.items():
            network.gating = gating
            spent = _timed(step, images, labels)
            times += [spent] if number else []
    dense, hard = (statistics.median(times) for times in seconds.values())
    return {
        "size": list(size),
        "batch": PUBLISHED_BATCH,
        "keep": PUBLISHED_KEEP,
        "positions_learned": learned,
        "step_ms": {"dense": round(1e3 * dense, 1), "hard": round(1e3 * hard, 1)},
        "hard_by_dense": round(hard / dense, 3),
    }


def _measure(cases: PreparedCases, config: TrainingConfig) -> dict[str, Any]:
    """One row: shares, milliseconds of a forward pass, seconds of a step, and their ratios."""
    size = config.preprocessing.patch_size
    every = max(1, len(cases) // IMAGES)
    examples = [
        (fit(image, size), fit(label[:1], size)) for image, label in map(cases.item, range(0, len(cases), every))
    ]
    form = _built(GATED, config)
    assert isinstance(form, LeanFormer) and form.query_gate is not None
    kept = [_kept(label, form) for _, label in examples]
    forwards = _forwards(form, _built(PEER, config), examples, kept)
    steps = _steps(config, examples, kept)
    boxes = [(sum(math.prod(found.extent) for found in boxes_around(cells)), cells.numel()) for cells in kept]
    return {
        "size": list(size),
        "images": len(examples),
        "kept_cells": round(statistics.fmean(float(cells.mean()) for cells in kept), 4),
        "box": round(statistics.fmean(inside / cells for inside, cells in boxes), 4),
        **_summary("forward_ms", 1e3, forwards),
        **_summary("step_ms", 1e3, steps),
        "batch": config.stages[0].batch_size,
    }


def _built(name: str, config: TrainingConfig) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return entrant(name).build(config.channels, 1 + len(config.labels), tuple(config.preprocessing.patch_size))


def _kept(label: Tensor, form: LeanFormer) -> Tensor:
    """Label (1, *size) -> (1, *grid), 1 where a cell holds foreground or is in the ring around one that does."""
    return dilate(cells_with_foreground(label[None], form.token_stride)[:, 0], form.config.safety_ring)


def _use(form: LeanFormer, kept: Tensor | None) -> LeanFormer:
    """The form keeping these cells, (B, *grid), or all without gates."""
    form.gating = "off" if kept is None else "hard"
    if kept is not None:
        assert form.query_gate is not None
        form.query_gate = PreparedQueryGate(form.query_gate, kept)
    return form


def _forwards(
    form: LeanFormer, peer: nn.Module, examples: Sequence[tuple[Tensor, Tensor]], kept: Sequence[Tensor]
) -> dict[str, list[float]]:
    """Seconds of the forward passes, in turns, of networks made ready as the Segmenter does it."""
    dims = examples[0][0].ndim - 1
    form, peer = cast(LeanFormer, ready(form.eval(), dims)), ready(peer.eval(), dims)
    seconds: dict[str, list[float]] = {"peer": [], "dense": [], "boxed": []}
    with torch.inference_mode():
        for (image, _), cells in zip(examples, kept, strict=True):
            for name, network in (("peer", peer), ("dense", _use(form, None)), ("boxed", form)):
                if name == "boxed":
                    _use(form, cells)
                seconds[name].append(min(_timed(network, image[None]) for _ in range(2)))
    return seconds


def _steps(
    config: TrainingConfig, examples: Sequence[tuple[Tensor, Tensor]], kept: Sequence[Tensor]
) -> dict[str, list[float]]:
    """Seconds of training steps on batches of the examples, in turns: forward, losses, backward, optimiser.

    Each batch is seen twice, and the second time counts: for boxes of a new size convolutions are compiled, but in a
    training sizes come again and again.
    """
    networks = {"peer": _built(PEER, config), "dense": _built(GATED, config), "boxed": _built(GATED, config)}
    runs = {name: _Stepper(network.train(), config.precision) for name, network in networks.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    batch = config.stages[0].batch_size
    for number in range(2 * STEPS):
        chosen = [(number % STEPS * batch + place) % len(examples) for place in range(batch)]
        images = torch.stack([examples[place][0] for place in chosen])
        labels = torch.stack([examples[place][1] for place in chosen]).long()
        _use(cast(LeanFormer, networks["dense"]), None)
        _use(cast(LeanFormer, networks["boxed"]), torch.cat([kept[place] for place in chosen]))
        for name, step in runs.items():
            spent = _timed(step, images, labels)
            if number >= STEPS:
                seconds[name].append(spent)
    return seconds


class _Stepper:
    """A training step as `systems_training` does it, without augmentation."""

    def __init__(self, network: nn.Module, precision: str) -> None:
        self.network, self.precision = network, precision
        self.loss = APFormerLoss(LossWeights())
        self.optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6)

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bfloat16"):
            logits, auxiliaries = forward(self.network, images)
        self.optimiser.zero_grad(set_to_none=True)
        self.loss(logits, auxiliaries, labels, None)["total"].backward()
        self.optimiser.step()


def _timed(run: Callable[..., object], *arguments: Tensor) -> float:
    """Seconds of processor time per thread: what else the machine does does not count."""
    started = time.process_time()
    run(*arguments)
    return (time.process_time() - started) / torch.get_num_threads()


def _summary(name: str, unit: float, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, and the means of boxed by dense and of dense by peer, since images differ in what is kept."""
    dense = sum(seconds["dense"])
    return {
        name: {kind: round(unit * statistics.median(times), 1) for kind, times in seconds.items()},
        f"{name}_boxed_by_dense": round(sum(seconds["boxed"]) / dense, 3),
        f"{name}_dense_by_peer": round(dense / sum(seconds["peer"]), 3),
    }


def render(record: dict[str, Any]) -> str:
    """A record of `run` as a plain table."""
    from rich.console import Console
    from rich.table import Table

    stream = io.StringIO()
    console = Console(file=stream, width=WIDTH, color_system=None, highlight=False, markup=False)
    console.print(machine_line(record["machine"]), f"threads: {record['threads']}")
    table = Table(title="LeanFormer on the box of what is kept", title_justify="left")
    headings = ("data set", "size", "cells kept", "in the box", "forward ms: DynUNet, dense, boxed", "boxed / dense")
    for heading in (*headings, "dense / DynUNet", "step ms: the same", "boxed / dense", "dense / DynUNet"):
        table.add_column(heading)
    for row in record["rows"]:
        cells = [row["dataset"], " x ".join(map(str, row["size"])), f"{row['kept_cells']:.2f}", f"{row['box']:.2f}"]
        for name in ("forward_ms", "step_ms"):
            cells.append(", ".join(f"{value:.1f}" for value in row[name].values()))
            cells += [f"{row[f'{name}_{ratio}']:.2f}" for ratio in ("boxed_by_dense", "dense_by_peer")]
        table.add_row(*cells)
    console.print(table)
    for row in record["published"]:
        times = ", ".join(f"{value:.0f}" for value in row["step_ms"].values())
        console.print(
            f"{PUBLISHED}, {' x '.join(map(str, row['size']))}, {row['keep']:.0%} of the tokens kept, positions "
            f"{'learned' if row['positions_learned'] else 'fixed'}: a step of {row['batch']} takes {times} ms dense, "
            f"pruned: {row['hard_by_dense']:.2f} of it"
        )
    return stream.getvalue()

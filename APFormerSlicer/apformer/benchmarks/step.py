"""`apformer benchmark training`: what a training step consists of, in 2D and 3D, on this machine's CPU.

The step is `Trainer`'s own, on prepared cases of noise; parts are told apart by hooks. Times are of the processor, per
thread, so that other work on the machine does not count; medians over the steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from ..bundles.preprocessing import ACQUIRED
from ..errors import ConfigError
from ..networks import build_network
from ..training.batches import AugmentedCases, Draws
from ..training.cases import Case, Labelled, PreparedCases
from ..training.config import TrainingConfig, parse_config
from ..training.loop import Trainer
from ..training.schedule import Moment
from ..volume import Volume
from .machine import describe_machine

PARTS = ("reading", "augmentation", "forward", "losses", "backward", "clipping", "optimiser", "average")
NETWORK = ("forward", "backward")
WARM_UP, STEPS = 2, 8
QUICK_STEPS = 2
SIZES = {2: (128, 128), 3: (64, 64, 64)}
QUICK_SIZES = {2: (32, 32), 3: (16, 16, 16)}
BATCH = {2: 8, 3: 2}
CASES = 4
Say = Callable[[str], None]


def run(network: str, quick: bool, say: Say) -> dict[str, Any]:
    """Measure both.

    Returns: {"machine", "threads", "network", "steps": {"2D": {"size", "batch", "parts_ms", "besides_network"}, ...}}.

    Raises:
        ConfigError: there is no such network, or it needs more arguments than its defaults.
    """
    measured = {}
    for dims in (2, 3):
        say(f"{dims}D: {STEPS if not quick else QUICK_STEPS} steps of {network}")
        size = (QUICK_SIZES if quick else SIZES)[dims]
        parts = _parts(a_config(network, size), QUICK_STEPS if quick else STEPS)
        whole = sum(parts.values())
        measured[f"{dims}D"] = {
            "size": list(size),
            "batch": BATCH[dims],
            "parts_ms": {name: round(1000 * seconds, 2) for name, seconds in parts.items()},
            "besides_network": round(1 - sum(parts[name] for name in NETWORK) / whole, 4),
        }
    return {
        "machine": describe_machine(),
        "network": network,
        "steps": measured,
    }


def a_config(network: str, size: tuple[int, ...]) -> TrainingConfig:
    """A recipe as fine-tuning writes them for MR images, for a network by name with its own defaults."""
    dims = len(size)
    arguments: dict[str, Any] = {"spatial_dims": dims, "in_channels": 1, "out_channels": 2, "image_size": list(size)}
    if not _fits(network, arguments):
        del arguments["image_size"]
    label = {
        "value": 1,
        "name": "Box",
        "color": [200, 30, 30],
        "category": {"scheme": "SCT", "value": "123037004", "meaning": "Anatomical Structure"},
        "type": {"scheme": "SCT", "value": "10200004", "meaning": "Liver"},
    }
    stage = {"epochs": 1, "size": list(size), "batch_size": BATCH[dims], "learning_rate": 1e-3, "ssa_every": 4}
    return parse_config(
        {
            "name": "step",
            "version": "1.0.0",
            "description": "Noise.",
            "modality": "MR",
            "channels": 1,
            "data_licence": "made here",
            "labels": [label],
            "preprocessing": {
                "spatial_dims": dims,
                "orientation": ACQUIRED if dims == 2 else "RAS",
                "spacing_mm": [1.0] * dims,
                "patch_size": list(size),
                "intensity": {"kind": "percentile", "lower": 0.5, "upper": 99.5},
            },
            "network": {"name": network, **arguments},
            "split": {"pattern": "(?P<number>[0-9]+)"},
            "stages": [stage],
            "augmentation": {"bias_field_p": 0.15, **({"elastic_p": 0.15} if dims == 2 else {})},
        }
    )


def _fits(network: str, arguments: Mapping[str, object]) -> bool:
    """Whether a network takes these arguments: some are made for a size of images, others for any."""
    try:
        build_network(network, arguments)
    except ConfigError:
        return False
    return True


def _parts(config: TrainingConfig, steps: int) -> dict[str, float]:
    """Seconds of every part of a step."""
    with TemporaryDirectory(prefix="apformer-step-") as folder:
        cases = _noise(config, Path(folder))
        trainer = Trainer(config, cases, cases, Path(folder), torch.device("cpu"), workers=0)
        stage = config.stages[0]
        batches = AugmentedCases(cases, stage, config.augmentation, config.seed)
        timed: dict[str, list[float]] = {name: [] for name in PARTS}
        with _watched(trainer, batches) as spent:
            drawn = Draws(cases.__len__, config.seed).batches(0, stage.batch_size)
            for number, items in enumerate(islice(drawn, WARM_UP + steps)):
                moment = Moment(0, number / (WARM_UP + steps), 0.0, 1e-3)
                found = _step(trainer, batches, items, moment, spent)
                if number >= WARM_UP:
                    for name in PARTS:
                        timed[name].append(found[name])
    return {name: median(values) for name, values in timed.items()}


def _step(trainer: Trainer, batches: AugmentedCases, drawn: Any, moment: Moment, spent: Spent) -> Mapping[str, float]:
    """One step: seconds by part."""
    spent.seconds = {"reading": 0.0}
    made: list[Any] = []
    making = _seconds(lambda: made.append(batches[drawn]))
    found = {"reading": spent.seconds["reading"], "augmentation": making - spent.seconds["reading"]}
    stage = trainer.config.stages[0]
    whole = _seconds(lambda: trainer.train_step(stage, made[0], 1e-3, moment))
    trainer.step += 1
    found |= {name: spent.seconds[name] for name in ("forward", "losses", "optimiser")}
    found["clipping"] = _seconds(lambda: nn.utils.clip_grad_norm_(trainer.network.parameters(), 1e9))
    found["average"] = _seconds(lambda: trainer.ema.update(trainer.network, 0.01))
    known = found["forward"] + found["losses"] + found["optimiser"] + found["clipping"]
    found["backward"] = whole - known
    return found


def _clock() -> float:
    """Seconds of processor time per thread."""
    return time.process_time() / torch.get_num_threads()


def _seconds(work: Callable[[], object]) -> float:
    began = _clock()
    work()
    return _clock() - began


@dataclass
class Spent:
    """Seconds by part of the present step, as hooks saw them."""

    seconds: dict[str, float] = field(default_factory=dict)
    began: float = 0.0

    def begin(self, *_: object) -> None:
        self.began = _clock()

    def reading(self, read: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose time is added up."""

        def timed(*values: Any) -> Any:
            began = _clock()
            try:
                return read(*values)
            finally:
                self.seconds["reading"] = self.seconds.get("reading", 0.0) + _clock() - began

        return timed

    def end(self, name: str) -> Callable[..., None]:
        """A hook that notes what has passed since `begin`."""

        def note(*_: object) -> None:
            self.seconds[name] = _clock() - self.began

        return note


@contextmanager
def _watched(trainer: Trainer, batches: AugmentedCases) -> Iterator[Spent]:
    spent = Spent()
    batches.cases.item = spent.reading(batches.cases.item)  # type: ignore[method-assign]
    hooks = [
        trainer.network.register_forward_pre_hook(spent.begin),
        trainer.network.register_forward_hook(spent.end("forward")),
        trainer.loss.register_forward_pre_hook(spent.begin),
        trainer.loss.register_forward_hook(spent.end("losses")),
        trainer.optimiser.register_step_pre_hook(spent.begin),
        trainer.optimiser.register_step_post_hook(spent.end("optimiser")),
    ]
    try:
        yield spent
    finally:
        for hook in hooks:
            hook.remove()


def _noise(config: TrainingConfig, folder: Path) -> PreparedCases:
    """Prepared cases of twice the patch's size (3D) or as many slices as two batches take (2D)."""
    size, dims = config.preprocessing.patch_size, config.preprocessing.spatial_dims
    shape = (2 * BATCH[2] // CASES, *size) if dims == 2 else tuple(5 * n // 4 for n in size)
    random = np.random.default_rng(0)

    def read(case: Case) -> Labelled:
        label = np.zeros(shape, np.uint8)
        label[tuple(slice(n // 4, max(1, 3 * n // 4)) for n in shape)] = 1
        image = random.normal(0, 1, shape).astype(np.float32) + label
        grid = np.diag([-1.0, -1.0, 1.0, 1.0])
        return Labelled(Volume(image, grid, "MR"), Volume(label, grid))

    names = [f"p{number}" for number in range(CASES)]
    cases = [Case(name, name, number, Path(name), Path(name)) for number, name in enumerate(names)]
    prepared = PreparedCases(cases, folder / "prepared", config.preprocessing, read)
    prepared.build()
    return prepared


def render(report: Mapping[str, Any]) -> str:
    """The report as text."""
    steps = report["steps"]
    lines = [
        f"A training step of {report['network']}, {report['machine']['cpu']}, threads: {report['machine']['threads']}",
        "",
    ]
    heads = [f"{kind}, {one['batch']} x {' x '.join(map(str, one['size']))}" for kind, one in steps.items()]
    lines += [f"| part | {' | '.join(f'{head}: ms | %' for head in heads)} |", "|---|" + "---:|" * 2 * len(steps)]
    for name in PARTS:
        cells = []
        for one in steps.values():
            milliseconds = one["parts_ms"][name]
            cells += [f"{milliseconds:.1f}", f"{100 * milliseconds / sum(one['parts_ms'].values()):.1f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    besides = [f"{100 * one['besides_network']:.1f} % of a step in {kind}" for kind, one in steps.items()]
    return "\n".join([*lines, "", f"All but the network's forward and backward pass: {' and '.join(besides)}."])

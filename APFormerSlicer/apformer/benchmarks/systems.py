"""One table: the four systems, their lighter forms, and MONAI's networks, trained alike and measured alike.

Every entry is one network on one data set with one seed; each is written into the results file when it is done, so that
a run can be stopped, continued, and divided among machines that each take some of the entries.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError
from ..files import atomic_path
from ..pruning.joint_search import JointSearch
from ..training.cases import PreparedCases, read_dataset, split_cases
from ..training.config import Pruning, TrainingConfig
from ..training.loop import seed_everything
from .machine import describe_machine
from .systems_data import SIZE, configuration, task_of
from .systems_entrants import BASELINE, ENTRANTS, KEEP, Entrant, entrant
from .systems_measure import cost, quality
from .systems_report import draw, render
from .systems_training import Training
from .twins import once

__all__ = ["draw", "render", "run"]

Say = Callable[[str], None]


def run(
    datasets: Sequence[Path],
    results: Path,
    *,
    minutes: float,
    seeds: int = 1,
    systems: Sequence[str] = (),
    size: tuple[int, ...] = SIZE,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Train and measure every entry that `results` does not hold yet. On the CPU.

    Args:
        datasets: folders in Medical Segmentation Decathlon layout, named as in `systems_data.TASKS`.
        results: JSON file, made or continued.
        minutes: of training, for every entry alike; of processor time per thread.
        seeds: 0, 1, 2 ...: so many.
        systems: of `ENTRANTS`; all when empty.
        size: of the images.

    Raises:
        ConfigError: a name is not known, or the file holds results of another setting.
        InputError: a case cannot be read.
        OutputError: the file cannot be written.
    """
    chosen = {name: entrant(name) for name in systems or ENTRANTS}
    tasks = {dataset: task_of(dataset) for dataset in datasets}
    done = _read(results, {"minutes": minutes, "size": list(size), "baseline": BASELINE})
    for seed in range(seeds):
        for dataset, task in tasks.items():
            config = configuration(task, seed, size)
            wanted = [name for name in chosen if f"{dataset.name}/{name}/{seed}" not in done["entries"]]
            if not wanted:
                continue
            cases = once(read_dataset(dataset, config.split), lambda case: [case.image])
            parts = split_cases(cases, config.split)
            with tempfile.TemporaryDirectory(prefix="apformer-benchmark-") as scratch:
                training, validation = (PreparedCases(part, Path(scratch), config.preprocessing) for part in parts)
                for part in (training, validation):
                    part.build()
                counts = {"training": len(training), "validation": len(validation)}
                patients = [len({case.patient for case in part}) for part in parts]
                for name in wanted:
                    say(f"{dataset.name}: {name}, seed {seed}")
                    network, effort = _train(chosen[name], config, training, minutes, say)
                    baseline = _build(ENTRANTS[BASELINE], config).eval()
                    entry = {
                        "dataset": dataset.name,
                        "network": name,
                        "seed": seed,
                        "system": chosen[name].system,
                        "settings": chosen[name].settings,
                        "size": list(config.preprocessing.patch_size),
                        "images": counts,
                        "patients": {"training": patients[0], "validation": patients[1]},
                        "training": effort,
                        "labels": quality(network, validation, config, task),
                        **cost(network, baseline, validation, config),
                        "machine": describe_machine(),
                        "commit": _commit(),
                    }
                    done["entries"][f"{dataset.name}/{name}/{seed}"] = entry
                    _write(results, done)
                    say(json.dumps({label: score["dice"] for label, score in entry["labels"].items()}))
    return done


def _build(entrant: Entrant, config: TrainingConfig) -> nn.Module:
    """With the same random weights every time."""
    seed_everything(config.seed)
    return entrant.build(config.channels, 1 + len(config.labels), tuple(config.preprocessing.patch_size))


def _train(
    entrant: Entrant, config: TrainingConfig, cases: PreparedCases, minutes: float, say: Say
) -> tuple[nn.Module, dict[str, Any]]:
    """The trained network, and what its training took."""
    network = _build(entrant, config)
    gated = getattr(network, "query_gate", None) is not None
    config = replace(config, pruning=Pruning(f"keep={KEEP:g}", gate_rate=30.0)) if gated else config
    if not entrant.ssa:
        config = replace(config, losses=replace(config.losses, ssa=0.0))
    training = Training(config, cases, 60 * minutes, entrant.ssa)
    for phase in entrant.phases:
        network = training.run(network, phase)
        if phase.search and isinstance(network, JointSearch) and entrant.budget is not None:
            kept = network.decide(entrant.budget)
            network = network.slice()
            parts = [[int(k.dims.sum()), int(k.hidden.sum())] for k in kept]
            patches = [None if k.patches is None else int(k.patches.sum()) for k in kept]
            say(f"cut to dimensions and channels {parts}, patches {patches}")
    if gated:
        network.gating = "hard"  # type: ignore[assignment]
    effort = training.effort
    return network.eval(), {
        "steps": effort.steps,
        "images": effort.images,
        "seconds": round(effort.seconds, 1),
        "images_per_second": round(effort.images / effort.seconds, 2),
        "threads": torch.get_num_threads(),
        "precision": config.precision,
    }


def _read(results: Path, settings: dict[str, Any]) -> dict[str, Any]:
    if not results.exists():
        return {"settings": settings, "entries": {}}
    done = json.loads(results.read_text(encoding="utf-8"))
    if done.get("settings") != settings:
        raise ConfigError(
            f"{results} holds the results of other settings.",
            "They cannot be continued with these.",
            "Name another file, or delete it.",
        )
    return done


def _write(results: Path, done: dict[str, Any]) -> None:
    with atomic_path(results) as temporary:
        temporary.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")


def _commit() -> str | None:
    """Of this program's sources, if they are a checkout."""
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except OSError:
        return None
    return asked.stdout.strip() or None

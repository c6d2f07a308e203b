"""From a labelled data set and a configuration to a bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..bundles import Bundle, save_bundle
from ..bundles.swap import staging
from ..errors import OutputError
from ..inference import choose_device
from ..networks import build_network
from .assess import assess, overlay_picture, summarise
from .calibration import IMAGES, Calibration
from .cases import PreparedCases, by_name, read_dataset, split_cases
from .checkpoint import CHECKPOINT, FORMER, has_checkpoint
from .config import TrainingConfig
from .gates import READY
from .loop import Trainer
from .pruned import compacted, measure_pruning
from .report import draw_curves, model_card, provenance, write_csv

Event = dict[str, Any]


def _ignore(event: Event) -> None:
    """The default listener."""


def train(
    config: TrainingConfig,
    dataset: Path,
    output: Path,
    *,
    device: str = "auto",
    base: Bundle | None = None,
    resume: bool = False,
    workers: int = 1,
    threads: int | None = None,
    on_event: Callable[[Event], None] = _ignore,
) -> Bundle:
    """Train, measure on the validation cases, and write the bundle `output/<name>`.

    `output` also receives checkpoint.safetensors, log.jsonl, log.csv, curves.png and the prepared cases.

    Args:
        dataset: a folder in Medical Segmentation Decathlon layout.
        base: a trained model to begin from; it is measured on the same validation cases, for comparison.
        resume: continue from `output`'s checkpoint, with the same result as an uninterrupted run.
        workers: data-loader processes; threads: CPU threads for the network.
        on_event: told {"event": "note" | "prepared" | "epoch" | "assessed", ...}; a note has a "message" to show.

    Raises:
        ConfigError: the data set or the checkpoint does not fit the configuration.
        InputError: a case cannot be read.
        OutputError: `output` holds another run, or cannot be written.
    """
    if threads:
        torch.set_num_threads(threads)
    target = choose_device(device)
    _claim(output, resume)
    cases, notes = by_name(read_dataset(dataset, config.split), dataset, config.labels)
    training_cases, validation_cases = split_cases(cases, config.split)
    training = PreparedCases(training_cases, output / "prepared", config.preprocessing)
    validation = PreparedCases(validation_cases, output / "prepared", config.preprocessing)
    for part in (training, validation):
        part.build()
    for note in dict.fromkeys([*notes, *training.notes, *validation.notes]):
        on_event({"event": "note", "message": note})
    on_event({"event": "prepared", "training": len(training), "validation": len(validation)})
    calibration = _calibration(config, training)
    trainer = Trainer(
        config,
        training,
        validation,
        output,
        target,
        workers=workers,
        on_epoch=lambda row: on_event({"event": "epoch", "of": config.epochs, **row}),
        thresholds=calibration,
    )
    if resume:
        trainer.resume()
    elif base is not None:
        trainer.start_from(base)
    weights = trainer.run()
    if calibration is not None:
        network = build_network(config.network, config.network_arguments)
        network.load_state_dict(weights)
        calibration.set_threshold(network.eval(), IMAGES)
        weights = network.state_dict()
    config, weights = compacted(config, weights, training)
    write_csv(trainer.rows, output / "log.csv")
    draw_curves(trainer.rows, f"{config.name} {config.version}", output / "curves.png")

    with staging(output / "draft") as scratch:
        draft = write_bundle(config, weights, scratch / config.name)
        scores = assess(draft, validation_cases, device)
        metrics = summarise(scores)
        if base is not None:
            metrics["base"] = summarise(assess(base, validation_cases, device))["labels"]
        if base is not None and config.pruning is not None:
            metrics["pruning"] = measure_pruning(draft, base, validation, config)
        on_event({"event": "assessed", **metrics})
        overlay_picture(draft, scores, device, output / "overlay.png")
    patients = len({case.patient for case in training_cases})
    return write_bundle(
        config,
        weights,
        output / config.name,
        training=provenance(config, trainer.rows, patients, target, base),
        metrics=metrics,
        pictures={"overlay.png": output / "overlay.png", "curves.png": output / "curves.png"},
        parent_version=None if base is None else f"{base.name} {base.version}",
    )


def _calibration(config: TrainingConfig, training: PreparedCases) -> Calibration | None:
    """What sets thresholds, where gates wait for their prune head instead of learning."""
    if config.pruning is None or not any(stage.gates == READY for stage in config.stages):
        return None
    shape = (config.channels, *config.preprocessing.patch_size)
    return Calibration.to_budget(
        lambda: training, config.pruning.budget, config.network, config.network_arguments, shape
    )


def write_bundle(
    config: TrainingConfig,
    weights: dict[str, Tensor],
    directory: Path,
    *,
    training: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
    pictures: dict[str, Path] | None = None,
    parent_version: str | None = None,
) -> Bundle:
    """The configuration and weights as a bundle; a draft without measured figures when `metrics` is None."""
    card = model_card(config, training, metrics) if training and metrics else f"# {config.name}\n\nNot measured yet.\n"
    return save_bundle(
        directory,
        name=config.name,
        version=config.version,
        description=config.description,
        modality=config.modality,
        channels=config.channels,
        labels=config.labels,
        preprocessing=config.preprocessing,
        network_name=config.network,
        network_arguments=config.network_arguments,
        state_dict=weights,
        card=card,
        training=training or {},
        metrics=metrics or {},
        data_licence=config.data_licence,
        pictures=pictures,
        parent_version=parent_version,
    )


def _claim(output: Path, resume: bool) -> None:
    """Make `output`, and make sure no other run's checkpoint is lost."""
    if not resume and any((output / name).exists() for name in (CHECKPOINT, FORMER)):
        raise OutputError(
            f"{output} holds the checkpoint of another training.",
            "Starting afresh would overwrite it.",
            "Continue it with --resume, or name another output folder.",
        )
    if resume and not has_checkpoint(output):
        raise OutputError(f"{output} holds no checkpoint.", "There is nothing to resume.", "Start without --resume.")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{output} cannot be made: {error.strerror}.",
            "The training has nowhere to write.",
            "Choose another folder.",
        ) from error

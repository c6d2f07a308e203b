"""`apformer train`: a data set and a configuration to a model."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from . import options as option
from .console import Console
from .segment import describe_model

if TYPE_CHECKING:
    from ..bundles import Bundle


def add_parser(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("train", parents=[shared], help="a data set and a configuration to a model")
    parser.add_argument("dataset", type=option.path, metavar="DATASET", help="folder with images and label maps")
    parser.add_argument("--config", required=True, type=option.path, metavar="FILE", help="TOML file, see Configs/")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=option.path,
        metavar="DIR",
        help="folder for checkpoints, logs, curves and the model",
    )
    parser.add_argument("--base", metavar=option.MODEL, help="begin from this trained model")
    option.add_device(parser)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in DIR")
    parser.add_argument("--workers", type=_not_negative, default=1, metavar="N", help="processes that prepare images")
    parser.add_argument("--threads", type=option.positive, metavar="N", help="threads to compute with (CPU)")
    parser.set_defaults(run=run)


def _not_negative(text: str) -> int:
    return 0 if text == "0" else option.positive(text)


def run(options: argparse.Namespace, console: Console) -> int:
    from .outputs import check_writable

    if not options.dataset.is_dir():
        raise InputError(
            f"{options.dataset} is not a folder.",
            "There are no cases to learn from.",
            "Check the path of the data set.",
        )
    from ..training.checkpoint import CHECKPOINT

    check_writable(options.output / CHECKPOINT)
    from ..bundles import ModelLibrary
    from ..training.config import read_config
    from ..training.run import train

    bundle = train(
        read_config(options.config),
        options.dataset,
        options.output,
        base=None if options.base is None else ModelLibrary().find(options.base),
        device=options.device,
        resume=options.resume,
        workers=options.workers,
        threads=options.threads,
        on_event=lambda event: _tell(event, console),
    )
    console.result(_summary(bundle), f"{bundle.name} {bundle.version} was written to {bundle.directory}")
    return 0


def _tell(event: Mapping[str, Any], console: Console) -> None:
    if event["event"] == "note":
        console.warn(event["message"])
    else:
        console.say(_as_line(event))


def _as_line(event: Mapping[str, Any]) -> str:
    """ "epoch 3 · loss 0.41 · dice anterior 0.88": whatever a training tells, in one line."""
    return " · ".join(f"{key.replace('_', ' ')} {_as_word(value)}" for key, value in event.items())


def _as_word(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_as_word(item)}" for key, item in value.items())
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _summary(bundle: Bundle) -> dict[str, Any]:
    return {
        "model": describe_model(bundle),
        "directory": str(bundle.directory),
        "metrics": bundle.metadata["metrics"],
    }

"""`apformer benchmark`: what segmenting costs on this machine, beside other networks on the same input."""

from __future__ import annotations

import argparse
from typing import Any

from . import options as option
from .console import Console


def add_parser(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("benchmark", help="seconds and memory on this machine")
    kinds = parser.add_subparsers(title="benchmarks", metavar="WHAT", required=True)
    segment = kinds.add_parser("segment", parents=[shared], help="segment a large CT, beside MONAI's networks")
    segment.add_argument("--model", default="liver-ct", metavar="NAME|DIR", help="default: liver-ct")
    option.add_device(segment)
    segment.set_defaults(run=run)


def run(options: argparse.Namespace, console: Console) -> int:
    from ..benchmarks import segment

    report = segment.run(options.model, options.device)
    console.result(report, segment.render(report))
    return 0

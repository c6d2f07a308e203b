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
    segment.add_argument("--quick", action="store_true", help="tiny inputs: shows that it runs, not what it costs")
    segment.add_argument("--long", action="store_true", help="also a CT of 600 slices")
    segment.add_argument("--untrained", action="store_true", help="an untrained network of the shape of liver-ct")
    segment.add_argument("--rounds", type=option.positive, metavar="N", help="rounds of the comparison")
    segment.set_defaults(run=run)


def run(options: argparse.Namespace, console: Console) -> int:
    from ..benchmarks import segment

    report = segment.run(
        options.model,
        options.device,
        quick=options.quick,
        long=options.long,
        untrained=options.untrained,
        rounds=options.rounds,
        say=console.say,
    )
    console.result(report, segment.render(report))
    return 0

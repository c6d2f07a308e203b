"""`apformer demo`: both hippocampi of a template brain."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import options as option
from .console import Console

_DESCRIPTION = """\
Segment both hippocampi of the ICBM152 T1 template with a bundled model and compare them with the Harvard-Oxford atlas.
Writes a Slicer segmentation, a contact sheet and a JSON record."""


def add_parser(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "demo", parents=[shared], help="both hippocampi of a template brain", description=_DESCRIPTION
    )
    parser.add_argument(
        "-o", "--output", type=option.path, default=Path("demo-output"), metavar="DIR", help="default: demo-output"
    )
    parser.add_argument("--model", default="hippocampus-mr", metavar=option.MODEL, help="default: hippocampus-mr")
    option.add_device(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, console: Console) -> int:
    from ..demo.hippocampi import Outputs, run_demo
    from .outputs import check_writable

    for path in Outputs(options.output).all:
        check_writable(path)
    record, text = run_demo(options.model, options.device, options.output, console.say)
    console.result(record, text)
    return 0

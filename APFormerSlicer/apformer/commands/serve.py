"""`apformer serve`: the workflow as a web page. A host above the engine does it, in a process of its own."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from contextlib import suppress
from typing import Any

from ..errors import ConfigError
from .console import Console

HOST = "APFormerSlicerLib.web"  # started by name: the engine imports nothing that lies above it


def add_parser(commands: Any, shared: argparse.ArgumentParser) -> None:
    # All words are the host's, `--help` too: with another prefix character, none of them is an option here.
    parser = commands.add_parser("serve", prefix_chars="\0", add_help=False, help="the workflow in a web page")
    parser.add_argument("words", nargs="*")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, console: Console) -> int:
    """The host's own exit status.

    Raises:
        ConfigError: the host is not installed beside the engine.
    """
    package = HOST.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"The browser host ({package}) is not installed beside the engine.",
            "There is no page to serve.",
            "Start it with `python3 run.py serve`, from the whole project.",
        )
    host = subprocess.Popen([sys.executable, "-m", HOST, *options.words])
    while True:
        with suppress(KeyboardInterrupt):  # Ctrl-C reaches the host too, which ends its sessions first
            return host.wait()

"""Run one function in a fresh Python process, to learn what it takes from nothing: seconds and peak memory.

The child runs this file as a module: a JSON request on stdin, one line of JSON as answer on stdout.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import APFormerError
from .memory import peak_memory_bytes

_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
_LINES_OF_LOG = 5


@dataclass(frozen=True)
class Apart:
    """What a function in its own process gave.

    Attributes:
        value: its return value, through JSON.
        seconds: from the moment the process was asked for until the function returned.
        peak_bytes: the most resident memory the process held.
    """

    value: Any
    seconds: float
    peak_bytes: int


def run_apart(target: str, arguments: Mapping[str, Any]) -> Apart:
    """Call `target`, "package.module:function", with JSON arguments in a fresh process.

    Raises:
        APFormerError: the one the function raised, or that the process died.
    """
    paths = [str(_PACKAGE_PARENT), *filter(None, [os.environ.get("PYTHONPATH")])]
    started = time.time()  # the only clock that two processes share on every system
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps({"target": target, "arguments": dict(arguments)}),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode != 0:
        raise APFormerError(
            f"The measured process ended with status {done.returncode}: {_end_of(done.stderr)}",
            "There is no measurement. A negative status usually means that the system ran out of memory.",
            "Close other programs and start again.",
        )
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise APFormerError(**answer["error"])
    return Apart(answer["value"], answer["finished"] - started, answer["peak_bytes"])


def import_seconds(module: str) -> float:
    """Seconds that importing `module` takes in this process."""
    started = time.perf_counter()
    importlib.import_module(module)
    return time.perf_counter() - started


def _end_of(log: str) -> str:
    return " / ".join(log.strip().splitlines()[-_LINES_OF_LOG:]) or "it said nothing"


def _main() -> None:
    request = json.load(sys.stdin)
    module, function = request["target"].split(":")
    answer: dict[str, Any]
    with contextlib.redirect_stdout(sys.stderr):  # stdout carries the answer and nothing else
        try:
            value = getattr(importlib.import_module(module), function)(**request["arguments"])
            answer = {"value": value, "finished": time.time(), "peak_bytes": peak_memory_bytes()}
        except APFormerError as error:
            answer = {"error": error.as_dict()}
    print(json.dumps(answer))


if __name__ == "__main__":
    _main()

"""A running server for tests, pictures and measurements, and a browser to open it in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "APFormerSlicer"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NEEDED = ("trame_slicer", "slicer_layer_dm", "slicer", "nilearn")


def missing() -> str:
    """A Python package that the server needs and that is not installed; "" when there is none."""
    return next((name for name in NEEDED if find_spec(name) is None), "")


def chromium() -> str | None:
    """The program; None when there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextmanager
def serving(*options: str, models: Path | None = None) -> Iterator[str]:
    """The address of a server on a free port, which keeps models in a folder of its own."""
    command = [sys.executable, "-m", "APFormerSlicerLib.web", "--port", "0", *options]
    environment = {**os.environ, **({} if models is None else {"APFORMER_MODELS": str(models)})}
    with subprocess.Popen(
        command,
        cwd=SOURCES,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        errors="replace",
    ) as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found is not None
        try:
            yield found.group()
        finally:
            process.terminate()
            process.wait(20)

"""A running server for tests, pictures and measurements, and a browser to open it in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil
from apformer.jobs.scratch import OWNER

SOURCES = Path(__file__).resolve().parents[2] / "APFormerSlicer"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WATCHING = Path(__file__).resolve().parent / "watching"
NEEDED = ("trame_slicer", "slicer_layer_dm", "slicer", "nilearn")
# Every name but this computer's own is unknown to the browser: nothing can leave.
OFFLINE = ("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",)


def missing() -> str:
    """A Python package that the server needs and that is not installed; "" when there is none."""
    return next((name for name in NEEDED if find_spec(name) is None), "")


def chromium() -> str | None:
    """The program; None when there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@dataclass(frozen=True)
class Served:
    """A server that runs.

    Attributes:
        link: what it printed, with the token where there is one. temporary: the folder where it keeps users' data.
        log: what it and its sessions said on stderr.
    """

    link: str
    process: subprocess.Popen[str]
    temporary: Path
    log: Path

    @property
    def address(self) -> str:
        return self.link.partition("?")[0]

    def processes(self, module: str = "") -> list[psutil.Process]:
        """Its own processes below the front, or those that run a Python module."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        return [one for one in below if one.is_running() and (not module or module in one.cmdline())]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Jobs stand still meanwhile."""
        workers = self.processes("apformer.jobs")
        assert workers
        for worker in workers:
            worker.suspend()
        try:
            yield
        finally:
            for worker in workers:
                worker.resume()

    def files(self) -> list[Path]:
        """What lies in the users' private folders, the logs and the names of owners aside."""
        files = [path for path in self.temporary.rglob("*") if path.is_file()]
        return [path for path in files if path.suffix != ".log" and path.name != OWNER]

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


@contextmanager
def serving(
    *options: str, models: Path | None = None, watched: Path | None = None, temporary: Path | None = None
) -> Iterator[Served]:
    """A server on a free port.

    Args:
        models: the folder where it keeps new versions.
        temporary: the folder where it keeps users' data; by default a new one.
        watched: a file to which its processes write each file that they open (see `watching/sitecustomize.py`).
    """
    command = [sys.executable, "-m", "APFormerSlicerLib.web", "--port", "0", *options]
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        tempfile.NamedTemporaryFile(suffix=".log") as log,
    ):
        private = str(temporary or folder)
        environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), private)}
        if models is not None:
            environment["APFORMER_MODELS"] = str(models)
        if watched is not None:
            environment |= {"APFORMER_WATCHED": str(watched), "PYTHONPATH": str(WATCHING)}
        with subprocess.Popen(
            command,
            cwd=SOURCES,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            encoding="utf-8",
            errors="replace",
        ) as process:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found is not None
            try:
                yield Served(found.group(), process, Path(private), Path(log.name))
            finally:
                process.terminate()
                process.wait(20)

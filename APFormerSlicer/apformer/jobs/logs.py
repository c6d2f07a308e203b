"""One log file per job: what libraries print, tracebacks, and what a crash leaves behind."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

KEPT = 50  # files; one is a few kB
_OURS = re.compile(r"\d{8}-\d{6}-[\w-]+\.log")
_TAIL_BYTES = 8192
_TAIL_LINES = 20


class JobLog:
    """An open log file. Without a file, what is written goes to stderr."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, text: str) -> None:
        """One or several lines."""
        with suppress(OSError):  # a full disk must not end the job
            os.write(self._descriptor, text.rstrip("\n").encode("utf-8", errors="backslashreplace") + b"\n")


class LogFolder:
    """Where the logs of jobs are kept.

    Args:
        folder: made when it is missing; None, or a folder that cannot be made: no files.
        capture: while a job's log is open, all that this process prints goes there (file descriptors 1 and 2).
        kept: this many logs stay, the newest.
    """

    def __init__(self, folder: Path | None, *, capture: bool = False, kept: int = KEPT) -> None:
        self.folder, self.capture, self.kept = folder, capture, kept
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                print(f"The log folder {folder} cannot be made: {error.strerror}.", file=sys.stderr)
                self.folder = None
        self.prune()

    def path_for(self, kind: str, identity: str) -> Path | None:
        """The file for a job that begins now or later."""
        return None if self.folder is None else self.folder / log_name(kind, identity)

    @contextmanager
    def opened(self, path: Path | None) -> Iterator[JobLog]:
        """The log at `path`, to append to; readable by its owner only, since tracebacks may hold file names."""
        descriptor = None if path is None else _open(path)
        if descriptor is None:
            yield JobLog(2)
            return
        try:
            with _captured(descriptor) if self.capture else _untouched():
                yield JobLog(descriptor)
        finally:
            os.close(descriptor)
            self.prune()

    def prune(self) -> None:
        """Remove the oldest logs beyond `kept`; other files are never touched."""
        if self.folder is None:
            return
        with suppress(OSError):
            logs = [entry for entry in os.scandir(self.folder) if _OURS.fullmatch(entry.name)]
            logs.sort(key=lambda entry: (entry.stat().st_mtime, entry.name))  # those in use were written to lately
            for entry in logs[: -self.kept]:
                with suppress(OSError):  # open in another worker, on Windows
                    os.unlink(entry)


def log_name(kind: str, identity: str) -> str:
    """A file name that sorts by time and is safe on every system, whatever `identity` is."""
    safe = re.sub(r"[^A-Za-z0-9-]", "_", f"{kind[:20]}-{identity[:40]}")
    return f"{datetime.now():%Y%m%d-%H%M%S}-{safe}.log"


def last_lines(path: str | Path | None) -> list[str]:
    """The end of a log; empty when it cannot be read."""
    if path is None:
        return []
    try:
        with open(path, "rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - _TAIL_BYTES))
            return stream.read().decode("utf-8", errors="replace").strip().splitlines()[-_TAIL_LINES:]
    except OSError:
        return []


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        print(f"The log {path.name} cannot be written: {error.strerror}.", file=sys.stderr)
        return None


@contextmanager
def _captured(descriptor: int) -> Iterator[None]:
    """What any library prints, C code too, goes to `descriptor`, and so does what faulthandler writes in a crash."""
    _flush()
    before = [os.dup(1), os.dup(2)]
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        _flush()
        for stream, original in enumerate(before, 1):
            os.dup2(original, stream)
            os.close(original)


@contextmanager
def _untouched() -> Iterator[None]:
    yield


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.flush()

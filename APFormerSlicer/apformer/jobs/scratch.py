"""Private temporary folders: through which a host and its worker hand each other arrays, and a server's sessions.

Patients' images lie in them. Each says whose it is, so that the next program to start removes what one left that was
killed.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

JOBS, WEB = "apformer-jobs-", "apformer-web-"
OWNER = ".owner.json"
_NAMELESS_SECONDS = 3600.0  # a folder is made and then named, within milliseconds


class Scratch:
    """Makes such folders (mode 0700) and removes them. Made when it is first needed; from any thread."""

    def __init__(self) -> None:
        self._root: Path | None = None
        self._lock = threading.Lock()
        _sweep_once()

    def folder(self) -> Path:
        """A new folder for one job's arrays."""
        with self._lock:
            if self._root is None:
                self._root = private_folder(JOBS)
            return Path(tempfile.mkdtemp(dir=self._root))

    def discard(self, folder: Path) -> None:
        """Remove one of them, once its results are read."""
        shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove what is still there."""
        with self._lock:
            root, self._root = self._root, None
        if root is not None:
            shutil.rmtree(root, ignore_errors=True)


def private_folder(prefix: str) -> Path:
    """A new folder in the system's folder for temporary files, which is this process's.

    Args:
        prefix: `JOBS` or `WEB`.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    own(folder)
    return folder


def own(folder: Path) -> None:
    """Say that `folder` is this process's; nothing happens when that cannot be written."""
    from ..files.lock import Holder

    with suppress(OSError):
        (folder / OWNER).write_text(json.dumps(asdict(Holder.this_process())), encoding="utf-8")


def sweep(parent: Path | None = None) -> list[Path]:
    """Remove the folders of processes that are gone, below `parent`: the system's folder for temporary files.

    Only what belongs to this user, says whose it is, and has nothing in it that a running process owns; a folder that
    names nobody only when it is empty and older than an hour. Several processes may do this at once.

    Returns: what was removed.
    """
    folders = Path(tempfile.gettempdir() if parent is None else parent).glob("apformer-*")
    return [folder for folder in folders if folder.name.startswith((JOBS, WEB)) and remove_if_left(folder)]


def remove_if_left(folder: Path) -> bool:
    """Remove `folder` when it is what a process left that is gone (see `sweep`); whether it was."""
    left = _is_ours(folder) and _is_left(folder)
    if left:
        shutil.rmtree(folder, ignore_errors=True)
    return left


def _is_ours(folder: Path) -> bool:
    """A folder, no link to one, of this user."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and (not hasattr(os, "getuid") or status.st_uid == os.getuid())


def _is_left(folder: Path) -> bool:
    from ..files.lock import holder_of

    try:
        inside = list(folder.iterdir())
        if not inside:
            return time.time() - folder.stat().st_mtime > _NAMELESS_SECONDS
        said = [folder / OWNER, *(below / OWNER for below in inside if (below / OWNER).is_file())]
    except OSError:
        return False
    return all(owner is not None and owner.is_gone() for owner in map(holder_of, said))


_swept = threading.Event()


def _sweep_once() -> None:
    """Sweep once in the life of this process, beside its main thread: a host's window must not wait for a disk."""
    if not _swept.is_set():
        _swept.set()
        threading.Thread(target=sweep, name="sweep", daemon=True).start()

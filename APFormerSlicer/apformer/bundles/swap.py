"""Put a finished folder in place of another, all or nothing.

The new folder is written beside its place, flushed to disk and renamed. An old folder is renamed aside first and kept
until the new one is in place. A crash between the two renames leaves the old one aside; the next `recover` puts it
back, and removes what else processes left behind that are gone (see `owner`).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import OutputError
from ..owner import HALF_MADE, is_alive, mark, sweep

_RENAMING_SECONDS = 60  # two renames take milliseconds; so long a writer on another computer is left to them


def unwritable(place: Path, error: OSError) -> OutputError:
    """The error for a folder or file that could not be written, renamed or removed."""
    return OutputError(
        f"{place} could not be written ({error.strerror or error}).",
        "Nothing was changed there.",
        "Check that the folder may be written, that the disk has space, and that no other program has the files open.",
    )


@contextlib.contextmanager
def staging(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` to build its successor in; removed afterwards unless it was put in place.

    Raises:
        OutputError: the folder cannot be made, or writing in it failed.
    """
    stage = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        recover(target)
        stage = _unfinished(target, "new")
        stage.mkdir()
        stage.chmod(0o755)  # whatever the umask: a shared model is not hidden from other users
        yield stage
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)


def put_in_place(stage: Path, target: Path) -> None:
    """Rename `stage` (flushed to disk first) to `target`; whatever was at `target` stays until then.

    Raises:
        OutputError: flushing or renaming failed; `target` is then as it was.
    """
    try:
        for file in sorted(stage.rglob("*")):
            flush(file)
        flush(stage)
        aside = _move_aside(target) if target.exists() else None
        try:
            os.rename(stage, target)
        except BaseException:
            if aside is not None:
                os.rename(aside, target)
            raise
        flush(target.parent)
    except OSError as error:
        raise unwritable(target, error) from error
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)


def remove_folder(target: Path) -> None:
    """Remove `target` so that it is either wholly there or gone from its place; of a link, only the link.

    Raises:
        OutputError: it cannot be renamed or removed.
    """
    try:
        if target.is_symlink():
            target.unlink()
            return
        doomed = _unfinished(target, "new")
        doomed.mkdir()
        os.rename(target, doomed / "removed")
        shutil.rmtree(doomed)
    except OSError as error:
        raise unwritable(target, error) from error


def recover(target: Path) -> None:
    """Undo what a crash left: put an old folder back when `target` is gone, remove it when `target` is there; remove
    what was half made."""
    for path, found in _half_made(target.parent):
        if found["target"] == target.name:
            _recover(path, found)


def recover_all(root: Path) -> None:
    """`recover` for every folder in `root`."""
    for path, found in _half_made(root):
        with contextlib.suppress(OSError):  # a folder that cannot be written now can still be read
            _recover(path, found)


def _half_made(root: Path) -> list[tuple[Path, re.Match[str]]]:
    named = ((path, HALF_MADE.fullmatch(path.name)) for path in sorted(root.glob(".*")))
    return [(path, found) for path, found in named if found is not None]


def _recover(path: Path, found: re.Match[str]) -> None:
    target = path.with_name(found["target"])
    if found["kind"] == "new":
        sweep([path])
    elif _between_renames(path, found["mark"]):
        return
    elif target.exists():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError, FileExistsError):  # another process was quicker
            os.rename(path, target)


def _between_renames(aside: Path, text: str) -> bool:
    """Whether the writer that moved a folder aside may be about to put its successor in place."""
    alive = is_alive(text)
    if alive is None and len(text) == len(mark()):  # of another computer
        return time.time() - aside.lstat().st_ctime < _RENAMING_SECONDS
    return bool(alive)


def _unfinished(target: Path, kind: str) -> Path:
    """The name of a folder beside `target` that tells who makes it."""
    return target.with_name(f".{target.name}.{kind}-{mark()}")


def _move_aside(target: Path) -> Path:
    aside = _unfinished(target, "old")
    os.rename(target, aside)
    return aside


def flush(path: Path) -> None:
    """Force a file or folder to disk, so that the rename never becomes durable before the content."""
    if path.is_dir():
        if os.name == "nt":  # Windows cannot open folders for flushing; it orders these writes itself
            return
        descriptor = os.open(path, os.O_RDONLY)
    else:
        descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Put a finished folder in place of another, all or nothing.

The new folder is written beside its place, flushed to disk and renamed. An old folder is renamed aside first and kept
until the new one is in place. A crash between the two renames leaves the old one aside; the next `recover` puts it
back.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import OutputError

_ASIDE = re.compile(r"\.(.+)\.old-\w+")
_ABANDONED_SECONDS = 24 * 3600  # a staging folder this old belongs to a run that crashed


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
        stage = Path(tempfile.mkdtemp(prefix=f".{target.name}.new-", dir=target.parent))
        stage.chmod(0o755)  # mkdtemp's 0700 would hide a shared model from other users
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
        doomed = Path(tempfile.mkdtemp(prefix=f".{target.name}.new-", dir=target.parent))
        os.rename(target, doomed / "removed")
        shutil.rmtree(doomed)
    except OSError as error:
        raise unwritable(target, error) from error


def recover(target: Path) -> None:
    """Undo what a crash left: put an old folder back when `target` is gone, remove it when `target` is there."""
    name = glob.escape(target.name)
    for aside in sorted(target.parent.glob(f".{name}.old-*")):
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            os.rename(aside, target)
    for stage in target.parent.glob(f".{name}.new-*"):
        if time.time() - stage.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(stage, ignore_errors=True)


def recover_all(root: Path) -> None:
    """`recover` for every folder that was moved aside in `root`."""
    for aside in sorted(root.glob(".*.old-*")):
        match = _ASIDE.fullmatch(aside.name)
        if match:
            with contextlib.suppress(OSError):  # a folder that cannot be written now can still be read
                recover(root / match[1])


def _move_aside(target: Path) -> Path:
    holder = tempfile.mkdtemp(prefix=f".{target.name}.old-", dir=target.parent)
    os.rmdir(holder)  # only its unused name is wanted: a rename onto an existing folder fails on Windows
    os.rename(target, holder)
    return Path(holder)


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

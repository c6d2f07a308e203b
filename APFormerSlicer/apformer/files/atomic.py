"""Writing a file completely or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import OutputError
from ..owner import mark, sweep

_REMEDIES = {
    errno.ENOSPC: "Free some disk space, or choose an output on another disk.",
    errno.EDQUOT: "Free some of your quota, or choose an output on another disk.",
    errno.EACCES: "Choose a folder you may write to, or ask for permission.",
    errno.EPERM: "Choose a folder you may write to, or ask for permission.",
    errno.EROFS: "The disk is read-only; choose an output on another disk.",
    errno.ENOTDIR: "A part of the output path is a file; choose an output inside a folder.",
    errno.EEXIST: "A part of the output path is a file; choose an output inside a folder.",
    errno.ENAMETOOLONG: "Choose a shorter output name.",
}
_swept: set[Path] = set()  # folders this process has written to: looking through a large one takes time


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same suffixes; rename it to `path` when the block succeeds.

    Missing parent folders are created. The content is on disk (fsync) before the rename, and an existing `path` stays
    as it was until then. When the block raises, the temporary file is removed; those that killed processes left in the
    folder are when this process first writes there.

    Raises:
        OutputError: the folder cannot be created or written to, the disk is full, `path` is a folder.
    """
    target = Path(path)
    if target.is_dir():
        raise OutputError(
            f"{target} is a folder.", "A file cannot take its place.", "Name a file inside it, or another output."
        )
    temporary = target.with_name(f".{mark()}-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(target.parent)
        # Created here, not by the writer, so that a folder without write permission is found before any work.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
        _flush_folder(target.parent)
    except OSError as error:
        raise OutputError(
            f"{target} could not be written: {error.strerror or error}.",
            "Nothing was saved there; an earlier file of that name is unchanged.",
            _REMEDIES.get(error.errno or 0, "Check the folder and the disk, then try again."),
        ) from error
    finally:
        with suppress(OSError):  # renamed away, or its folder never existed
            temporary.unlink()


def _sweep_once(folder: Path) -> None:
    place = folder.absolute()
    if place not in _swept:
        _swept.add(place)
        with suppress(OSError):  # a folder that cannot be listed can still be written to
            sweep(list(place.glob(".*")))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system lets a folder be opened (Windows does not)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)

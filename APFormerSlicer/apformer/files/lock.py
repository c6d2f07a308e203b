"""One writer at a time: a lock file that names its holder, and that a holder who died does not keep.

Whether a holder still works is asked of the operating system (its process, on its computer), never of a clock.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from ..bundles.swap import unwritable
from ..errors import OutputError
from ..owner import runs, start_of

WAIT_S = 10.0
_PAUSE_S = 0.05
_LARGEST_BYTES = 4096
# A lock is created and filled in two steps a few microseconds apart; one that stays empty this long lost its writer.
_NAMELESS_S = 2.0


@dataclass(frozen=True)
class Holder:
    """Who holds a lock. `started` tells a process from a later one with the same number, where the system can say."""

    pid: int
    host: str
    started: str
    since: str
    token: str

    @classmethod
    def this_process(cls) -> Holder:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(os.getpid(), socket.gethostname(), start_of(os.getpid()), now, secrets.token_hex(8))

    def is_gone(self) -> bool:
        """True only when it is certain: a process of this computer that no longer runs."""
        if self.host != socket.gethostname():
            return False
        if not runs(self.pid):
            return True
        started = start_of(self.pid)
        return bool(self.started and started and started != self.started)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@contextmanager
def folder_lock(path: Path, wait_s: float = WAIT_S, check: Callable[[], None] = lambda: None) -> Iterator[bool]:
    """Hold the lock file `path` while the block runs; waits up to `wait_s` seconds for another holder.

    `check` is called while it waits, and ends that by raising.

    Yields whether it was taken over from a holder that is gone, who may have left work half done.

    Raises:
        OutputError: another writer holds it all that time (the text names it), or the folder cannot be written.
    """
    mine = Holder.this_process()
    taken_over = _acquire(path, mine, wait_s, check)
    try:
        yield taken_over
    finally:
        if holder_of(path) == mine:
            with suppress(OSError):  # left behind, it names a process that will be gone
                path.unlink()


def sweep_claims(path: Path) -> None:
    """Remove the claims on the lock `path` that processes left which were killed while they broke it.

    Call it only while holding the lock: whoever has a claim looks at the lock again before anything is removed.
    """
    for claim in path.parent.glob(f"{path.name}.*"):
        with suppress(OSError):
            claim.unlink()


def _acquire(path: Path, mine: Holder, wait_s: float, check: Callable[[], None]) -> bool:
    deadline, taken_over = time.monotonic() + wait_s, False
    nameless: _Nameless | None = None
    while not _create(path, mine):
        holder = holder_of(path)
        nameless = _Nameless.of(path, nameless) if holder is None else None
        if holder is not None and holder.is_gone():
            _break(path, holder)
            taken_over = True
        elif nameless is not None and nameless.for_long():
            _break(path, nameless)
            taken_over = True
        elif time.monotonic() >= deadline:
            raise OutputError(
                f"{path.parent} is being changed by another program ({holder or 'it did not say which'}).",
                "Two writers at once could lose work, so nothing was changed.",
                f"Wait for it to finish. If nothing else works in that folder any more, delete {path} and try again.",
            )
        else:
            check()
            time.sleep(_PAUSE_S)
    return taken_over


@dataclass(frozen=True)
class _Nameless:
    """A lock file that can be read and names nobody: which file it is, and since when it has been seen like that."""

    file: tuple[int, int]
    seen: float
    token = "nameless"

    @classmethod
    def of(cls, path: Path, before: _Nameless | None) -> _Nameless | None:
        try:
            with path.open("rb") as stream:
                status = os.fstat(stream.fileno())
        except OSError:
            return None
        file = (status.st_ino, status.st_mtime_ns)
        return before if before is not None and before.file == file else cls(file, time.monotonic())

    def for_long(self) -> bool:
        return time.monotonic() - self.seen > _NAMELESS_S


def _break(path: Path, gone: Holder | _Nameless) -> None:
    """Remove the lock of a holder that is gone. A claim, itself a lock, lets one process at a time do that, and it
    looks again first: otherwise a slow one could remove the new lock of a quick one."""
    with folder_lock(path.with_name(f"{path.name}.{gone.token}")):
        still = holder_of(path) or (_Nameless.of(path, gone) if isinstance(gone, _Nameless) else None)
        if still == gone:
            with suppress(FileNotFoundError):
                path.unlink()


def _create(path: Path, mine: Holder) -> bool:
    """Whether the lock file was made now; False when it exists."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    except PermissionError as error:
        if os.name == "nt" and path.exists():  # Windows: a lock file that is just being deleted
            return False
        raise unwritable(path.parent, error) from error
    except OSError as error:
        raise unwritable(path.parent, error) from error
    try:
        os.write(descriptor, json.dumps(asdict(mine)).encode())
    except OSError as error:
        os.close(descriptor)
        path.unlink()
        raise unwritable(path.parent, error) from error
    os.close(descriptor)
    return True


def holder_of(path: Path) -> Holder | None:
    """Whom a lock file, or another file that says whose something is, names; None when it is gone or unreadable."""
    try:
        with path.open("rb") as stream:
            said = json.loads(stream.read(_LARGEST_BYTES))
        holder = Holder(**{field.name: said[field.name] for field in fields(Holder)})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(holder.pid, int) or not all(isinstance(text, str) for text in (holder.host, holder.started)):
        return None
    # The token becomes part of a file's name.
    return holder if isinstance(holder.token, str) and holder.token.isalnum() and len(holder.token) <= 64 else None

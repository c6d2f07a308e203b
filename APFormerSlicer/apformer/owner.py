"""Which process made a file that is not finished, told by the file's name, and whether that process still runs.

A kill leaves half-written files and folders behind. Whether their maker still works is asked of the operating system,
never of a clock: only where it cannot be asked (another computer on a shared folder, another container, names of
earlier versions) such a file counts as left behind once it is a day old.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

ABANDONED_SECONDS = 24 * 3600
# In names: process, computer, start of the process, a running number. Earlier versions drew twelve digits instead.
_MARK = r"[0-9a-f]{24}"
HALF_WRITTEN = re.compile(rf"\.(?P<mark>{_MARK}|[0-9a-f]{{12}})-.+")  # the temporary names of files.atomic_path
HALF_MADE = re.compile(r"\.(?P<target>.+)\.(?P<kind>new|old)-(?P<mark>\w+)")  # and those of bundles.swap
_numbers = itertools.count()


def mark() -> str:
    """24 hexadecimal digits that name this process, other ones at each call."""
    pid = os.getpid()
    return f"{pid & 0xFFFFFFFF:08x}{_digest(_computer())}{_digest(start_of(pid))}{next(_numbers) & 0xFFFF:04x}"


def is_alive(text: str) -> bool | None:
    """Whether the process that a mark names still runs; None when that cannot be told."""
    if not re.fullmatch(_MARK, text) or text[8:14] != _digest(_computer()):
        return None
    pid = int(text[:8], 16)
    return runs(pid) and text[14:20] == _digest(start_of(pid))


def is_left(path: Path, text: str) -> bool:
    """Whether the file or folder `path`, whose name has that mark, was left behind by a process that is gone."""
    alive = is_alive(text)
    return not alive if alive is not None else _age_s(path) > ABANDONED_SECONDS


def sweep(paths: Iterable[Path]) -> None:
    """Remove those of `paths` that are half-written files or half-made folders of processes that are gone.

    What cannot be removed now is left for the next time.
    """
    for path in paths:
        found = HALF_WRITTEN.fullmatch(path.name) or HALF_MADE.fullmatch(path.name)
        if found is None or found.groupdict().get("kind") == "old":  # an old folder may be the only whole one
            continue
        with suppress(OSError):
            if not is_left(path, found["mark"]):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def runs(pid: int) -> bool:
    """Whether a process of this computer has that number."""
    if pid <= 0:
        return False
    if sys.platform == "win32":
        return _windows_start(pid) is not None
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno == errno.EPERM  # it runs, as another user
    except OverflowError:
        return False
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether it has ended and only waits for its parent to hear of it, for ever where that one does not ask (a
    container without init). Linux only."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (OSError, IndexError):
        return False


def start_of(pid: int) -> str:
    """A text that no other process with this number shares; empty where the system does not tell.

    Linux: boot and clock ticks since then (field 22 of proc(5) stat); neither follows the wall clock.
    """
    if sys.platform == "win32":
        return _windows_start(pid) or ""
    try:
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{ticks}"
    except (OSError, IndexError):
        return ""


def _windows_start(pid: int) -> str | None:
    """The creation time that Windows keeps for a running process; None when it does not run. (os.kill would end it.)"""
    import ctypes

    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009  absent from the type stubs of other systems
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = kernel.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
    if not handle:
        return "" if kernel.GetLastError() == 5 else None  # 5: it runs, as another user
    try:
        code = ctypes.c_ulong()
        times = [ctypes.c_ulonglong() for _ in range(4)]
        process = ctypes.c_void_p(handle)
        if kernel.GetExitCodeProcess(process, ctypes.byref(code)) and code.value != 259:  # STILL_ACTIVE
            return None
        kernel.GetProcessTimes(process, *(ctypes.byref(moment) for moment in times))
        return str(times[0].value)
    finally:
        kernel.CloseHandle(ctypes.c_void_p(handle))


def _computer() -> str:
    """This computer, and where it counts processes apart (Linux: in a container), that count."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _age_s(path: Path) -> float:
    """Seconds since it, or anything in it, was written or renamed."""
    newest = 0.0
    for each in (path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())):
        status = each.lstat()
        newest = max(newest, status.st_mtime, status.st_ctime if os.name == "posix" else 0.0)
    return time.time() - newest

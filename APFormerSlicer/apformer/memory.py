"""How much memory is free, the question every reader asks before it takes any, and how to tell that it ran out.

A header of some hundred bytes can ask for terabytes. What a file will need is computed from its header and compared
with a budget first: what is free on this computer, or less where a host says so (a server's users share it).
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from .errors import InputError

ASSUMED_FREE = 2 << 30  # where the system does not tell
_SHARE = 0.8  # of what is free: the rest is for the copy that a conversion makes piece by piece, and for the host
_WINDOWS_MEMORY_FIELDS = ("total", "available", "page", "page_free", "virtual", "virtual_free")
_CGROUP = Path("/sys/fs/cgroup")
_MEMBER = Path("/proc/self/cgroup")
_GROUP_FILES = (  # of control groups version 2 and 1: limit, in use, the field of memory.stat that can be dropped
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
# What programs and libraries say when memory runs out: Python and NumPy; torch on CPUs ("DefaultCPUAllocator: can't
# allocate memory" on Linux and macOS, "not enough memory" on Windows), CUDA, ROCm and Apple's GPUs; C++ ("bad
# allocation" is Microsoft's text), Rust, ITK, VTK, zlib, CUDA's libraries, Linux, Windows. "Cannot allocate memory in
# static TLS block" is none of them: a library was loaded too late.
_EXHAUSTION_WORDS = re.compile(
    r"MemoryError|MemoryAllocationError|OutOfMemory|out of memory|(?:not enough|insufficient) (?:\w+ )?memory"
    r"|bad_?alloc|bad allocation|(?:can't|can ?not|could not|unable to|failed to) allocate(?! memory in static TLS)"
    r"|memory allocation (?:of \d+ bytes )?failed|(?:CUBLAS|CUDNN|CUSOLVER|CUSPARSE|CUFFT)_STATUS_ALLOC_FAILED"
    r"|paging file is too small|commitment limit",
    re.IGNORECASE,
)
_EXHAUSTION_TYPES = {"MemoryError", "OutOfMemoryError"}  # by name: torch's own is asked for without importing torch
# Of Windows: not enough memory (8, 14), no system resources (1450), not enough quota (1453), paging file (1455).
_WINDOWS_EXHAUSTION = {8, 14, 1450, 1453, 1455}

_limit: ContextVar[int | None] = ContextVar("memory limit of readers", default=None)


@contextmanager
def memory_limit(most_bytes: int) -> Iterator[None]:
    """While the block runs, readers take at most `most_bytes` for one image, also where more is free.

    The limit belongs to the context of the caller: `asyncio.to_thread` takes it along, a plain thread does not.
    """
    token = _limit.set(most_bytes)
    try:
        yield
    finally:
        _limit.reset(token)


def require_memory(name: Path | str, needed_bytes: int) -> None:
    """Ask for memory before it is taken.

    Args:
        name: the file or volume that asks, for the error.
        needed_bytes: all that reading it will hold at once, as computed from its header.

    Raises:
        InputError: it is more than the budget.
    """
    limit = _limit.get()
    free = int(free_system_memory() * _SHARE)
    room = free if limit is None else min(free, limit)
    if needed_bytes > room:
        raise InputError(
            f"{name} would need {in_words(needed_bytes)} of memory; {in_words(room)} can be used for it here.",
            "Its header asks for more voxels than fit, because the image is large or because the header is wrong; "
            "nothing was read.",
            "Close other programs or use a computer with more memory, crop or resample the image; if it should be "
            "small, export or copy it again.",
        )


def in_words(size: float) -> str:
    """Bytes for a person, such as "1.2 GB"."""
    units = iter(("bytes", "kB", "MB", "GB", "TB", "PB"))
    unit = next(units)
    while size >= 1000 and unit != "PB":
        size, unit = size / 1000, next(units)
    return f"{size:.3g} {unit}" if size < 1e6 else f"more than a million {unit}"


def free_system_memory() -> int:
    """Bytes that this process can still take; a cautious guess where the system does not tell.

    Without psutil, which Slicer does not bring. On Linux the limit of the control group counts too: in a container
    or under a resource manager the machine has more than the process may take.
    """
    if sys.platform == "win32":
        return _free_windows_memory()
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        match = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text(encoding="ascii"))
        if match:
            return min(int(match[1]) * 1024, *_free_in_group())
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4  # macOS tells only the total
    return ASSUMED_FREE


def group_folders(root: Path = _CGROUP, member: Path = _MEMBER) -> list[Path]:
    """Where the kernel tells of this process's control group and of those around it, each of which may have a limit.

    In a container the group's path begins outside of what is seen there, and the root is the group.
    """
    found = [root, root / "memory"]
    try:
        lines = [line.split(":", 2) for line in member.read_text("utf-8").splitlines()]
    except (OSError, ValueError):  # no such system
        return found
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers and "memory" not in controllers.split(","):
            continue
        place = root / "memory" if controllers else root  # version 1; version 2 names no controllers
        for part in Path(path.lstrip("/")).parts:
            place /= part
            found.append(place)
    return found


def _free_in_group(root: Path = _CGROUP, member: Path = _MEMBER) -> list[int]:
    """What the control groups leave; page cache that can be dropped counts as free."""
    found = []
    for folder, (most, used, cache) in itertools.product(group_folders(root, member), _GROUP_FILES):
        try:
            limit = int((folder / most).read_text("ascii"))
            current = int((folder / used).read_text("ascii"))
            stat = (folder / "memory.stat").read_text("ascii")
        except (OSError, ValueError):  # another version, no control group, or "max": no limit
            continue
        dropped = re.search(rf"^{cache} (\d+)$", stat, re.MULTILINE)
        found.append(max(0, limit - current + (int(dropped[1]) if dropped else 0)))
    return found or [sys.maxsize]


def _free_windows_memory() -> int:
    class Status(ctypes.Structure):
        _fields_ = [
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in _WINDOWS_MEMORY_FIELDS),
            ("extended", ctypes.c_ulonglong),
        ]

    status = Status()
    status.length = ctypes.sizeof(Status)
    windll = getattr(ctypes, "windll")  # noqa: B009  absent from the type stubs of other systems
    if windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return int(status.available)
    return ASSUMED_FREE


def tells_of_exhaustion(text: str) -> bool:
    """Whether a message or a line of a log says that memory ran out, of the computer or of its GPU."""
    return _EXHAUSTION_WORDS.search(text) is not None


def ran_out(error: BaseException | None) -> bool:
    """Whether `error`, or one that it was raised from, says that memory ran out: one thing on every system.

    The numbers of the operating system's errors decide where there are any; their texts are translated and hold the
    names of files.
    """
    while error is not None:
        number, on_windows = getattr(error, "errno", None), getattr(error, "winerror", None)
        if _EXHAUSTION_TYPES & {kind.__name__ for kind in type(error).__mro__}:
            return True
        if isinstance(error, OSError) and number is not None:
            if number == errno.ENOMEM or on_windows in _WINDOWS_EXHAUSTION:
                return True
        elif tells_of_exhaustion(_text_of(error)):
            return True
        error = error.__cause__
    return False


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  a foreign error whose text cannot be made tells nothing
        return ""

"""What a worker tells of its memory while it works, and what the system tells of those that it ended.

A process that the kernel ends for want of memory says nothing itself, and a launcher between it and the host hides the
signal. What is left: the kernel's counts of such ends, compared with what they were when the worker last told them,
and how much was free then. Standard library only, since hosts import it too.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..memory import free_system_memory, group_folders, in_words

BEAT_SECONDS = 0.5  # two threads that fill new memory took 0.8 GB in that time (two virtual cores, Linux 6.18)
SCARCE = 2 << 30  # bytes; what was free at the last beat may be gone before the next one, on faster machines too
PLENTY = 6 << 30  # more than a process takes within a beat
_GROUP_FILES = ("memory.events", "memory.oom_control")  # of control groups version 2 and 1
_KILLED = re.compile(r"Killed process (\d+)\b|oom-kill:.*\bpid=(\d+)\b")
_LONGEST_RECORD = 8192  # bytes; of /dev/kmsg (linux/printk.h: CONSOLE_EXT_LOG_MAX)
_MOST_RECORDS = 100_000


@dataclass(frozen=True)
class Vitals:
    """A worker's memory at one moment. What a system does not tell is None, or an empty count.

    Attributes:
        used_bytes: resident memory of the worker's process.
        free_bytes: what it could still take.
        ended: how many processes the kernel had ended for want of memory, by the place that counts them.
        since: seconds since the computer started.
    """

    used_bytes: int | None = None
    free_bytes: int | None = None
    ended: Mapping[str, int] | None = None
    since: float | None = None

    @classmethod
    def now(cls) -> Vitals:
        """Of this process."""
        return cls(_used(), _free(), ended_by_kernel(), _uptime())

    def as_data(self) -> dict[str, Any]:
        """An event's data."""
        return {
            "used_bytes": self.used_bytes,
            "free_bytes": self.free_bytes,
            "ended": dict(self.ended or {}),
            "since": self.since,
        }

    @classmethod
    def from_data(cls, data: object) -> Vitals | None:
        """What an event's data tell; None for anything else."""
        if not isinstance(data, dict):
            return None
        ended = data.get("ended")
        counts = {str(k): v for k, v in ended.items() if _is_count(v)} if isinstance(ended, dict) else {}
        used, free = (value if _is_count(value) else None for value in (data.get("used_bytes"), data.get("free_bytes")))
        since = data.get("since")
        return cls(used, free, counts, float(since) if isinstance(since, float) else None)

    @property
    def scarce(self) -> bool | None:
        """Whether memory was nearly gone; None when that cannot be told."""
        if self.free_bytes is None or SCARCE <= self.free_bytes < PLENTY:
            return None
        return self.free_bytes < SCARCE

    def in_words(self) -> str:
        """ "it held 7.1 GB and 210 MB were free"; what was free only when it was little."""
        held = "" if self.used_bytes is None else f"it held {in_words(self.used_bytes)}"
        free = f"{in_words(self.free_bytes)} were free" if self.scarce and self.free_bytes is not None else ""
        return " and ".join(filter(None, (held, free)))


def kernel_ended_one(before: Vitals | None, pid: int | None) -> bool | None:
    """Whether the kernel has ended a process for want of memory since `before`; None when it does not tell.

    Args:
        before: what the worker told last.
        pid: the worker's; the kernel's log names it, unless it counts processes otherwise (in a container).
    """
    then, now = (before.ended if before else None) or {}, ended_by_kernel()
    known = [now[place] > count for place, count in then.items() if place in now]
    if any(known) or (before is not None and pid is not None and pid in set(_named_by_kernel(before.since))):
        return True
    return False if known else None


def ended_by_kernel() -> dict[str, int]:
    """How many processes the kernel has ended for want of memory, in all and in this process's control group, by the
    file that says so: a launcher may have put the worker into a group of its own.

    All have that count since Linux 4.13.
    """
    counts = {}
    groups = [folder / name for folder in group_folders() for name in _GROUP_FILES]
    for file in (Path("/proc/vmstat"), *groups) if sys.platform == "linux" else ():
        with suppress(OSError, ValueError):
            found = re.search(r"^oom_kill (\d+)$", file.read_text("ascii"), re.MULTILINE)
            if found is not None:
                counts[str(file)] = int(found[1])
    return counts


def _named_by_kernel(since: float | None) -> Iterator[int]:
    """Processes that the kernel's log says it ended for want of memory, from `since` on (seconds after its start)."""
    if sys.platform != "linux" or since is None:
        return
    try:
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:  # most systems keep it from users
        return
    try:
        for _ in range(_MOST_RECORDS):
            try:
                record = os.read(log, _LONGEST_RECORD).decode("utf-8", errors="replace")
            except BrokenPipeError:  # this record was overwritten meanwhile; the next read gives the next one
                continue
            head, _, text = record.partition(";")  # "6,339,5140900,-;Killed process ..." (dev-kmsg.txt): microseconds
            found = _KILLED.search(text)
            if found is not None and int(head.split(",")[2]) / 1e6 >= since:
                yield int(found[1] or found[2])
    except (OSError, ValueError, IndexError):  # the end of what is there
        return
    finally:
        os.close(log)


class Pulse:
    """Tells the vitals of this process every half second while a job runs."""

    def __init__(self, tell: Callable[[Vitals], None]) -> None:
        self._tell = tell
        self._beating = threading.Event()
        threading.Thread(target=self._beat, name="pulse", daemon=True).start()

    def start(self) -> None:
        """A job begins."""
        self._tell(Vitals.now())
        self._beating.set()

    def stop(self) -> None:
        """It is over."""
        self._beating.clear()

    def _beat(self) -> None:
        while self._beating.wait():
            time.sleep(BEAT_SECONDS)
            if self._beating.is_set():
                with suppress(Exception):  # a figure that cannot be had is no reason to end anything
                    self._tell(Vitals.now())


def _used() -> int | None:
    try:
        if sys.platform == "linux":
            pages = Path("/proc/self/statm").read_text("ascii").split()[1]
            return int(pages) * os.sysconf("SC_PAGE_SIZE")
        import psutil

        return int(psutil.Process().memory_info().rss)
    except (ImportError, OSError, ValueError, IndexError):
        return None


def _free() -> int | None:
    """Bytes; of macOS, whose share that can be taken only psutil knows, None without it."""
    if sys.platform != "darwin":
        return free_system_memory()
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.virtual_memory().available)


def _uptime() -> float | None:
    """On the clock of the kernel's log."""
    return time.clock_gettime(time.CLOCK_MONOTONIC) if sys.platform == "linux" else None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63

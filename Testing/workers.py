"""How many processes the tests are spread over, what each may use of the computer, and which tests begin."""

from __future__ import annotations

import os
from collections.abc import Iterable, MutableMapping
from pathlib import Path

import pytest

MOST = 4  # each holds torch and a browser or a scene, 1 to 2 GB; the longest file bounds the time from here on
LONG = "long"  # the marker of files that take more than half a minute


def usable_cores() -> int:
    """Those that this process may run on: `taskset` and containers leave fewer than the computer has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def how_many(asked: Iterable[str], cores: int, *, shown: bool) -> int:
    """Processes for the tests asked for; 0 is this one alone.

    Args:
        asked: paths and node ids of the command line. shown: what tests print is to be seen, which is lost with the
            processes' own output.
    """
    whole_folders = any(Path(name.partition("::")[0]).is_dir() for name in asked)
    return min(cores, MOST) if whole_folders and cores > 1 and not shown else 0


def share_threads(environment: MutableMapping[str, str], cores: int) -> None:
    """Let numerical libraries, which take every core otherwise, take this process' share; before they are imported.

    Processes that tests start inherit it. Nothing changes in a process that has the computer to itself.
    """
    workers = int(environment.get("PYTEST_XDIST_WORKER_COUNT", "0"))
    if workers:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // workers)))


def long_first(items: list[pytest.Item]) -> None:
    """So that no core waits at the end for a file that was begun last."""
    items.sort(key=lambda item: item.get_closest_marker(LONG) is None)

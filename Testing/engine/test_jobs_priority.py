"""A worker that its host started at a low priority: raised where the system allows, told where it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from apformer.jobs import priority
from apformer.jobs.processes import child_environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not hand a thread's priority on")

CODE = """
import json, os, sys
from apformer.jobs import priority
os.setpriority(os.PRIO_PROCESS, 0, 15)
if {forbidden}:
    def forbid(*_):
        raise PermissionError(13, "Permission denied")
    os.setpriority = forbid
priority.raise_to_normal()
print(json.dumps([priority.niceness(), priority.slowed()]))
"""


def after(forbidden: bool) -> tuple[int, list[str]]:
    """Niceness and what is told of it, in a process that was at 15."""
    code = CODE.format(forbidden=forbidden)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=child_environment())
    number, told = json.loads(done.stdout)
    return number, told


def test_where_it_is_forbidden_the_estimate_says_what_to_do() -> None:
    number, (line,) = after(forbidden=True)
    assert number == 15 and "nice 15" in line and "SLICER_BACKGROUND_THREAD_PRIORITY" in line


def test_where_it_is_allowed_nothing_has_to_be_told() -> None:
    number, told = after(forbidden=False)
    may = os.geteuid() == 0 or _limit() >= 20
    assert (number, told) == (0, []) if may else (number == 15 and bool(told))


def test_a_normal_priority_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpriority", lambda *_: 0)
    monkeypatch.setattr(os, "setpriority", lambda *_: pytest.fail("it was changed"))
    priority.raise_to_normal()
    assert priority.slowed() == ()


def _limit() -> int:
    import resource

    return resource.getrlimit(resource.RLIMIT_NICE)[0]

"""Starting a worker, and ending it with everything it started, on POSIX and Windows.

The Python that hosts name may be a launcher (Slicer's PythonSlicer), whose child is the worker: ending the process that
was started is not enough. On POSIX the worker and the launcher each lead a process group; on Windows taskkill follows
the tree.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from ..allocator import ENVIRONMENT

PACKAGE_PARENT = Path(__file__).resolve().parents[2]
_TASKKILL_SECONDS = 10


def command(python: str | Path, logs: Path | None) -> list[str]:
    """The command line of a worker."""
    words = [str(python), "-m", "apformer.jobs"]
    return words if logs is None else [*words, "--logs", str(logs)]


def child_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """`environment` (default: this process's) with this engine on the import path, text as UTF-8, and freed memory
    kept (see `allocator`) unless it says otherwise."""
    chosen = dict(os.environ if environment is None else environment)
    paths = [str(PACKAGE_PARENT), *filter(None, [chosen.get("PYTHONPATH")])]
    text = {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8"}
    return {**ENVIRONMENT, **chosen, "PYTHONPATH": os.pathsep.join(paths), **text}


def start(
    python: str | Path, logs: Path, environment: Mapping[str, str] | None, stderr: IO[Any]
) -> subprocess.Popen[bytes]:
    """A worker at the head of a process group of its own; what it says on stderr goes to the file `stderr`.

    Raises:
        OSError: `python` cannot be run.
    """
    grouped: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        grouped = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return subprocess.Popen(
        command(python, logs),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env=child_environment(environment),
        bufsize=0,
        **grouped,
    )


def lead_own_group() -> None:
    """Make this process the leader of a group, so that `end_tree` finds its children by its id alone.

    For hosts that cannot ask for it when they start a process (QProcess). Not at a terminal: a process outside the
    terminal's foreground group may not read from it.
    """
    if sys.platform == "win32" or os.getpgrp() == os.getpid() or os.isatty(0):
        return
    os.setpgid(0, 0)


def wait_for_end(process: subprocess.Popen[bytes]) -> None:
    """Return when `process` has ended; until `process.wait()` its id, and its group's, stay its own."""
    if sys.platform != "win32" and hasattr(os, "waitid"):  # macOS has it from Python 3.13
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        return
    process.wait()  # Windows keeps the id while the handle is open


def end_tree(pid: int) -> None:
    """End the process `pid` and its descendants at once; nothing happens when they are gone.

    On POSIX `pid` must have led a group (see `start` and `lead_own_group`); whatever is in that group is ended, also
    when `pid` itself is gone already.
    """
    if sys.platform == "win32":
        subprocess.run(
            ["taskkill", "/F", "/T", "/PID", str(pid)],
            capture_output=True,
            timeout=_TASKKILL_SECONDS,
            check=False,
            creationflags=subprocess.CREATE_NO_WINDOW,
        )
        return
    with suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS, when only zombies are left
        os.killpg(pid, signal.SIGKILL)


def leave(status: int) -> None:
    """End this process at once, with its children, also while other threads compute."""
    if sys.platform == "win32":
        end_tree(os.getpid())
    elif os.getpgrp() == os.getpid():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # for the others in the group
        os.killpg(0, signal.SIGTERM)
    os._exit(status)

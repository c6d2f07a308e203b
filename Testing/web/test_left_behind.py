"""A server that is killed: its sessions and their workers end by themselves, and no patient's image stays."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

pytest.importorskip("aiohttp", reason="the browser host is not installed")

from apformer.files import write_scalar
from apformer.jobs.scratch import sweep
from apformer.volume import Volume
from web_client import a_user, run
from web_samples import a_crop
from web_server import Served, serving

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no kill -9")
_PATIENCE = 90.0  # s; a busy machine is no error


def wait_until(true: Callable[[], object]) -> None:
    until = time.monotonic() + _PATIENCE
    while not true():
        assert time.monotonic() < until
        time.sleep(0.1)


def kill(server: Served) -> list[psutil.Process]:
    """Kill the front alone; the processes that were below it."""
    below = server.processes()
    assert below
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(30)
    return below


def test_sessions_and_workers_end_and_images_go_when_the_server_is_killed(installed: None, tmp_path: Path) -> None:
    write_scalar(tmp_path / "hippocampus.nii.gz", a_crop())

    async def work(server: Served) -> None:
        """One session that segments, one that was just opened; a spare one waits."""
        async with a_user(server.link) as busy, a_user(server.link):
            await busy.upload(tmp_path / "hippocampus.nii.gz")
            await busy.until(lambda state: state["images"] and state["model"])
            await busy.trigger("segment")
            await busy.until(lambda state: state["job"])
            await asyncio.to_thread(wait_until, lambda: server.processes("apformer.jobs"))

    with serving("--users", "3") as server:
        run(work(server))
        assert any(path.name == "hippocampus.nii.gz" for path in server.files())
        assert len(server.processes("APFormerSlicerLib.web.session")) >= 2
        below = kill(server)
        wait_until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in below))
        wait_until(lambda: not list(server.temporary.iterdir()))


def test_a_session_that_is_being_started_ends_with_the_server_too(installed: None) -> None:
    with serving() as server:
        wait_until(lambda: server.processes("APFormerSlicerLib.web.session"))
        below = kill(server)  # the scene of the spare session is not made yet
        wait_until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in below))
        wait_until(lambda: not list(server.temporary.rglob("session-*")))


def test_what_stays_when_all_processes_are_killed_goes_at_the_next_start(installed: None, tmp_path: Path) -> None:
    with serving() as server:
        wait_until(lambda: list(server.temporary.glob("apformer-web-*/session-*/.owner.json")))
        (private,) = server.temporary.glob("apformer-web-*/session-*")
        write_scalar(private / "patient.nii", Volume(np.zeros((4, 4, 4), np.float32), np.eye(4), "MR"))
        assert sweep(server.temporary) == []  # it is alive
        below = server.processes()
        for one in (psutil.Process(server.process.pid), *below):
            one.kill()
        server.process.wait(30)
        wait_until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in below))
        assert (private / "patient.nii").exists()
        with serving(temporary=server.temporary):
            wait_until(lambda: not private.parent.exists())

"""Freed memory is kept while there is work, and given back after it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from typing import Any

import pytest
from apformer.allocator import ENVIRONMENT
from apformer.jobs.processes import child_environment

glibc = pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="other C libraries have no such settings"
)
# Six blocks of 48 MB, above what glibc keeps by itself, each filled and freed, in a thread as the worker's jobs.
_STEPS = """
import json, resource, sys, threading
import numpy as np
from apformer.allocator import give_back, keep_freed
from apformer.jobs.vitals import Vitals

def step():
    blocks = [np.ones(48 << 20, np.uint8) for _ in range(6)]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def run():
    before = faults()
    step()
    once = faults() - before
    for _ in range(4):
        step()
    told["faults"] = (faults() - before - once) / 4

told = {}
if "keep" in sys.argv:
    keep_freed()
thread = threading.Thread(target=run)
thread.start()
thread.join()
told["held"] = Vitals.now().used_bytes
give_back()
told["after"] = Vitals.now().used_bytes
print(json.dumps(told))
"""
_WORKER = """
import io, json, sys
import numpy as np
from apformer.jobs.handlers import Handler
from apformer.jobs.logs import LogFolder
from apformer.jobs.vitals import Vitals
from apformer.jobs.warm import Warm
from apformer.jobs.worker import Worker
import apformer.jobs.worker as module

def work(job):
    blocks = [np.ones(48 << 20, np.uint8) for _ in range(6)]
    del blocks
    return {"held": Vitals.now().used_bytes}

def given_back():
    give_back()
    print(json.dumps({"after": Vitals.now().used_bytes}), flush=True)
    done.set()

import threading
done, give_back = threading.Event(), module.give_back
module.give_back = given_back
Warm.prepare = staticmethod(lambda: None)

class Lines:
    lines = [b'{"id": "a", "job": "work"}\\n']
    def readline(self, size=-1):
        if self.lines:
            return self.lines.pop()
        done.wait()
        return b""

def tell(event):
    if event.kind == "result":
        print(json.dumps(event.data), flush=True)

Worker(tell, LogFolder(None), handlers={"work": Handler(lambda fields: None, work)}).serve(Lines())
"""


def figures(code: str, *words: str, keep: bool) -> dict[str, Any]:
    """What a fresh process tells; `keep`: with the environment of a worker."""
    environment = child_environment()
    if not keep:
        environment = {name: value for name, value in environment.items() if name not in ENVIRONMENT}
    done = subprocess.run([sys.executable, "-c", code, *words], env=environment, capture_output=True, check=True)
    told: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        told |= json.loads(line)
    return told


@glibc
def test_the_environment_of_a_worker_keeps_freed_memory_and_a_users_own_settings_stay() -> None:
    assert ENVIRONMENT.keys() == {
        "MALLOC_MMAP_THRESHOLD_",
        "MALLOC_TRIM_THRESHOLD_",
        "MALLOC_TOP_PAD_",
        "MALLOC_ARENA_MAX",
    }
    assert child_environment({}).items() >= ENVIRONMENT.items()
    assert child_environment({"MALLOC_ARENA_MAX": "3"})["MALLOC_ARENA_MAX"] == "3"


@glibc
@pytest.mark.parametrize("way", ["environment", "call"])
def test_a_step_takes_no_memory_anew_that_the_one_before_had_and_afterwards_it_is_given_back(way: str) -> None:
    alone = figures(_STEPS, keep=False)
    kept = figures(_STEPS, *(["keep"] if way == "call" else []), keep=way == "environment")
    assert alone["faults"] > 10 * max(1.0, kept["faults"]), (alone, kept)
    assert kept["held"] - kept["after"] > 200 << 20, "what was kept is given back"


@glibc
def test_an_idle_worker_has_given_back_what_its_job_took() -> None:
    told = figures(_WORKER, keep=True)
    assert told["held"] - told["after"] > 200 << 20


@pytest.mark.skipif(sys.platform == "linux", reason="for other systems")
def test_other_systems_get_no_settings() -> None:
    assert ENVIRONMENT == {} and not set(os.environ) & {"MALLOC_ARENA_MAX"}

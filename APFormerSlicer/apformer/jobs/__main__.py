"""`python -m apformer.jobs [--logs DIR]`: the worker process."""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ..allocator import keep_freed
from .logs import LogFolder
from .messages import Event
from .priority import raise_to_normal
from .processes import lead_own_group, leave
from .worker import Worker


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="apformer.jobs", description="Requests on stdin, events on stdout.")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep a log file of every job there")
    options = parser.parse_args(words)
    keep_freed()
    lead_own_group()
    raise_to_normal()  # before there are other threads: on Linux each has a priority of its own
    requests, events = claim_streams()
    faulthandler.enable()  # to descriptor 2, which is the log of the job that runs

    def send(event: Event) -> None:
        with suppress(OSError):  # the host is gone; the end of stdin follows
            events.write(event.encode())

    worker = Worker(send, LogFolder(options.logs, capture=options.logs is not None))
    try:
        stopped = worker.serve(requests)
    except KeyboardInterrupt:
        stopped = False
    if not stopped:
        leave(0)
    return 0


def claim_streams() -> tuple[BinaryIO, BinaryIO]:
    """Private streams for requests and events; descriptors 0 and 1 become nothing and stderr.

    What libraries print goes to stderr then, and child processes inherit neither stream. On Windows any use of a
    standard handle also waits while another thread reads from the same pipe, which has stopped imports of compiled
    libraries.
    """
    requests = os.fdopen(os.dup(0), "rb")
    events = os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    return requests, events


if __name__ == "__main__":
    sys.exit(main())

"""The talk between the front and a user's process: one JSON object per line, on the process's stdin and stdout.

front -> process   {"settings": {...}} first, then {"turn": N}, {"ahead": COUNT, "of": N}; the end of stdin is its end
process -> front   {"ready": PORT}, {"ask": N, "lane": LANE}, {"over": N}
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

Message = dict[str, Any]


def encode(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode("ascii") + b"\n"


def parse(line: bytes) -> Message | None:
    """The message on a line; None for anything else."""
    with suppress(ValueError):
        read = json.loads(line)
        if isinstance(read, dict):
            return read
    return None


class FrontLine:
    """The process's side. Whatever a library prints on stdout goes to stderr from now on."""

    def __init__(self) -> None:
        self._out = os.dup(1)
        os.dup2(2, 1)
        self._in = sys.stdin.buffer
        self._lock = threading.Lock()

    def settings(self) -> Message:
        """The first message. Raises RuntimeError when it does not come: a person started the process by hand."""
        first = parse(self._in.readline())
        if first is None or not isinstance(first.get("settings"), dict):
            raise RuntimeError("this process is started by `python -m APFormerSlicerLib.web`, not by hand")
        return dict(first["settings"])

    def say(self, message: Mapping[str, Any]) -> None:
        with self._lock, suppress(OSError):  # the front is gone: the end of stdin tells
            os.write(self._out, encode(message))

    def hear(self, listener: Callable[[Message], object], ended: Callable[[], object]) -> None:
        """Call `listener` with each message and `ended` at the end, in a thread of its own."""

        def listen() -> None:
            for message in self._messages():
                listener(message)
            ended()

        threading.Thread(target=listen, name="front", daemon=True).start()

    def _messages(self) -> Iterator[Message]:
        with suppress(OSError, ValueError):
            for line in self._in:
                message = parse(line)
                if message is not None:
                    yield message

    def close_now(self) -> None:
        """End this process at once, with success."""
        sys.stderr.flush()
        os._exit(0)

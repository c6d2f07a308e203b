"""The talk between the front and a user's process: one JSON object per line, on the process's stdin and stdout.

front -> process   {"settings": {...}} first, then {"turn": N}, {"ahead": COUNT, "of": N}; the end of stdin is its end
process -> front   {"ready": PORT}, {"ask": N, "lane": LANE}, {"over": N}
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
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
        self._heard: list[Message | None] = []  # before anybody listens; None is the end
        self._listener: Callable[[Message | None], object] | None = None
        self._hearing = threading.Lock()

    def settings(self) -> Message:
        """The first message. Raises RuntimeError when it does not come: a person started the process by hand."""
        first = parse(self._in.readline())
        if first is None or not isinstance(first.get("settings"), dict):
            raise RuntimeError("this process is started by `python -m APFormerSlicerLib.web`, not by hand")
        return dict(first["settings"])

    def say(self, message: Mapping[str, Any]) -> None:
        with self._lock, suppress(OSError):  # the front is gone: the end of stdin tells
            os.write(self._out, encode(message))

    def listen(self, seconds: float, at_last: Callable[[], object]) -> None:
        """Read from now on, in a thread of its own. When the front is gone, this process has `seconds` left to end;
        then `at_last` is called and it ends at once, whatever it does."""

        def read() -> None:
            for message in self._messages():
                self._tell(message)
            self._tell(None)
            time.sleep(seconds)
            at_last()
            os._exit(1)

        threading.Thread(target=read, name="front", daemon=True).start()

    def hear(self, listener: Callable[[Message | None], object]) -> None:
        """Call `listener` with each message, those before too, and with None when the front is gone: in the thread of
        `listen`, or at once."""
        with self._hearing:
            self._listener = listener
            for message in self._heard:
                listener(message)

    def _tell(self, message: Message | None) -> None:
        with self._hearing:
            if self._listener is None:
                self._heard.append(message)
            else:
                self._listener(message)

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

"""What a computation takes: the most memory its tensors held at once, and its seconds."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Besides tensors, CPU convolutions and attention take workspaces, and the allocator keeps some slack.
WORKSPACE_FACTOR = 1.5


@dataclass
class Footprint:
    """What was measured.

    Attributes:
        peak_bytes: on the device where it ran.
        seconds: of the timed repetitions.
    """

    peak_bytes: int
    seconds: tuple[float, ...]


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of tensors that are made while it is active, until they are gone.

    The system's own figure (resident memory) will not do in a warm process: memory that was freed before and is taken
    again does not show.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live_bytes = self.peak_bytes = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = {_key(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor) and _key(leaf) not in given:  # not a view, not changed in place
                self._count(leaf.untyped_storage())
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        self._seen.add(key)
        self.live_bytes += storage.nbytes()
        weakref.finalize(storage, self._release, key, storage.nbytes()).atexit = False

    def _release(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live_bytes -= size


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def measure(work: Callable[[], object], device: torch.device, repetitions: int = 2) -> Footprint:
    """Run `work` once for its memory, which also warms up, then `repetitions` times for its seconds."""
    with _peak(device) as peak:
        work()
        _finish(device)
    seconds = []
    for _ in range(repetitions):
        started = time.perf_counter()
        work()
        _finish(device)
        seconds.append(time.perf_counter() - started)
    return Footprint(peak[0], tuple(seconds))


@contextmanager
def _peak(device: torch.device) -> Iterator[list[int]]:
    """Receives the most bytes held at once, when the block ends."""
    peak = [0]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak[0] = torch.cuda.max_memory_allocated(device) - before
        return
    with LiveTensors() as tensors:
        yield peak
    peak[0] = int(tensors.peak_bytes * WORKSPACE_FACTOR)


def _finish(device: torch.device) -> None:
    """Wait until the device has done what was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()

"""Counts what reads or writes a whole volume, and in which thread: where a user's window would stand still."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np

# Methods of an array that read all of it and are no ufuncs; what NumPy does besides goes through ufuncs and functions.
_METHODS = (
    "astype", "tofile", "tobytes", "copy", "min", "max", "any", "all", "sum", "mean", "std", "argmax", "argmin",
    "flatten", "nonzero", "tolist", "byteswap", "sort", "take", "compress",
)  # fmt: skip


@dataclass
class Passes:
    """What was seen: (what, voxels, whether it was on the main thread). `least`: voxels from which it counts."""

    least: int
    seen: list[tuple[str, int, bool]] = field(default_factory=list)

    def note(self, what: str, size: int) -> None:
        if size >= self.least:
            self.seen.append((what, size, threading.current_thread() is threading.main_thread()))

    @property
    def on_main(self) -> list[str]:
        return [f"{what} of {size}" for what, size, main in self.seen if main]

    @property
    def aside(self) -> list[str]:
        return [what for what, _, main in self.seen if not main]


class Watched(np.ndarray):
    """An array that tells of whatever looks at all of it; views of it do, too."""

    passes: Passes | None = None

    def __array_finalize__(self, other: Any) -> None:
        self.passes = getattr(other, "passes", None)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **settings: Any) -> Any:
        self._tell(ufunc.__name__, *inputs)
        plain = tuple(_plain(one) for one in inputs)
        if out is not None:
            settings["out"] = tuple(_plain(one) for one in out)
        return getattr(ufunc, method)(*plain, **settings)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        self._tell(function.__name__, *args)
        return function(*(_plain(one) for one in args), **{name: _plain(one) for name, one in kwargs.items()})

    def _tell(self, what: str, *inputs: Any) -> None:
        if self.passes is not None:
            self.passes.note(what, max((one.size for one in inputs if isinstance(one, Watched)), default=0))


def _method(name: str) -> Any:
    def call(self: Watched, *args: Any, **kwargs: Any) -> Any:
        self._tell(name, self)
        return getattr(_plain(self), name)(*args, **kwargs)

    return call


for _name in _METHODS:
    setattr(Watched, _name, _method(_name))


def _plain(one: Any) -> Any:
    return one.view(np.ndarray) if isinstance(one, Watched) else one


@contextmanager
def watching(least: int) -> Iterator[Passes]:
    """While the block runs, what the scene room takes of nodes is watched, and what it copies into them counted."""
    from APFormerSlicerLib.scene import images, label_maps, volumes
    from APFormerSlicerLib.workflow import tally

    passes = Passes(least)
    real_array, real_vtk, real_load, real_save = images.array_of, images.numpy_to_vtk, np.load, np.save

    def array_of(image: Any) -> np.ndarray:
        array = real_array(image).view(Watched)
        array.passes = passes
        return array

    def numpy_to_vtk(array: np.ndarray, deep: bool = False, **settings: Any) -> Any:
        if deep:
            passes.note("copied into a node", array.size)
        return real_vtk(_plain(array), deep=deep, **settings)

    def load(path: Any, *args: Any, mmap_mode: Any = None, **settings: Any) -> Any:
        array = real_load(path, *args, mmap_mode=mmap_mode, **settings)
        if mmap_mode is None:
            passes.note("read from a file", array.size)
        return array

    def save(path: Any, array: Any, *args: Any, **settings: Any) -> None:
        passes.note("written to a file", array.size)
        real_save(path, _plain(array), *args, **settings)

    with ExitStack() as stack:
        for module in (images, label_maps, volumes, tally):
            stack.enter_context(mock.patch.object(module, "array_of", array_of))
        stack.enter_context(mock.patch.object(images, "numpy_to_vtk", numpy_to_vtk))
        stack.enter_context(mock.patch.object(np, "load", load))
        stack.enter_context(mock.patch.object(np, "save", save))
        yield passes

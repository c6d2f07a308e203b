"""Voxels in a file, read to the last byte: as many as the header says, from a stream whose checksum is right.

Nothing here decodes a header: readers hand over a place, a type and a shape that they have checked.
"""

from __future__ import annotations

import bz2
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import numpy as np

from ..memory import require_memory
from .formats import damaged

Packing = Literal["raw", "zlib", "gzip", "bzip2", "text", "hex"]

_CHUNK_BYTES = 1 << 20
_MARKS = {"gzip": b"\x1f\x8b", "bzip2": b"BZh"}  # a packed stream may follow another one of its kind
# What zlib is asked to expect. MetaImage's library takes either header where it says "compressed".
_WINDOW = {"gzip": 31, "zlib": 47}
_DEFLATE_AT_MOST = 1032  # bytes out for one byte in (https://zlib.net/zlib_tech.html)
_TEXT_AT_MOST = 64  # bytes of memory for one character of numbers as text, while they are Python's objects


class Stream:
    """Bytes of a file from `start`, unpacked piece by piece; nothing is taken on trust.

    zlib and bzip2 compare the checksum of what they unpacked (Adler-32, CRC-32) when a stream ends, so it counts as
    read only when its end was reached: `finish` sees to that.
    """

    def __init__(self, path: Path, start: int = 0, packing: Packing = "raw") -> None:
        self._path, self._packing = path, packing
        self._file: IO[bytes] = path.open("rb")
        self._file.seek(start)
        self._unpack: Callable[[], bytes] = self._read_raw if packing == "raw" else self._read_packed
        self._unpacker: Any = None if packing == "raw" else _unpacker(packing)
        self._packed = b""
        self._ready = memoryview(b"")

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def take(self, count: int) -> bytes:
        """The next `count` bytes, or fewer at the end."""
        parts: list[bytes] = []
        while count > 0 and (piece := self._next(count)):
            parts.append(bytes(piece))
            count -= len(piece)
        return b"".join(parts)

    def skip(self, count: int) -> None:
        """Leave out `count` bytes. Raises InputError when there are fewer."""
        while count > 0:
            piece = self._next(count)
            if not piece:
                raise damaged(self._path, f"it ends {count} bytes before its voxels begin")
            count -= len(piece)

    def fill(self, target: memoryview) -> None:
        """Write the next bytes into all of `target`. Raises InputError when there are fewer."""
        done = 0
        while done < len(target):
            piece = self._next(len(target) - done)
            if not piece:
                raise damaged(self._path, f"it ends after {done} of {len(target)} bytes of voxels")
            target[done : done + len(piece)] = piece
            done += len(piece)

    def finish(self) -> int:
        """Go to the end, where the checksum is.

        Returns:
            How many bytes of an unpacked file follow.

        Raises:
            InputError: a packed stream holds more than was read, does not end, or is followed by something else.
        """
        if self._packing == "raw":
            here = self._file.tell() - len(self._ready)
            return self._file.seek(0, 2) - here
        if self._next(1):
            raise damaged(self._path, "it holds more voxels than its header says")
        return 0

    def _next(self, most: int) -> memoryview:
        """At most `most` bytes; none at the end."""
        if not self._ready:
            try:
                self._ready = memoryview(self._unpack())
            except (zlib.error, OSError, EOFError, ValueError) as error:
                raise damaged(self._path, f"its voxels cannot be unpacked ({error})") from error
        piece, self._ready = self._ready[:most], self._ready[most:]
        return piece

    def _read_raw(self) -> bytes:
        return self._file.read(_CHUNK_BYTES)

    def _read_packed(self) -> bytes:
        while True:
            if self._unpacker.eof and not self._begin_again():
                return b""
            if not self._packed:
                self._packed = self._file.read(_CHUNK_BYTES)
            waiting = getattr(self._unpacker, "needs_input", True)  # of bz2 only: it keeps what it did not unpack
            if not self._packed and waiting:
                raise EOFError("it ends before the end of the packed data")
            piece: bytes = self._unpacker.decompress(self._packed, _CHUNK_BYTES)
            self._packed = b"" if self._unpacker.eof else getattr(self._unpacker, "unconsumed_tail", b"")
            if piece:
                return piece

    def _begin_again(self) -> bool:
        """At the end of one packed stream: whether another follows, as parallel packers write them."""
        rest = bytes(self._unpacker.unused_data) + self._file.read(_CHUNK_BYTES)
        mark = _MARKS.get(self._packing)
        if mark is not None and rest.startswith(mark):
            self._unpacker, self._packed = _unpacker(self._packing), rest
            return True
        while rest:  # tapes and archives fill up with zeros
            if rest.strip(b"\0"):
                raise ValueError("something follows the packed data")
            rest = self._file.read(_CHUNK_BYTES)
        self._unpacker = _Ended()
        return False


class _Ended:
    eof, unused_data = True, b""


def _unpacker(packing: str) -> Any:
    return bz2.BZ2Decompressor() if packing == "bzip2" else zlib.decompressobj(_WINDOW[packing])


@dataclass(frozen=True)
class Voxels:
    """Where and how the voxels of a file lie.

    Attributes:
        path: the file; start: the byte where they begin.
        shape: slowest axis first. dtype: as stored, byte order included.
        packing: "zlib" takes gzip's header too.
    """

    path: Path
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype
    packing: Packing = "raw"

    @property
    def size(self) -> int:
        """In bytes, unpacked."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, copied_bytes: int = 0) -> tuple[np.ndarray, tuple[str, ...]]:
        """The voxels in this machine's byte order, and what to tell the user.

        Args:
            copied_bytes: what the caller will hold beside them, counted before anything is taken.

        Raises:
            InputError: more than memory holds, fewer or more than the header says, or a checksum that is wrong.
        """
        if self.packing in ("text", "hex"):
            return self._read_characters(), ()
        self.check_size(copied_bytes)
        with Stream(self.path, self.start, self.packing) as stream:
            array = self.read_from(stream)
            extra = stream.finish()
        return array, self.tell_extra(extra)

    def check_size(self, copied_bytes: int = 0) -> None:
        """Compare what the header asks for with the file and with memory, before any is taken. Raises InputError."""
        stored = self.path.stat().st_size - self.start
        if self.packing == "raw" and stored < self.size:
            raise damaged(self.path, f"it ends after {max(0, stored)} of {self.size} bytes of voxels")
        if self.packing in ("gzip", "zlib") and stored * _DEFLATE_AT_MOST + _CHUNK_BYTES < self.size:
            raise damaged(self.path, f"its {stored} packed bytes cannot hold the {self.size} that its header says")
        require_memory(self.path, self.size + copied_bytes)

    def read_from(self, stream: Stream) -> np.ndarray:
        """The voxels that come next in `stream`. Raises InputError."""
        array = np.empty(self.shape, self.dtype)
        stream.fill(array.reshape(-1).view(np.uint8).data)
        if not array.dtype.isnative:
            array = array.byteswap(inplace=True).view(array.dtype.newbyteorder("="))
        return array

    def tell_extra(self, extra: int) -> tuple[str, ...]:
        """Nothing may be left out without a word."""
        if not extra:
            return ()
        return (f"{self.path.name}: {extra} bytes follow the voxels that the header describes; they were not read",)

    def _read_characters(self) -> np.ndarray:
        stored = max(0, self.path.stat().st_size - self.start)
        if stored < math.prod(self.shape):  # each number has a digit at least
            raise damaged(self.path, f"its {stored} characters are fewer than the numbers that its header says")
        require_memory(self.path, self.size + stored * _TEXT_AT_MOST)
        with self.path.open("rb") as file:
            file.seek(self.start)
            content = file.read()
        try:
            if self.packing == "hex":
                array = np.frombuffer(bytes.fromhex(content.decode("ascii")), self.dtype)
            else:
                array = _numbers(content, self.dtype)
        except (ValueError, OverflowError) as error:
            raise damaged(self.path, f"its voxels are not the numbers that its header says ({error})") from error
        if array.size != math.prod(self.shape):
            raise damaged(self.path, f"it holds {array.size} numbers where its header says {math.prod(self.shape)}")
        return array.reshape(self.shape).astype(self.dtype.newbyteorder("="))


def _numbers(content: bytes, dtype: np.dtype) -> np.ndarray:
    words: Sequence[bytes] = content.split()
    if dtype.kind == "f":
        return np.array([float(word) for word in words], dtype)
    whole = np.array([int(word) for word in words], object)
    limits = np.iinfo(dtype)
    if len(words) and (whole.min() < limits.min or whole.max() > limits.max):
        raise ValueError(f"a number does not fit into {dtype.name}")
    return whole.astype(dtype)

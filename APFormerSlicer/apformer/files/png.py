"""PNG, checked chunk by chunk: libraries accept files whose checksums are wrong, and fill up what is missing.

The format: https://www.w3.org/TR/png-3/.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..memory import require_memory
from .formats import damaged, unsupported

_MARK = b"\x89PNG\r\n\x1a\n"
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # numbers in each pixel, by colour type
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
# First column and row, and steps between columns and rows, of the seven passes of an interlaced picture (section 8.2).
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_CHUNK_BYTES = 1 << 20
_AT_MOST_COPIES = 8  # bytes of memory for a byte of the picture: samples as 16 bit, and a decoder's copy


@dataclass(frozen=True)
class Head:
    """What the first chunk says."""

    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool

    @property
    def unpacked_bytes(self) -> int:
        """Rows of packed pixels, each behind the byte that names its filter."""
        return sum(
            rows * (1 + (columns * _SAMPLES[self.colour] * self.depth + 7) // 8)
            for columns, rows in self._passes()
            if columns
        )

    def _passes(self) -> list[tuple[int, int]]:
        if not self.interlaced:
            return [(self.width, self.height)]
        return [(-(-(self.width - x) // dx), -(-(self.height - y) // dy)) for x, y, dx, dy in _PASSES]


def check(path: Path) -> Head:
    """Read the file once to its end; no picture is decoded.

    Raises:
        InputError: a checksum is wrong; something is missing or follows; it holds fewer or more pixels than it says;
            several pictures (APNG); more than memory holds.
    """
    with path.open("rb") as file:
        if file.read(len(_MARK)) != _MARK:
            raise damaged(path, "it is no PNG")
        chunks = _chunks(path, file)
        kind, content = next(chunks)
        head = _head(path, kind, content)
        require_memory(path, head.unpacked_bytes * _AT_MOST_COPIES)
        unpacker, found = zlib.decompressobj(), 0
        for kind, content in chunks:
            if kind == b"acTL":
                raise unsupported(path, "several pictures in one file (APNG)")
            if kind == b"IDAT":
                found += _unpack(path, unpacker, content, head.unpacked_bytes - found)
        if not unpacker.eof or found != head.unpacked_bytes or unpacker.unused_data:
            raise damaged(path, f"it holds {found} of the {head.unpacked_bytes} bytes of pixels that its header says")
    return head


def _chunks(path: Path, file: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each chunk to the last one."""
    kind = b""
    while kind != b"IEND":
        start = file.read(8)
        length = int.from_bytes(start[:4], "big")
        if len(start) < 8 or length > 0x7FFFFFFF:
            raise damaged(path, "it ends before its last part")
        kind = start[4:]
        content = file.read(length)
        if len(content) < length or file.read(4) != zlib.crc32(kind + content).to_bytes(4, "big"):
            raise damaged(path, f"the checksum of its part {kind!r} is wrong")
        yield kind, content
    if file.read(1):
        raise damaged(path, "something follows its last part")


def _head(path: Path, kind: bytes, content: bytes) -> Head:
    if kind != b"IHDR" or len(content) != 13:
        raise damaged(path, "it does not begin with its size")
    width, height = int.from_bytes(content[:4], "big"), int.from_bytes(content[4:8], "big")
    depth, colour, packing, filters, interlaced = content[8:]
    if not width or not height or depth not in _DEPTHS.get(colour, ()) or packing or filters or interlaced > 1:
        raise damaged(path, "its header gives an impossible size, depth or colour")
    return Head(width, height, depth, colour, bool(interlaced))


def _unpack(path: Path, unpacker: zlib._Decompress, content: bytes, room: int) -> int:
    """How many bytes a part of the packed pixels gives; stops as soon as it is more than `room`."""
    found = 0
    while content and not unpacker.eof:
        try:
            found += len(unpacker.decompress(content, _CHUNK_BYTES))
        except zlib.error as error:
            raise damaged(path, f"its pixels cannot be unpacked ({error})") from error
        if found > room:
            raise damaged(path, "it holds more pixels than its header says")
        content = unpacker.unconsumed_tail
    return found

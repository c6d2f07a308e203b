"""Compressed DICOM voxels: from fragments to frames, each checked before a decoder of C++ sees it.

JPEG, JPEG-LS and JPEG 2000 have no checksums. What can be noticed is: fragments that end too early, more or fewer
frames than the header says, codestreams of another size than the header's, and codestreams without their end mark.
"""

from __future__ import annotations

import re
import struct
import tempfile
from pathlib import Path

import numpy as np

from .. import itk
from ..formats import damaged
from .form import EXPLICIT, JPEG_2000, PixelForm

_ITEM, _END = 0xFFFEE000, 0xFFFEE0DD
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"  # of JPEG and JPEG-LS; JPEG 2000 ends with the same two bytes
_J2K = b"\xff\x4f\xff\x51"  # SOC and SIZ
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length
_MOST_TILES, _MOST_SAMPLES = 1 << 16, 4
_LONG = (b"OB", b"OW")
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def frames_of(form: PixelForm, value: bytes) -> list[bytes]:
    """The codestream of each frame, from the value of an encapsulated element.

    Raises:
        InputError: the value ends too early, or does not hold the frames that the header says.
    """
    path = form.file.path
    table, *fragments = _items(path, value)
    if len(fragments) == form.frames:
        return fragments
    if form.frames == 1 and fragments:
        return [b"".join(fragments)]
    starts = list(np.cumsum([0] + [len(fragment) + 8 for fragment in fragments[:-1]]))
    offsets = struct.unpack(f"<{len(table) // 4}L", table[: len(table) // 4 * 4])
    if len(offsets) == form.frames and set(offsets) <= set(starts) and list(offsets) == sorted(set(offsets)):
        firsts = [starts.index(offset) for offset in offsets]
        bounds = zip(firsts, [*firsts[1:], len(fragments)], strict=True)
        return [b"".join(fragments[first:stop]) for first, stop in bounds]
    raise damaged(path, f"it holds {len(fragments)} pieces of compressed voxels for {form.frames} frames")


def _items(path: Path, value: bytes) -> list[bytes]:
    """The offset table, which may be empty, and the fragments."""
    items: list[bytes] = []
    at = 0
    while len(value) >= at + 8:
        group, element, length = struct.unpack_from("<HHL", value, at)
        at += 8
        if group << 16 | element == _END:
            if not items:
                break
            return items
        if group << 16 | element != _ITEM or length > len(value) - at:
            break
        items.append(value[at : at + length])
        at += length
    raise damaged(path, "its compressed voxels end too early")


def unpack_rle(form: PixelForm, frame: bytes) -> bytes:
    """One frame as it would be stored uncompressed: little endian, the samples of a pixel together.

    Raises:
        InputError: it gives another number of bytes than the header says.
    """
    path, pixels, width = form.file.path, form.rows * form.columns, form.allocated // 8
    count, *offsets = struct.unpack("<16L", frame[:64]) if len(frame) >= 64 else (0,)
    if count != form.samples * width or count > 15 or list(offsets[:count]) != sorted(offsets[:count]):
        raise damaged(path, f"its run lengths come in {count} segments, not {form.samples * width}")
    planes = np.empty((form.samples, width, pixels), np.uint8)
    for segment, (start, stop) in enumerate(zip(offsets[:count], [*offsets[1:count], len(frame)], strict=True)):
        unpacked = _unpack_bits(frame[start:stop], pixels)
        if len(unpacked) != pixels:
            raise damaged(path, f"a segment of its run lengths gives {len(unpacked)} of {pixels} bytes")
        planes[segment // width, width - 1 - segment % width] = np.frombuffer(unpacked, np.uint8)
    return planes.transpose(2, 0, 1).tobytes()  # (pixel, sample, byte)


def _unpack_bits(packed: bytes, most: int) -> bytes:
    """Runs to bytes, up to more than `most`; a run that is cut off gives what is there."""
    out, at = bytearray(), 0
    while at < len(packed) - 1 and len(out) < most:
        head = packed[at]
        if head < 128:
            out += packed[at + 1 : at + 2 + head]
            at += 2 + head
        else:
            if head > 128:  # 128 does nothing
                out += packed[at + 1 : at + 2] * (257 - head)
            at += 1 + (head > 128)
    return bytes(out)


def decode(form: PixelForm, frame: bytes) -> np.ndarray:
    """One frame, (rows, columns) or (rows, columns, 3), in its stored type, through GDCM.

    GDCM is given a file of its own with what was checked and nothing else: no private elements, no sequences, no
    lengths that somebody made up.

    Raises:
        InputError: the codestream contradicts the header, or cannot be decoded.
    """
    if form.stored_bytes is None:
        _check_codestream(form, frame)
    with tempfile.TemporaryDirectory(prefix="apformer-dicom-") as folder:
        path = Path(folder) / "frame.dcm"
        path.write_bytes(_plain_file(form, frame))
        try:
            array = itk.array_of(itk.read_image(path))
        except Exception as error:
            raise damaged(form.file.path, "its voxels cannot be decoded") from error
    array = np.moveaxis(array, 0, -1)[0] if array.ndim == 4 else array[0]
    if array.shape[:2] != (form.rows, form.columns) or array.dtype.kind not in "ui":
        raise damaged(form.file.path, "its voxels are not of the size that its header says")
    return array


def _check_codestream(form: PixelForm, frame: bytes) -> None:
    path, stripped = form.file.path, frame.rstrip(b"\0\xff")  # what fills up to an even length
    if not stripped.endswith(_EOI):
        raise damaged(path, "its compressed voxels end too early")
    try:
        size = _j2k_size(stripped) if form.syntax in JPEG_2000 else _jpeg_size(stripped)
    except (struct.error, IndexError):
        size = None
    if size is None or size[:3] != (form.rows, form.columns, form.samples) or size[3] > form.allocated:
        raise damaged(path, f"its compressed voxels are {size} rows, columns, samples, bits, not those of its header")


def _jpeg_size(stream: bytes) -> tuple[int, int, int, int] | None:
    """Rows, columns, samples and bits of a sample, as the codestream says itself; None when it does not."""
    if not stream.startswith(_SOI):
        return None
    at = 2
    while stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xFF or marker in _ALONE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAME_MARKERS:
            bits, rows, columns, samples = struct.unpack_from(">BHHB", stream, at + 4)
            return rows, columns, samples, bits
        at += 2 + struct.unpack_from(">H", stream, at + 2)[0]
    return None


def _j2k_size(stream: bytes) -> tuple[int, int, int, int] | None:
    """As `_jpeg_size`; None also for tiles and subsampling that nobody uses for one image."""
    if not stream.startswith(_J2K):  # some writers wrap it as a file of its own
        boxed = re.search(re.escape(_J2K), stream[:4096]) if stream[4:8] == b"jP  " else None
        if boxed is None:
            return None
        stream = stream[boxed.start() :]
    width, height, left, top, tile_x, tile_y, tile_left, tile_top, samples = struct.unpack_from(">8LH", stream, 8)
    if not tile_x or not tile_y or -(-width // tile_x) * -(-height // tile_y) > _MOST_TILES:
        return None
    if tile_left > left or tile_top > top or samples > _MOST_SAMPLES:
        return None
    components = [struct.unpack_from("3B", stream, 42 + 3 * n) for n in range(samples)]
    if {step for _, *steps in components for step in steps} != {1}:
        return None
    return height - top, width - left, samples, max(bits & 0x7F for bits, *_ in components) + 1


def _plain_file(form: PixelForm, frame: bytes) -> bytes:
    elements = [
        _element(0x00080016, b"UI", _SECONDARY_CAPTURE.encode() + b"\0"), _element(0x00080018, b"UI", b"1.2.3\0"),
        _element(0x00280002, b"US", form.samples),
        _element(0x00280004, b"CS", (form.photometric if form.samples == 3 else "MONOCHROME2").encode()),
        *([_element(0x00280006, b"US", int(form.planar))] if form.samples == 3 else []),
        _element(0x00280010, b"US", form.rows), _element(0x00280011, b"US", form.columns),
        _element(0x00280100, b"US", form.allocated), _element(0x00280101, b"US", form.stored),
        _element(0x00280102, b"US", form.high), _element(0x00280103, b"US", int(form.signed)),
    ]  # fmt: skip
    if form.stored_bytes is None:
        syntax, pixels = form.syntax, _encapsulated(frame)
    else:
        syntax, pixels = EXPLICIT, _element(0x7FE00010, b"OW" if form.allocated == 16 else b"OB", frame)
    meta = _element(0x00020010, b"UI", syntax.encode())
    meta = _element(0x00020000, b"UL", struct.pack("<L", len(meta))) + meta
    return b"\0" * 128 + b"DICM" + meta + b"".join(elements) + pixels


def _element(tag: int, vr: bytes, value: int | bytes) -> bytes:
    """In explicit VR little endian."""
    value = (
        struct.pack("<H", value)
        if isinstance(value, int)
        else value + (b" " if vr == b"CS" else b"\0")[: len(value) % 2]
    )
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    return head + struct.pack("<HL" if vr in _LONG else "<H", *((0,) if vr in _LONG else ()), len(value)) + value


def _encapsulated(frame: bytes) -> bytes:
    padded = frame + b"\0" * (len(frame) % 2)
    items = struct.pack("<HHLHHL", 0xFFFE, 0xE000, 0, 0xFFFE, 0xE000, len(padded)) + padded
    head = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
    return head + items + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)

"""The voxels of a DICOM file, in the unit of their modality.

Uncompressed and run-length voxels are decoded here, so that no reader of C++ sees a header that somebody made up; the
JPEG family goes through GDCM, frame by frame (see `codestream`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...memory import require_memory
from ..formats import damaged
from .codestream import decode, frames_of, unpack_rle
from .file import DicomFile, decoding
from .form import BIG_ENDIAN, IMPLICIT, RLE, PixelForm, pixel_form

_PIXEL_DATA = (0x7FE0, 0x0010)
_UNDEFINED = 0xFFFFFFFF
_LONG = (b"OB", b"OW", b"UN")
_DECODER_BYTES = 8  # that a decoder of the JPEG family takes for a value, about
_MOST_AFTER = 1 << 20  # bytes after the voxels that are looked at


@dataclass(frozen=True)
class Frames:
    """`array`: (frame, row, column), or (channel, frame, row, column); `padding`: where voxels lie outside of what was
    scanned, of the shape of `array`, or None where there are none."""

    array: np.ndarray
    padding: np.ndarray | None = None


def read_frames(file: DicomFile) -> Frames:
    """All frames of a file.

    Raises:
        InputError: damaged, of a form that cannot be read, or larger than the memory.
    """
    form = pixel_form(file)
    require_memory(file.path, memory_needed(form))
    with decoding(file.path, "its voxels"):
        stored = _stacked(form, _stored(form, _value(form)))
    if form.photometric == "PALETTE COLOR":
        return Frames(_coloured(file, stored))
    if stored.ndim == 4:
        return Frames(np.ascontiguousarray(np.moveaxis(stored, -1, 0)))
    padding = _padding(form, stored)
    if form.photometric == "MONOCHROME1":  # ITK turns it round, so that more is brighter
        stored = ~stored if form.signed else (2**form.stored - 1 - stored.astype(np.int64)).astype(stored.dtype)
    return Frames(_rescaled(form, stored), padding)


def memory_needed(form: PixelForm) -> int:
    """Bytes that `read_frames` holds at most: the file, the stored values, those in their unit, and the padding."""
    values = form.frames * form.frame_values
    decoder = 0 if form.is_plain else _DECODER_BYTES * form.frame_values
    return form.file.path.stat().st_size + values * (form.dtype.itemsize + 1) + form.output_bytes + decoder


def _stacked(form: PixelForm, frames: Iterator[np.ndarray]) -> np.ndarray:
    first = next(frames)
    whole = np.empty((form.frames, *first.shape), first.dtype)
    whole[0] = first
    for n, frame in enumerate(frames, 1):
        whole[n] = frame
    return whole


def _value(form: PixelForm) -> bytes:
    """The value of the element with the voxels: all of it."""
    path, size = form.file.path, form.file.path.stat().st_size
    order = ">" if form.syntax == BIG_ENDIAN else "<"
    with path.open("rb") as stream:
        stream.seek(form.file.pixels_at)
        head = stream.read(12)
        if len(head) < 8 or struct.unpack_from(f"{order}HH", head) != _PIXEL_DATA:
            raise damaged(path, "it has no voxels, or its header ends too early")
        # Some writers go over to implicit in the middle of a file.
        explicit = form.syntax != IMPLICIT and head[4:6] in _LONG
        start = 12 if explicit else 8
        length = struct.unpack_from(f"{order}L", head, start - 4)[0]
        stream.seek(form.file.pixels_at + start)
        left = size - form.file.pixels_at - start
        if form.stored_bytes is None:
            if length != _UNDEFINED:
                raise damaged(path, "its compressed voxels are not divided into frames")
            return stream.read(left)
        if length == _UNDEFINED:
            raise damaged(path, "it does not say how its voxels are compressed")
        if length > left or length < form.stored_bytes:
            raise damaged(path, f"it ends too early: {min(length, left)} of {form.stored_bytes} bytes of voxels")
        value, rest = stream.read(length), stream.read(_MOST_AFTER)
    if length - form.stored_bytes > 1 and value[form.stored_bytes :].strip(b"\0"):  # zeros fill a block of some disk
        raise damaged(path, f"it has {length} bytes of voxels where its header says {form.stored_bytes}")
    if not _ends_well(rest, order, explicit):
        raise damaged(path, "what follows its voxels is no part of a DICOM file")
    if form.syntax == BIG_ENDIAN and form.allocated == 8 and head[4:6] == b"OW":  # bytes lie in words of two
        value = np.frombuffer(value[: len(value) // 2 * 2], np.uint16).byteswap().tobytes()
    return value[: form.stored_bytes]


def _ends_well(rest: bytes, order: str, explicit: bool) -> bool:
    """True for no more than the elements that may follow the voxels, or the zeros that fill a block: bytes that were
    put in or taken out before show there."""
    if not rest.strip(b"\0") or len(rest) == _MOST_AFTER:
        return True
    at = 0
    while at + 12 <= len(rest):
        group, length = struct.unpack_from(f"{order}H", rest, at)[0], 0
        if group < _PIXEL_DATA[0]:
            return False
        if not explicit:
            length, at = struct.unpack_from(f"{order}L", rest, at + 4)[0], at + 8
        elif rest[at + 4 : at + 6] in (*_LONG, b"SQ", b"OF", b"OD", b"UT"):
            length, at = struct.unpack_from(f"{order}L", rest, at + 8)[0], at + 12
        else:
            length, at = struct.unpack_from(f"{order}H", rest, at + 6)[0], at + 8
        if length == _UNDEFINED:
            return True
        at += length
    return at == len(rest) or not rest[at:].strip(b"\0")


def _stored(form: PixelForm, value: bytes) -> Iterator[np.ndarray]:
    """Frames in their stored type, (rows, columns) or (rows, columns, 3)."""
    if form.syntax == RLE:
        for frame in frames_of(form, value):
            yield _array(form, unpack_rle(form, frame), planar=False)
    elif form.stored_bytes is None:
        for frame in frames_of(form, value):
            yield decode(form, frame)
    else:
        each = form.stored_bytes // form.frames
        if not form.is_plain and each * form.frames != form.stored_bytes:
            raise damaged(form.file.path, "its frames do not begin at whole bytes")
        for n in range(form.frames):
            frame = value[n * each : (n + 1) * each]
            yield _array(form, frame, planar=form.planar) if form.is_plain else decode(form, frame)


def _array(form: PixelForm, frame: bytes, planar: bool) -> np.ndarray:
    stored = form.dtype.newbyteorder(">" if form.syntax == BIG_ENDIAN else "<")
    values = np.frombuffer(frame, stored).astype(form.dtype)
    if form.high >= form.stored:  # the value lies in the upper bits
        values >>= form.high + 1 - form.stored
    if form.signed and form.stored < form.allocated:
        spare = form.allocated - form.stored
        filled = (values << spare) >> spare
        if values.min(initial=0) >= 0 and values.max(initial=0) < 1 << form.stored:  # the sign was not carried on
            values = filled
    if form.samples == 1:
        return values.reshape(form.rows, form.columns)
    if planar:
        return np.moveaxis(values.reshape(form.samples, form.rows, form.columns), 0, -1)
    return values.reshape(form.rows, form.columns, form.samples)


def _rescaled(form: PixelForm, stored: np.ndarray) -> np.ndarray:
    slope, intercept = form.rescale
    if (slope, intercept) == (1.0, 0.0):
        return stored
    out = np.empty(stored.shape, form.output_dtype)
    for frame, values in zip(out, stored, strict=True):
        exact = values * slope + intercept
        if out.dtype.kind != "f" and not _fits(exact, out.dtype):  # more bits are used than the header says
            return (stored * slope + intercept).astype(np.float32)
        frame[...] = exact
    return out


def _fits(exact: np.ndarray, dtype: np.dtype) -> bool:
    limits = np.iinfo(dtype)
    return bool(exact.min() >= limits.min and exact.max() <= limits.max)


def _padding(form: PixelForm, stored: np.ndarray) -> np.ndarray | None:
    """Where the stored value is PixelPaddingValue, or lies between it and PixelPaddingRangeLimit (C.7.5.1.1.2)."""
    if form.file.get("PixelPaddingValue") in (None, ""):
        return None
    ends = [_as_stored(form, "PixelPaddingValue")]
    if form.file.get("PixelPaddingRangeLimit") not in (None, ""):
        ends.append(_as_stored(form, "PixelPaddingRangeLimit"))
    mask = (stored >= min(ends)) & (stored <= max(ends))
    return mask if mask.any() else None


def _as_stored(form: PixelForm, keyword: str) -> int:
    """The value as a stored one: writers confuse signed and unsigned there."""
    bits = max(16, form.allocated)
    value = form.file.whole_number(keyword, 0, -(2 ** (bits - 1)), 2**bits - 1) % 2**bits
    return value - 2**bits if form.signed and value >= 2 ** (bits - 1) else value


def _coloured(file: DicomFile, stored: np.ndarray) -> np.ndarray:
    """(channel, frame, row, column) from indices into the three tables of colours."""
    channels = []
    for colour in ("Red", "Green", "Blue"):
        described = file.get(f"{colour}PaletteColorLookupTableDescriptor")
        table = file.get(f"{colour}PaletteColorLookupTableData")
        if described is None or len(described) != 3 or not isinstance(table, bytes):
            raise damaged(file.path, "its table of colours is missing")
        count, first, bits = (int(number) for number in described)
        count, wide = count % 65536 or 65536, bits == 16 and len(table) >= 2 * (count % 65536 or 65536)
        values = np.frombuffer(table, "<u2" if wide else np.uint8)[:count]
        if len(values) < count:
            raise damaged(file.path, "its table of colours is too short")
        if wide:  # as ITK does: pictures have 8 bits
            values = (values >> 8).astype(np.uint8)
        channels.append(values[np.clip(stored.astype(np.int64) - first, 0, count - 1)])
    return np.stack(channels)

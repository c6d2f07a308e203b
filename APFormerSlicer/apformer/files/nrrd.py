"""NRRD (.nrrd, .nhdr): the header parsed and checked here, the voxels through `voxels`.

The format: http://teem.sourceforge.net/nrrd/format.html. Where it leaves a choice, this reads as ITK does, so that
Slicer shows image and mask in one place.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from .. import steps
from ..errors import OutputError
from ..volume import Source, Volume
from . import itk
from .detached import data_beside
from .formats import damaged, four_dimensional, unsupported
from .nrrd_geometry import matrix_of
from .voxels import Packing, Voxels

_HEADER_BYTES = 1 << 22  # names and terminology of some thousand segments
_PIECE_BYTES = 1 << 15
_END = re.compile(rb"\r?\n\r?\n")
_MOST_DIMENSIONS = 16  # NRRD_DIM_MAX of the reference library
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_TYPE_OF = {name: dtype for dtype, names in _TYPES.items() for name in names}
_PACKINGS: dict[str, Packing] = {
    "raw": "raw", "txt": "text", "text": "text", "ascii": "text", "hex": "hex", "gz": "gzip", "gzip": "gzip",
    "bz2": "bzip2", "bzip2": "bzip2",
}  # fmt: skip
_SPATIAL = ("domain", "space")
_CHANNELS = re.compile(r"(2|3|4)-(color|vector|gradient|normal)|(rgb|rgba|hsv|xyz)-color|vector|covariant-vector|point")


@dataclass(frozen=True)
class Header:
    """A parsed header.

    Attributes:
        fields: by name in lower case without blanks ("spacedirections"). pairs: the file's own key/value pairs.
        end: the byte after it.
    """

    path: Path
    fields: Mapping[str, str]
    pairs: Mapping[str, str]
    end: int
    sizes: tuple[int, ...]
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Axes:
    """What the axes of a file mean, by their numbers: those in space, and the one of channels or layers, if any."""

    spatial: tuple[int, ...]
    channel: int | None


def read(path: Path) -> Volume:
    """Voxels of the stored type; vectors and colours become channels.

    Raises:
        InputError: damage, several volumes, voxels in another place than beside the header, and geometry that cannot
            be trusted.
    """
    header = read_header(path)
    return read_voxels(header, image_axes(header), "nrrd")


def header_notes(path: Path) -> tuple[str, ...]:
    """What the header leaves open about the place of its voxels, which are not read. Raises InputError."""
    header = read_header(path)
    return matrix_of(path, header.fields, image_axes(header).spatial)[1]


def read_voxels(header: Header, axes: Axes, kind: str) -> Volume:
    """The volume of a header whose axes are known; `kind` as in `Source`. Raises InputError."""
    matrix, notes = matrix_of(header.path, header.fields, axes.spatial)
    place = _place(header)
    array, more_notes = place.read(copied_bytes=0 if axes.channel is None else place.size)
    last = array.ndim - 1  # the file's first axis is the fastest, the array's last
    kept = [last - axis for axis in reversed(axes.spatial)]
    order = kept if axes.channel is None else [last - axes.channel, *kept]
    dropped = [axis for axis in range(array.ndim) if axis not in order]
    array = array.transpose(*dropped, *order)[(0,) * len(dropped)]
    array = np.ascontiguousarray(array)
    if len(axes.spatial) == 2:
        array = array[..., np.newaxis, :, :]
    return Volume(array, matrix, source=Source(header.path, kind=kind), notes=notes + more_notes)


def image_axes(header: Header) -> Axes:
    """Raises InputError when the axes are those of several volumes."""
    spatial, others = _divide(header)
    if not others:
        return Axes(spatial, None)
    if len(others) == 1 and _CHANNELS.fullmatch(header.kinds[others[0]]):
        return Axes(spatial, others[0])
    raise four_dimensional(header.path, header.sizes)


def layer_axes(header: Header) -> Axes:
    """The axes of a segmentation, whose list axis holds layers. Raises InputError."""
    spatial, others = _divide(header, keep_single=True)
    if len(others) > 1 or len(spatial) != 3:
        raise four_dimensional(header.path, header.sizes)
    return Axes(spatial, others[0] if others else None)


def _divide(header: Header, keep_single: bool = False) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Axes in space and others; axes of one voxel that are not in space go, unless they are kept."""
    path, sizes, kinds = header.path, header.sizes, header.kinds
    if any("complex" in kind for kind in kinds):
        raise unsupported(path, "complex voxels")
    if any("matrix" in kind or "quaternion" in kind for kind in kinds):
        raise unsupported(path, "matrices in its voxels")
    directions = header.fields.get("spacedirections")
    if directions is not None:
        steps = re.findall(r"none|\([^)]*\)", directions)
        if len(steps) != len(sizes):
            raise damaged(path, f"its header gives {len(steps)} space directions of {len(sizes)} axes")
        spatial = [n for n, step in enumerate(steps) if step != "none"]
    else:
        spatial = [n for n, kind in enumerate(kinds) if kind in (*_SPATIAL, "", "???", "none")]
    if any(sizes[n] > 1 for n in spatial[3:]):  # files of several volumes mostly say nothing of their axes
        raise four_dimensional(path, sizes)
    spatial = spatial[:3]
    others = tuple(n for n in range(len(sizes)) if n not in spatial and (keep_single or sizes[n] > 1))
    if len(spatial) not in (2, 3):
        raise unsupported(path, f"{len(spatial)} axes in space")
    return tuple(spatial), others


def read_header(path: Path) -> Header:
    """Parse and check the header; no voxel is touched.

    Raises:
        InputError: not a NRRD file; a header that does not end, contradicts itself or gives impossible sizes.
    """
    head = _head(path)
    if not re.match(rb"NRRD000[1-5]\r?\n", head):
        raise damaged(path, "it does not begin with NRRD and a version")
    match = _END.search(head)
    if match is None and path.suffix.lower() != ".nhdr":
        raise damaged(path, "its header does not end")
    lines = _text(head[: match.start()] if match else head).replace("\r\n", "\n").split("\n")[1:]
    fields: dict[str, str] = {}
    pairs: dict[str, str] = {}
    for line in lines:
        if line.startswith("#") or not line.strip():
            continue
        key, mark, value = _divided(line)
        if not mark:
            raise damaged(path, f"its header has a line that is no field ({line[:40]!r})")
        if mark == ":=":
            pairs[key] = _unescaped(value)
            continue
        name = re.sub(r"\s+", "", key.lower())
        if name in fields:
            raise damaged(path, f"its header gives {key[:40]!r} twice")
        fields[name] = value.strip()
    sizes = _sizes(path, fields)
    return Header(path, fields, pairs, match.end() if match else len(head), sizes, _kinds(path, fields, len(sizes)))


def _head(path: Path) -> bytes:
    """The file up to somewhere behind its header, or as far as a header may go: mostly one small piece."""
    head = b""
    with path.open("rb") as stream:
        while len(head) < _HEADER_BYTES and (piece := stream.read(_PIECE_BYTES)):
            head += piece
            if _END.search(head, max(0, len(head) - len(piece) - 3)):
                break
    return head


def _divided(line: str) -> tuple[str, str, str]:
    """Field or key, the mark between (": " or ":=", whichever is first), and what follows."""
    found = re.search(r":=|: |:$", line)
    return (line[: found.start()], found[0], line[found.end() :]) if found else (line, "", "")


def _text(head: bytes) -> str:
    """UTF-8, as Slicer writes it; else what most editors of the time wrote."""
    try:
        return head.decode("utf-8")
    except UnicodeDecodeError:
        return head.decode("cp1252", errors="replace")


def _unescaped(value: str) -> str:
    return re.sub(r"\\([\\n])", lambda found: "\n" if found[1] == "n" else "\\", value)


def _sizes(path: Path, fields: Mapping[str, str]) -> tuple[int, ...]:
    dimension = _whole(path, fields, "dimension")
    try:
        sizes = tuple(int(word) for word in fields.get("sizes", "").split())
    except ValueError as error:
        raise damaged(path, "its sizes are not whole numbers") from error
    if not 1 <= dimension <= _MOST_DIMENSIONS or len(sizes) != dimension or min(sizes) < 1:
        raise damaged(path, f"its header gives {dimension} dimensions and the sizes {fields.get('sizes', '')[:60]!r}")
    return sizes


def _whole(path: Path, fields: Mapping[str, str], name: str) -> int:
    """0 where the header does not give it."""
    try:
        return int(fields.get(name, 0))
    except ValueError as error:
        raise damaged(path, f"{name} in its header is not a whole number") from error


def _kinds(path: Path, fields: Mapping[str, str], dimension: int) -> tuple[str, ...]:
    kinds = tuple(fields.get("kinds", "").lower().split())
    if kinds and len(kinds) != dimension:
        raise damaged(path, f"its header gives {len(kinds)} kinds of {dimension} axes")
    return kinds or ("",) * dimension


def _place(header: Header) -> Voxels:
    path, fields = header.path, header.fields
    kind, encoding = fields.get("type", "").lower(), fields.get("encoding", "").lower()
    if kind not in _TYPE_OF:
        raise unsupported(path, f"voxels of type {kind[:40] or 'unknown'}")
    if encoding not in _PACKINGS:
        raise unsupported(path, f"voxels encoded as {encoding[:40] or 'unknown'}")
    if _whole(path, fields, "lineskip") != 0:
        raise unsupported(path, "voxels behind lines to skip")
    dtype = np.dtype(_TYPE_OF[kind]).newbyteorder(_order(path, fields, kind, encoding))
    named = fields.get("datafile")
    data, start = (path, header.end) if named is None else (data_beside(path, named, ".nhdr"), 0)
    place = Voxels(data, start, header.sizes[::-1], dtype, _PACKINGS[encoding])
    return _skipped(place, fields)


def _order(path: Path, fields: Mapping[str, str], kind: str, encoding: str) -> Literal["<", ">"]:
    endian = fields.get("endian", "").lower()
    if endian in ("big", "little"):
        return ">" if endian == "big" else "<"
    if endian or (np.dtype(_TYPE_OF[kind]).itemsize > 1 and _PACKINGS[encoding] != "text"):
        raise damaged(path, "its header does not say in which order the bytes of a voxel are (endian)")
    return "<"


def _skipped(place: Voxels, fields: Mapping[str, str]) -> Voxels:
    """`place` behind the bytes that "byte skip" leaves out of a data file; -1: the voxels are its end."""
    skip = _whole(place.path, fields, "byteskip")
    if skip == 0:
        return place
    if place.packing != "raw" or skip < -1:
        raise unsupported(place.path, "packed voxels behind bytes to skip")
    start = place.path.stat().st_size - place.size if skip == -1 else place.start + skip
    return replace(place, start=max(start, place.start))


def write(path: Path, volume: Volume, provenance: Mapping[str, str]) -> None:
    """Write (k, j, i) voxels of their own type, gzipped; `provenance` as key/value pairs."""
    write_voxels(path, volume.array, volume.ijk_to_ras, key_values(provenance))


def key_values(provenance: Mapping[str, str]) -> dict[str, str]:
    """`provenance` as pairs of a header."""
    return {f"APFormer_{key}": " ".join(value.split()) for key, value in provenance.items()}


def write_voxels(
    path: Path, array: np.ndarray, ijk_to_ras: np.ndarray, pairs: Mapping[str, str], *, level: int = 4
) -> None:
    """Write (k, j, i), or (layer, k, j, i) with the layers along the fastest axis, as Slicer has them.

    Args:
        pairs: key/value pairs in their order; names in UTF-8, as Slicer writes them.
        level: of gzip; 0 writes raw voxels.

    Raises:
        OutputError: a type that NRRD does not have.
    """
    if array.dtype.str[1:] not in _TYPES:
        raise OutputError(
            f"An array of {array.dtype} does not fit into NRRD.",
            "The format holds whole numbers of 8 to 64 bits and real numbers of 32 and 64.",
            "Convert it first, for example to float32.",
        )
    layers = array.ndim == 4
    stored = np.moveaxis(array, 0, -1) if layers else array
    dtype = stored.dtype.newbyteorder("<")
    lps = itk.flip_lps_ras(ijk_to_ras)
    lines = [
        "NRRD0004",
        "# Complete NRRD file format specification at:",
        "# http://teem.sourceforge.net/nrrd/format.html",
        f"type: {_TYPES[dtype.str[1:]][0]}",
        f"dimension: {stored.ndim}",
        "space: left-posterior-superior",
        "sizes: " + " ".join(str(length) for length in reversed(stored.shape)),
        "space directions: " + ("none " if layers else "") + " ".join(_vector(lps[:3, axis]) for axis in range(3)),
        "kinds: " + ("list " if layers else "") + "domain domain domain",
        *(["endian: little"] if dtype.itemsize > 1 else []),
        f"encoding: {'gzip' if level else 'raw'}",
        f"space origin: {_vector(lps[:3, 3])}",
        *(f"{key}:={_escaped(value)}" for key, value in pairs.items()),
    ]
    with path.open("wb") as file:
        file.write(("\n".join(lines) + "\n\n").encode("utf-8"))
        for number, piece in enumerate(_packed((slab.astype(dtype, copy=False) for slab in stored), level)):
            steps.at(min(1.0, number / len(stored)))
            file.write(piece)


def _packed(slabs: Iterable[np.ndarray], level: int) -> Iterable[bytes]:
    packer = zlib.compressobj(level, wbits=31) if level else None  # no time and no name inside: equal in, equal out
    for slab in slabs:
        content = np.ascontiguousarray(slab).tobytes()
        yield packer.compress(content) if packer else content
    if packer:
        yield packer.flush()


def _vector(numbers: Iterable[float]) -> str:
    return "(" + ",".join(f"{float(number):.17g}" for number in numbers) + ")"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\r\n", "\n").replace("\n", "\\n").replace("\r", "\\n")

"""MetaImage (.mha, .mhd), read as ITK reads it and checked as ITK does not.

ITK ends the process on an impossible NDims, follows any path in ElementDataFile and hands out whatever memory held
where a compressed stream is damaged. So the header is parsed here and the voxels come through `voxels`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..checks import check_geometry
from ..volume import Source, Volume
from . import itk
from .detached import data_beside
from .formats import bad_spacing, damaged, four_dimensional, unsupported
from .voxels import Packing, Voxels

_HEADER_BYTES = 1 << 16
_TYPES = {  # MET_LONG has four bytes on every system, as ITK reads it
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
_DIRECTION = ("TransformMatrix", "Rotation", "Orientation")
_POSITION = ("Offset", "Position", "Origin")
_SPACING = ("ElementSpacing", "ElementSize")
_ASSUMED = {
    _SPACING: "voxel size; 1 mm was taken",
    _DIRECTION: "orientation; i, j, k were taken to run to the patient's left, back and head",
    _POSITION: "position; the first voxel was taken to lie at 0, 0, 0",
}


def read(path: Path) -> Volume:
    """Voxels of the stored type; several numbers in each voxel become channels.

    Raises:
        InputError: damage, four dimensions, voxels in another place than beside the header, and geometry that cannot
            be trusted.
    """
    fields, start = _header(path)
    size = _size(path, fields)
    matrix, notes = _matrix(path, fields, len(size))
    voxels = _voxels(path, fields, start, size)
    array, more_notes = voxels.read(copied_bytes=voxels.size if voxels.shape[-1] > 1 else 0)
    array = np.ascontiguousarray(np.moveaxis(array, -1, 0)) if array.shape[-1] > 1 else array[..., 0]
    array = array[..., np.newaxis, :, :] if len(size) == 2 else array
    return Volume(array, matrix, source=Source(path, kind="mha"), notes=notes + more_notes)


def header_notes(path: Path) -> tuple[str, ...]:
    """What the header leaves open about the place of its voxels, which are not read. Raises InputError."""
    fields, _ = _header(path)
    return _matrix(path, fields, len(_size(path, fields)))[1]


def write(path: Path, volume: Volume, provenance: Mapping[str, str]) -> None:
    """Write (k, j, i) voxels of their own type, compressed; `provenance` as extra header fields."""
    image = itk.image_of(volume.array, volume.ijk_to_ras)
    for key, value in provenance.items():
        image.SetMetaData(f"APFormer_{key}", " ".join(value.split()))
    itk.write_image(image, path)


def _header(path: Path) -> tuple[dict[str, str], int]:
    """The fields, and the byte after them."""
    with path.open("rb") as stream:
        head = stream.read(_HEADER_BYTES)
    fields: dict[str, str] = {}
    start = 0
    for line in head.split(b"\n"):
        start += len(line) + 1
        key, equals, value = line.decode("latin-1").partition("=")
        if not equals:
            break
        if key.strip() in fields:
            raise damaged(path, f"its header gives {key.strip()[:40]} twice")
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":  # always the last line; voxels may follow
            return fields, min(start, len(head))
    raise damaged(path, "its header does not name the voxel data (ElementDataFile)")


def _size(path: Path, fields: Mapping[str, str]) -> tuple[int, ...]:
    """Voxels along i, j and, unless the image is flat, k."""
    numbers = _numbers(path, fields, "DimSize")
    dimensions = _whole(path, fields, "NDims", len(numbers))
    if not 2 <= dimensions <= 10 or len(numbers) != dimensions:
        raise damaged(path, f"its header gives {dimensions} dimensions and {len(numbers)} sizes")
    if any(length < 1 or length != int(length) for length in numbers):
        raise damaged(path, f"its header gives the size {' x '.join(f'{length:g}' for length in numbers)}")
    size = tuple(int(length) for length in numbers)
    if any(length > 1 for length in size[3:]):
        raise four_dimensional(path, size)
    return size[:3]


def _voxels(path: Path, fields: Mapping[str, str], start: int, size: tuple[int, ...]) -> Voxels:
    kind = fields.get("ElementType", "")
    channels = _whole(path, fields, "ElementNumberOfChannels", 1)
    if kind.removesuffix("_ARRAY") not in _TYPES:
        raise unsupported(path, f"voxels of type {kind[:40] or 'unknown'}")
    if channels < 1:
        raise damaged(path, f"its header gives {channels} channels")
    big = _true(fields, "BinaryDataByteOrderMSB") or _true(fields, "ElementByteOrderMSB")
    dtype = np.dtype(_TYPES[kind.removesuffix("_ARRAY")]).newbyteorder(">" if big else "<")
    packing: Packing = "zlib" if _true(fields, "CompressedData") else "raw"
    if not _true(fields, "BinaryData", default=True):
        packing = "text"
    named = fields["ElementDataFile"]
    if named.upper() == "LOCAL":
        if path.suffix.lower() == ".mhd" and start >= path.stat().st_size:
            raise damaged(path, "its header says that the voxels follow, and none do")
        found = Voxels(path, start, (*size[::-1], channels), dtype, packing)
    else:
        found = Voxels(data_beside(path, named, ".mhd"), 0, (*size[::-1], channels), dtype, packing)
    skipped = _whole(path, fields, "HeaderSize", 0)
    if skipped == -1 and packing == "raw":  # the voxels are the end of the file
        return replace(found, start=max(found.start, found.path.stat().st_size - found.size))
    if skipped not in (0, -1):
        raise unsupported(path, f"voxels that begin {skipped} bytes into their file (HeaderSize)")
    return found


def _matrix(path: Path, fields: Mapping[str, str], dimensions: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """4x4, (i, j, k) to RAS in mm, and what was assumed; a flat image lies in the plane S = 0 with a slice of 1 mm."""
    found = {names: _first(path, fields, names) for names in _ASSUMED}
    notes = tuple(
        f"{path.name}: the header gives no {assumed}" for names, assumed in _ASSUMED.items() if found[names] is None
    )
    n = dimensions
    spacing, direction, position = found[_SPACING], found[_DIRECTION], found[_POSITION]
    spacing = np.ones(n) if spacing is None else spacing[:n]
    if len(spacing) != n or not np.all(np.isfinite(spacing)) or np.any(spacing <= 0):
        raise bad_spacing(path, tuple(float(step) for step in spacing))
    whole = _whole(path, fields, "NDims", n)
    direction = np.eye(whole).ravel() if direction is None else direction
    position = np.zeros(whole) if position is None else position
    if len(direction) != whole * whole or len(position) != whole:
        raise damaged(path, f"its direction and position are not those of {whole} dimensions")
    matrix = np.eye(4)
    matrix[:n, :n] = direction.reshape(whole, whole)[:n, :n].T * spacing  # a row of the header is the step of one axis
    matrix[:n, 3] = position[:n]
    check_geometry(matrix, str(path))
    return itk.flip_lps_ras(matrix), notes


def _first(path: Path, fields: Mapping[str, str], names: tuple[str, ...]) -> np.ndarray | None:
    """The numbers of the first of these fields that is there; the others are checked too."""
    given = [np.array(_numbers(path, fields, name)) for name in names if name in fields]
    return given[0] if given else None


def _numbers(path: Path, fields: Mapping[str, str], key: str) -> list[float]:
    try:
        return [float(word) for word in fields.get(key, "").split()]
    except ValueError as error:
        raise damaged(path, f"{key} in its header is not a list of numbers") from error


def _whole(path: Path, fields: Mapping[str, str], key: str, default: int) -> int:
    try:
        return int(fields[key]) if key in fields else default
    except ValueError as error:
        raise damaged(path, f"{key} in its header is not a whole number") from error


def _true(fields: Mapping[str, str], key: str, default: bool = False) -> bool:
    """As MetaIO reads it: by the first letter."""
    return fields[key][:1] in ("T", "t", "1") if key in fields else default

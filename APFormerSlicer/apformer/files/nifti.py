"""NIfTI-1 and NIfTI-2 (.nii, .nii.gz).

Read and written here rather than through ITK, which replaces a zero spacing by 1, keeps a negative one as a flip,
refuses sforms that rounding has made imperfect, and writes both forms anew. Where they differ, `nifti_forms` places
voxels as ITK does. Field offsets are those of nifti1.h and nifti2.h (https://nifti.nimh.nih.gov).
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Literal

import numpy as np

from .. import steps
from ..errors import InputError, OutputError
from ..volume import Source, Volume
from .formats import damaged, four_dimensional
from .nifti_forms import NiftiForms, quaternion_of
from .voxels import Packing, Stream, Voxels

_NIFTI1 = {
    "sizeof_hdr": ("i4", 0), "regular": ("S1", 38), "dim": ("8i2", 40), "intent_code": ("i2", 68),
    "datatype": ("i2", 70), "bitpix": ("i2", 72), "pixdim": ("8f4", 76), "vox_offset": ("f4", 108),
    "scl_slope": ("f4", 112), "scl_inter": ("f4", 116), "xyzt_units": ("u1", 123), "descrip": ("S80", 148),
    "qform_code": ("i2", 252), "sform_code": ("i2", 254), "quatern": ("3f4", 256), "qoffset": ("3f4", 268),
    "srow": ("(3,4)f4", 280), "magic": ("S4", 344),
}  # fmt: skip
_NIFTI2 = {
    "sizeof_hdr": ("i4", 0), "datatype": ("i2", 12), "bitpix": ("i2", 14), "dim": ("8i8", 16), "pixdim": ("8f8", 104),
    "vox_offset": ("i8", 168), "scl_slope": ("f8", 176), "scl_inter": ("f8", 184), "descrip": ("S80", 240),
    "qform_code": ("i4", 344), "sform_code": ("i4", 348), "quatern": ("3f8", 352), "qoffset": ("3f8", 376),
    "srow": ("(3,4)f8", 400), "xyzt_units": ("i4", 500), "intent_code": ("i4", 504),
    "magic": ("S8", 4),
}  # fmt: skip
_DATATYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
    128: "(3,)u1", 2304: "(4,)u1",  # RGB24 and RGBA32
}  # fmt: skip
_CODES = {np.dtype(name): code for code, name in _DATATYPES.items() if not name.startswith("(")}
_MAGIC = {348: b"n+1", 540: b"n+2"}


def read(path: Path, *, series_as_channels: bool = False) -> Volume:
    """Voxels of the stored type; float32 where the header scales them. Colours and vectors become channels.

    Args:
        series_as_channels: take the fourth axis as channels, where data sets keep the modalities of an image.

    Raises:
        InputError: damaged or truncated, complex voxels, several volumes, spacing or direction that cannot be trusted.
    """
    with Stream(path, packing="gzip" if _is_gzipped(path) else "raw") as stream:
        header = _read_header(path, stream)
        array, notes = _read_voxels(path, stream, header, series_as_channels)
    forms = NiftiForms.of(header)
    matrix, more_notes = forms.place(path)
    modality = "RGB" if int(header["datatype"]) in (128, 2304) else None
    return Volume(array, matrix, modality, Source(path, kind="nifti", nifti_forms=forms), more_notes + notes)


def header_notes(path: Path) -> tuple[str, ...]:
    """What the header leaves open or contradicts about the place of its voxels, which are not read.

    Raises:
        InputError: the header cannot be read.
    """
    with Stream(path, packing="gzip" if _is_gzipped(path) else "raw") as stream:
        return NiftiForms.of(_read_header(path, stream)).place(path)[1]


def _is_gzipped(path: Path) -> bool:
    """By content: .nii files that are gzipped, and the reverse, exist."""
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _layout(fields: Mapping[str, tuple[str, int]], size: int, order: Literal["<", ">"]) -> np.dtype:
    formats = [np.dtype(form).newbyteorder(order) for form, _ in fields.values()]
    offsets = [offset for _, offset in fields.values()]
    return np.dtype({"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": size})


def _read_header(path: Path, stream: Stream) -> np.void:
    raw = stream.take(348)
    orders: tuple[Literal["<", ">"], ...] = ("<", ">")
    for fields, size in ((_NIFTI1, 348), (_NIFTI2, 540)):
        for order in orders:
            if len(raw) == 348 and int(np.frombuffer(raw[:4], f"{order}i4")[0]) == size:
                raw += stream.take(size - len(raw))
                return _checked_header(path, raw, fields, size, order)
    raise damaged(path, "it has no NIfTI header")


def _checked_header(
    path: Path, raw: bytes, fields: Mapping[str, tuple[str, int]], size: int, order: Literal["<", ">"]
) -> np.void:
    if len(raw) < size:
        raise damaged(path, f"it ends within its header of {size} bytes")
    header = np.frombuffer(raw, _layout(fields, size, order))[0]
    if not bytes(header["magic"]).startswith(_MAGIC[size]):
        raise damaged(path, "its header is not that of a single NIfTI file (ANALYZE, or a pair of .hdr and .img)")
    return header


def _file_shape(path: Path, header: np.void, series_as_channels: bool) -> tuple[int, ...]:
    """(C, k, j, i) for vector voxels and where a series is taken as channels, else (k, j, i)."""
    dimensions = int(header["dim"][0])
    if not 1 <= dimensions <= 7:
        raise damaged(path, f"its header gives {dimensions} dimensions")
    shape = tuple(int(length) for length in header["dim"][1 : dimensions + 1])
    if any(length < 1 for length in shape):
        raise InputError(
            f"{path} is empty ({' x '.join(map(str, shape))} voxels).",
            "There is nothing to segment.",
            "Export the image again.",
        )
    spatial = (*shape, 1, 1)[:3]
    rest = shape[3:]
    if dimensions == 5 and rest[0] == 1 and rest[1] > 1:  # NIfTI keeps the components of a vector in axis 5
        return (rest[1], *spatial[::-1])
    if series_as_channels and rest and rest[0] > 1 and all(length == 1 for length in rest[1:]):
        return (rest[0], *spatial[::-1])
    if any(length > 1 for length in rest):
        raise four_dimensional(path, shape)
    return spatial[::-1]


def _read_voxels(
    path: Path, stream: Stream, header: np.void, series_as_channels: bool
) -> tuple[np.ndarray, tuple[str, ...]]:
    code = int(header["datatype"])
    if code not in _DATATYPES:
        kind = "complex" if code in (32, 1792, 2048) else f"unsupported (NIfTI code {code})"
        raise InputError(
            f"{path} has {kind} voxels.",
            "Only real numbers can be segmented.",
            "Convert the image, for example to its magnitude, as 16-bit integers or 32-bit floats.",
        )
    order: Literal["<", ">"] = "<" if header.dtype["sizeof_hdr"] == np.dtype("<i4") else ">"
    shape = _file_shape(path, header, series_as_channels)
    base, colours = np.dtype(_DATATYPES[code]).base, np.dtype(_DATATYPES[code]).shape
    start = float(header["vox_offset"])
    if not 0 <= start < 2**53:
        raise damaged(path, f"its header has the voxels begin at byte {start:g}")
    begins = max(int(start), int(header["sizeof_hdr"]))
    packing: Packing = "gzip" if _is_gzipped(path) else "raw"
    voxels = Voxels(path, 0 if packing == "gzip" else begins, (*shape, *colours), base.newbyteorder(order), packing)
    scale = _scale(header)
    voxels.check_size(math.prod(shape) * 4 * (scale is not None) + voxels.size * bool(colours))
    stream.skip(begins - int(header["sizeof_hdr"]))
    array = voxels.read_from(stream)
    notes = voxels.tell_extra(stream.finish())
    if colours:
        array = np.ascontiguousarray(np.moveaxis(array[..., :3], -1, 0))
    if scale is not None:
        array = array.astype(np.float32)
        array *= np.float32(scale[0])
        array += np.float32(scale[1])
    return array, notes


def _scale(header: np.void) -> tuple[float, float] | None:
    """Slope and intercept; None where voxels are what they are."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    intercept = intercept if math.isfinite(intercept) else 0.0
    if slope == 0 or not math.isfinite(slope) or (slope == 1 and intercept == 0):  # 0 means "not scaled"
        return None
    return slope, intercept


def write(path: Path, volume: Volume, provenance: Mapping[str, str]) -> None:
    """Write (k, j, i) voxels as NIfTI-1; gzipped when the name says so.

    The forms that place the voxels are those of the file they were read from, to the bit; sform and qform carry the
    same matrix (both in float32, the format's precision) where there is no such file, or the grid is another one.
    `provenance` fills the 79 characters of the description.

    Raises:
        OutputError: a type or size that NIfTI-1 cannot hold.
    """
    array = volume.array
    if array.dtype not in _CODES or max(array.shape) > 32767:
        raise OutputError(
            f"An array of {array.dtype} with shape {array.shape} does not fit into NIfTI.",
            "The format holds plain numbers and at most 32767 voxels along an axis.",
            "Write .nrrd instead.",
        )
    header = _header_for(array, volume.ijk_to_ras)
    forms = volume.source.nifti_forms
    if forms is not None and np.array_equal(forms.place(path)[0], volume.ijk_to_ras):
        forms.write_to(header)
    header["descrip"] = ("APFormerSlicer " + " ".join(" ".join(provenance.values()).split())).encode()[:79]
    voxels = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    if path.name.lower().endswith(".gz"):
        # mtime 0 and no name inside: the same result gives the same file.
        with path.open("wb") as plain, gzip.GzipFile("", "wb", compresslevel=4, fileobj=plain, mtime=0) as stream:
            _put(stream, header, voxels)
    else:
        with path.open("wb") as stream:
            _put(stream, header, voxels)


def _put(stream: gzip.GzipFile | IO[bytes], header: np.ndarray, voxels: np.ndarray) -> None:
    stream.write(header.tobytes() + bytes(4))  # no extensions
    for number, slab in enumerate(voxels):
        steps.at(number / len(voxels))
        stream.write(slab.tobytes())


def _header_for(array: np.ndarray, ijk_to_ras: np.ndarray) -> np.ndarray:
    spacing = np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    rotation = ijk_to_ras[:3, :3] / spacing
    handedness = 1.0 if np.linalg.det(rotation) > 0 else -1.0
    header = np.zeros((), _layout(_NIFTI1, 348, "<"))
    header["sizeof_hdr"], header["regular"], header["magic"] = 348, b"r", b"n+1"
    header["dim"] = [3, *array.shape[::-1], 1, 1, 1, 1]
    header["pixdim"] = [handedness, *spacing, 1, 1, 1, 1]
    header["datatype"], header["bitpix"] = _CODES[array.dtype.newbyteorder("=")], 8 * array.dtype.itemsize
    header["vox_offset"], header["scl_slope"], header["xyzt_units"] = 352, 1, 2
    header["sform_code"], header["srow"] = 1, ijk_to_ras[:3]
    header["qform_code"], header["qoffset"] = 1, ijk_to_ras[:3, 3]
    header["quatern"] = quaternion_of(rotation * [1.0, 1.0, handedness])
    return header

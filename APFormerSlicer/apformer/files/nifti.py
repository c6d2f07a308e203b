"""NIfTI-1 and NIfTI-2 (.nii, .nii.gz).

Read and written here rather than through ITK, which replaces a zero spacing by 1, keeps a negative one as a flip, takes
lengths from `pixdim` even where the sform says otherwise, and refuses sforms that rounding has made imperfect.
Field offsets are those of nifti1.h and nifti2.h (https://nifti.nimh.nih.gov).
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from ..checks import check_geometry
from ..errors import InputError, OutputError
from ..volume import Source, Volume
from .formats import bad_spacing, damaged, four_dimensional

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
}  # fmt: skip
_DATATYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
    128: "(3,)u1", 2304: "(4,)u1",  # RGB24 and RGBA32
}  # fmt: skip
_CODES = {np.dtype(name): code for code, name in _DATATYPES.items() if not name.startswith("(")}
_MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}  # metres, millimetres, micrometres
Stream = gzip.GzipFile | io.BufferedReader
_CHUNK_BYTES = 1 << 20  # gzip makes a copy of what is asked for at once
_LENGTH_TOLERANCE = 0.01  # relative; above it, sform and pixdim disagree by more than rounding


def read(path: Path) -> Volume:
    """Voxels of the stored type; float32 where the header scales them. Colours and vectors become channels.

    Raises:
        InputError: damaged or truncated, complex voxels, several volumes, spacing or direction that cannot be trusted.
    """
    try:
        with _open(path) as stream:
            header = _read_header(path, stream)
            array = _read_voxels(path, stream, header)
    except (OSError, EOFError, zlib.error, ValueError, OverflowError) as error:
        raise damaged(path, str(error)) from error
    except MemoryError as error:
        raise damaged(path, "its header asks for more voxels than this computer's memory holds") from error
    matrix, notes = _matrix(path, header)
    modality = "RGB" if int(header["datatype"]) in (128, 2304) else None
    return Volume(array, matrix, modality=modality, source=Source(path, kind="nifti"), notes=notes)


def _open(path: Path) -> Stream:
    with path.open("rb") as stream:
        gzipped = stream.read(2) == b"\x1f\x8b"  # by content: .nii files that are gzipped, and the reverse, exist
    return gzip.open(path) if gzipped else path.open("rb")


def _layout(fields: Mapping[str, tuple[str, int]], size: int, order: Literal["<", ">"]) -> np.dtype:
    formats = [np.dtype(form).newbyteorder(order) for form, _ in fields.values()]
    offsets = [offset for _, offset in fields.values()]
    return np.dtype({"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": size})


def _read_header(path: Path, stream: Stream) -> np.void:
    raw = stream.read(540)
    orders: tuple[Literal["<", ">"], ...] = ("<", ">")
    for fields, size in ((_NIFTI1, 348), (_NIFTI2, 540)):
        for order in orders:
            if len(raw) >= size and int(np.frombuffer(raw[:4], f"{order}i4")[0]) == size:
                return np.frombuffer(raw[:size], _layout(fields, size, order))[0]
    raise damaged(path, "it has no NIfTI header")


def _file_shape(path: Path, header: np.void) -> tuple[int, ...]:
    """(C, k, j, i) for vector voxels, else (k, j, i)."""
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
    if any(length > 1 for length in rest):
        raise four_dimensional(path, shape)
    return spatial[::-1]


def _read_voxels(path: Path, stream: Stream, header: np.void) -> np.ndarray:
    code = int(header["datatype"])
    if code not in _DATATYPES:
        kind = "complex" if code in (32, 1792, 2048) else f"unsupported (NIfTI code {code})"
        raise InputError(
            f"{path} has {kind} voxels.",
            "Only real numbers can be segmented.",
            "Convert the image, for example to its magnitude, as 16-bit integers or 32-bit floats.",
        )
    order: Literal["<", ">"] = "<" if header.dtype["sizeof_hdr"] == np.dtype("<i4") else ">"
    array = np.empty(_file_shape(path, header), np.dtype(_DATATYPES[code]).newbyteorder(order))
    stream.seek(max(int(header["vox_offset"]), int(header["sizeof_hdr"])))
    view, done = memoryview(array.reshape(-1).view(np.uint8).data), 0
    while done < len(view):
        got = stream.readinto(view[done : done + _CHUNK_BYTES])
        if not got:
            raise damaged(path, f"it ends after {done} of {len(view)} bytes of voxels")
        done += got
    stream.read(1)  # reaching the end makes gzip compare its checksum
    if array.ndim == 4 and code in (128, 2304):
        array = np.ascontiguousarray(np.moveaxis(array[..., :3], -1, 0))
    return _scaled(array.astype(array.dtype.newbyteorder("="), copy=False), header)


def _scaled(array: np.ndarray, header: np.void) -> np.ndarray:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    intercept = intercept if math.isfinite(intercept) else 0.0
    if slope == 0 or not math.isfinite(slope) or (slope == 1 and intercept == 0):  # 0 means "not scaled"
        return array
    scaled = array.astype(np.float32)
    scaled *= np.float32(slope)
    scaled += np.float32(intercept)
    return scaled


def _matrix(path: Path, header: np.void) -> tuple[np.ndarray, tuple[str, ...]]:
    """4x4 to RAS in mm: the sform if there is one, else the qform, else spacing alone; and what to tell the user."""
    dimensions = int(header["dim"][0])
    spacing = np.ones(3)
    spacing[: min(dimensions, 3)] = header["pixdim"][1 : min(dimensions, 3) + 1]
    if not np.all(np.isfinite(spacing)) or np.any(spacing <= 0):
        raise bad_spacing(path, tuple(float(step) for step in spacing))
    matrix, notes = np.eye(4), []
    if int(header["sform_code"]) > 0:
        matrix[:3] = header["srow"]
        check_geometry(matrix, str(path))
        lengths = np.linalg.norm(matrix[:3, :3], axis=0)
        if np.any(np.abs(lengths - spacing) > _LENGTH_TOLERANCE * spacing):
            notes.append(
                f"{path.name}: the header gives two voxel sizes, {_mm(spacing)} (pixdim) and {_mm(lengths)} (sform); "
                "the sform was used"
            )
    elif int(header["qform_code"]) > 0:
        handedness = -1.0 if header["pixdim"][0] < 0 else 1.0
        matrix[:3, :3] = _rotation(np.asarray(header["quatern"], float)) * (spacing * [1.0, 1.0, handedness])
        matrix[:3, 3] = header["qoffset"]
        check_geometry(matrix, str(path))
    else:
        matrix[:3, :3] = np.diag(spacing)
        notes.append(f"{path.name}: the header gives no orientation; i, j, k were taken to run right, front and up")
    matrix[:3] *= _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    return matrix, tuple(notes)


def _mm(lengths: np.ndarray) -> str:
    return " x ".join(f"{length:g}" for length in lengths) + " mm"


def _rotation(bcd: np.ndarray) -> np.ndarray:
    """3x3 from the vector part of a unit quaternion."""
    rest = 1.0 - float(bcd @ bcd)
    if rest < 1e-7:  # float32 rounding of a half turn, where the reference library too takes a = 0
        bcd, rest = bcd / np.linalg.norm(bcd), 0.0
    a, (b, c, d) = math.sqrt(rest), bcd
    return np.array([
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ])  # fmt: skip


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """(b, c, d) with a >= 0 of a proper rotation: the dominant eigenvector of Bar-Itzhack's symmetric 4x4 matrix."""
    r = rotation
    k = np.array([
        [r[0, 0] + r[1, 1] + r[2, 2], r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]],
        [r[2, 1] - r[1, 2], r[0, 0] - r[1, 1] - r[2, 2], r[0, 1] + r[1, 0], r[0, 2] + r[2, 0]],
        [r[0, 2] - r[2, 0], r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], r[1, 2] + r[2, 1]],
        [r[1, 0] - r[0, 1], r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1]],
    ])  # fmt: skip
    a, *bcd = np.linalg.eigh(k)[1][:, -1]
    return np.array(bcd) * (-1.0 if a < 0 else 1.0)


def write(path: Path, volume: Volume, provenance: Mapping[str, str]) -> None:
    """Write (k, j, i) voxels as NIfTI-1; gzipped when the name says so.

    sform and qform carry the same matrix (both in float32, the format's precision). `provenance` fills the 79
    characters of the description.

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
    header["descrip"] = ("APFormerSlicer " + " ".join(" ".join(provenance.values()).split())).encode()[:79]
    voxels = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    if path.name.lower().endswith(".gz"):
        # mtime 0 and no name inside: the same result gives the same file.
        with path.open("wb") as plain, gzip.GzipFile("", "wb", compresslevel=4, fileobj=plain, mtime=0) as stream:
            _put(stream, header, voxels)
    else:
        with path.open("wb") as stream:
            _put(stream, header, voxels)


def _put(stream: gzip.GzipFile | io.BufferedWriter, header: np.ndarray, voxels: np.ndarray) -> None:
    stream.write(header.tobytes() + bytes(4))  # no extensions
    for slab in voxels:
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
    header["quatern"] = _quaternion(rotation * [1.0, 1.0, handedness])
    return header

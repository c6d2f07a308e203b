"""What the DICOM tests do to files that `write_dicom` wrote."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian


def stack(*z: float, tilt: float = 0.0) -> list[tuple[float, float, float]]:
    """Positions at these heights in mm."""
    return [(10.0, -20.0 + tilt * height, height) for height in z]


def edit(path: Path, **values: object) -> None:
    """Set attributes of a file, or remove those that are None."""
    slice_ = dcmread(path)
    for keyword, value in values.items():
        if value is None:
            delattr(slice_, keyword)
        else:
            setattr(slice_, keyword, value)
            if slice_[keyword].VR == "US or SS":
                slice_[keyword].VR = "SS" if slice_.PixelRepresentation else "US"
    slice_.save_as(path)


def fill(path: Path, values: np.ndarray) -> None:
    """Replace the voxels by (rows, columns) in the stored type."""
    edit(path, PixelData=np.ascontiguousarray(values).tobytes())


def by_height(files: list[Path]) -> list[Path]:
    """From the lowest position to the highest, in order of their names where two are in one place."""
    return sorted(files, key=lambda path: float(dcmread(path).ImagePositionPatient[2]))


def write_bare(path: Path, implicit: bool) -> None:
    """Take preamble, mark and meta information from a file."""
    slice_ = dcmread(path)
    del slice_.file_meta
    bare = Dataset()
    bare.update(slice_)
    bare.save_as(path, implicit_vr=implicit, little_endian=True, enforce_file_format=False)


def compress(path: Path, frames: list[bytes], syntax: str) -> None:
    """Replace the voxels by codestreams."""
    slice_ = dcmread(path)
    slice_.PixelData = encapsulate(frames)
    slice_["PixelData"].VR = "OB"
    slice_["PixelData"].is_undefined_length = True
    slice_.file_meta.TransferSyntaxUID = syntax
    slice_.save_as(path, enforce_file_format=True)


def overwrite(path: Path, tag: int, vr: bytes, value: bytes) -> None:
    """Put raw bytes of the same length into an element in explicit VR little endian."""
    head = struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value))
    data = path.read_bytes()
    at = data.index(head) + len(head)
    path.write_bytes(data[:at] + value + data[at + len(value) :])


def as_implicit(path: Path) -> None:
    """Write a file in implicit VR little endian."""
    slice_ = dcmread(path)
    slice_.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    slice_.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=True)


def as_big_endian(path: Path) -> None:
    """Write a file with voxels of 16 bits in explicit VR big endian."""
    slice_ = dcmread(path)
    list(slice_)  # decodes every element
    slice_.PixelData = np.frombuffer(slice_.PixelData, "<u2").astype(">u2").tobytes()
    slice_.set_original_encoding(False, False, "iso8859")
    slice_.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    slice_.save_as(path, enforce_file_format=True)


def value(path: Path, keyword: str) -> Any:
    """An attribute of a file."""
    return dcmread(path).get(keyword)

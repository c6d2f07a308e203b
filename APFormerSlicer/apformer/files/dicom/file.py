"""One DICOM file: recognised by its content, its header read without believing it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ...errors import InputError
from ..formats import damaged, unopened
from .mark import looks_like_dicom

if TYPE_CHECKING:
    from pydicom import Dataset

    Size = tuple[int, int, int]

DEFLATED = "1.2.840.10008.1.2.1.99"
_NO_IMAGES = ("SEG", "DICOMDIR")
_SUFFIXES = (".dcm", ".ima")
_MOST_FRAMES = 2**31 - 1  # NumberOfFrames is a DICOM integer string: 32 bits
_DECODED_EARLY = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "Modality",
    "SeriesDescription", "ImageType",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class DicomFile:
    """The header of a file, without its voxels; `pixels_at` is the byte where the element with the voxels begins."""

    path: Path
    header: Dataset
    pixels_at: int

    @cached_property
    def frames(self) -> int:
        return self.whole_number("NumberOfFrames", 1, 0, _MOST_FRAMES) or 1  # some writers put 0 for a single slice

    @cached_property
    def size(self) -> Size:
        """Rows, columns, samples per pixel."""
        rows, columns = (self.whole_number(keyword, 0, 1, 65535) for keyword in ("Rows", "Columns"))
        return rows, columns, self.whole_number("SamplesPerPixel", 1, 1, 4)

    @property
    def is_image(self) -> bool:
        return "Rows" in self.header and "Columns" in self.header and self.text("Modality") not in _NO_IMAGES

    @property
    def names_an_image(self) -> bool:
        """True when the kind of the file, as its header or its meta information names it, is one of images."""
        from pydicom.uid import UID

        named = (self.text("SOPClassUID"), self.meta("MediaStorageSOPClassUID"))
        return any("Image Storage" in UID(uid).name for uid in named)

    @property
    def modality(self) -> str:
        return self.text("Modality")

    def get(self, keyword: str) -> Any:
        """The value of an element, None where there is none. Raises InputError when it cannot be decoded."""
        with decoding(self.path, f"its {keyword}"):
            return self.header.get(keyword)

    def meta(self, keyword: str) -> str:
        """A value of the meta information, "" where there is none. Raises InputError when it cannot be decoded."""
        with decoding(self.path, f"its {keyword}"):
            return str(self.header.file_meta.get(keyword, ""))

    def text(self, keyword: str) -> str:
        """The value as text without blanks and zero bytes around; "" where there is none."""
        value = self.get(keyword)
        return "" if value is None else str(value).strip(" \0")

    def whole_number(self, keyword: str, absent: int, lowest: int, highest: int) -> int:
        """Raises InputError when the header has something else than one number from `lowest` to `highest` there."""
        value = self.get(keyword)
        if value is None or value == "":
            return absent
        try:
            number = int(value)
        except (TypeError, ValueError, OverflowError):
            raise damaged(self.path, f"its {keyword} is {str(value)[:40]!r}, no number") from None
        if not lowest <= number <= highest:
            raise damaged(self.path, f"its {keyword} is {number}")
        return number


def finite(path: Path, keyword: str, value: Any, absent: float) -> float:
    """`value` of an element as a number; `absent` where it is None or empty.

    Raises:
        InputError: it is something else.
    """
    if value is None or value == "":
        return absent
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise damaged(path, f"its {keyword} is {str(value)[:40]!r}, no number")
    return number


def might_be_dicom(path: Path) -> bool:
    """True for what a folder with DICOM files holds of them, told by the suffix or else by the content.

    An index (DICOMDIR) is none of them: what it refers to is looked for in the folder itself.
    """
    if path.name.startswith(".") or path.name.upper() == "DICOMDIR":
        return False
    return path.suffix.lower() in _SUFFIXES or looks_like_dicom(path)


def open_dicom(path: Path) -> DicomFile:
    """Read the header.

    Raises:
        InputError: it cannot be opened, is damaged, or no DICOM file.
    """
    try:
        with path.open("rb") as file, decoding(path, "its header"):
            opened = _parse(path, _Bounded(file))
    except OSError as error:
        raise unopened(path, error) from error
    for keyword in _DECODED_EARLY:  # pydicom decodes on access; find damage while the file's name is at hand
        opened.text(keyword)
    if opened.is_image:
        _ = opened.frames, opened.size
    elif opened.names_an_image:  # a damaged length swallows what follows it; a slice must not be missed silently
        raise damaged(path, "it should be an image, and its header does not say how large")
    return opened


@contextmanager
def decoding(path: Path, what: str) -> Iterator[None]:
    """Turn whatever pydicom raises on damaged files into an InputError that names `path`: it raises many kinds,
    RecursionError, NotImplementedError and MemoryError among them, when a file is read and when a value is asked for.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise damaged(path, f"{what} cannot be decoded ({str(error) or type(error).__name__})") from error


def _parse(path: Path, stream: _Bounded) -> DicomFile:
    import pydicom

    if _transfer_syntax(stream) == DEFLATED:
        raise InputError(
            f"{path} is stored deflated.",
            "This compression of DICOM has no checksum, so damage of the voxels could not be noticed.",
            "Export it uncompressed or with lossless JPEG, for example with dcmconv.",
        )
    stream.seek(0)
    # Old archives and some scanners leave out preamble and file meta; without a class it must look like an image.
    header = pydicom.dcmread(stream, stop_before_pixels=True, force=True)
    known = "SOPClassUID" in header or "MediaStorageSOPClassUID" in header.file_meta
    if not known and not ("Rows" in header and "Columns" in header and "Modality" in header):
        raise damaged(path, "it is not a DICOM file")
    return DicomFile(path, header, stream.tell())


def _transfer_syntax(stream: _Bounded) -> str:
    """The transfer syntax of the file meta, read before pydicom would inflate a whole file in memory."""
    from pydicom.filereader import read_dataset

    stream.seek(128)
    if stream.read(4) != b"DICM":
        stream.seek(0)
    if int.from_bytes(stream.read(2), "little") != 0x0002:
        return ""
    stream.seek(stream.tell() - 2)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, *_: tag >> 16 != 0x0002)  # type: ignore[arg-type]
    return str(meta.get("TransferSyntaxUID", ""))


class _Bounded:
    """A file that gives no more than it holds: `file.read(n)` of Python takes n bytes of memory first, and a damaged
    length asks for 4 GB."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size

    def read(self, count: int = -1) -> bytes:
        left = max(0, self._size - self._file.tell())
        return self._file.read(left if count < 0 else min(count, left))

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

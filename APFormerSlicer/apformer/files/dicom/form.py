"""How a DICOM file stores its voxels, as its header says, checked before any of them is read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ...errors import InputError
from ..formats import damaged
from .file import DicomFile, decoding, finite

if TYPE_CHECKING:
    from pydicom import Dataset

RLE = "1.2.840.10008.1.2.5"
IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
JPEG = {"1.2.840.10008.1.2.4." + number for number in ("50", "51", "57", "70")}
JPEG_LS = {"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"}
JPEG_2000 = {"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"}
_KNOWN = {IMPLICIT, EXPLICIT, BIG_ENDIAN, RLE} | JPEG | JPEG_LS | JPEG_2000
_GRAY = ("MONOCHROME1", "MONOCHROME2")
_ONE_SAMPLE = (*_GRAY, "PALETTE COLOR")
_THREE_SAMPLES = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")


@dataclass(frozen=True)
class PixelForm:
    """What the pixel module of a header says, in itself consistent.

    `syntax` is the transfer syntax; that of a file without meta is what its encoding shows. `allocated`, `stored` and
    `high` are in bits.
    """

    file: DicomFile
    frames: int
    rows: int
    columns: int
    samples: int
    allocated: int
    stored: int
    high: int
    signed: bool
    planar: bool
    photometric: str
    syntax: str

    @property
    def frame_values(self) -> int:
        return self.rows * self.columns * self.samples

    @property
    def is_gray(self) -> bool:
        return self.photometric in _GRAY

    @property
    def is_plain(self) -> bool:
        """True when the voxels lie in the file one by one, and need no table or formula of colours."""
        plain = self.photometric in (*_GRAY, "RGB") and self.allocated % 8 == 0
        return plain and self.syntax in (IMPLICIT, EXPLICIT, BIG_ENDIAN, RLE)

    @property
    def stored_bytes(self) -> int | None:
        """Length of the uncompressed voxels in the file; None for compressed ones."""
        if self.syntax not in (IMPLICIT, EXPLICIT, BIG_ENDIAN):
            return None
        values = self.frames * self.frame_values
        if self.photometric == "YBR_FULL_422":  # two pixels share their colour
            values = values * 2 // 3
        return (values * self.allocated + 7) // 8

    @property
    def dtype(self) -> np.dtype:
        """Type of the stored values, in the byte order of this computer."""
        return np.dtype(f"{'i' if self.signed else 'u'}{max(1, self.allocated // 8)}")

    @cached_property
    def rescale(self) -> tuple[float, float]:
        """Slope and intercept to the unit of the modality (HU for CT): 1 and 0 where the header gives none. As in ITK,
        they count whatever the kind of image, and a slope of 0 is 1."""
        header, path = self.file.header, self.file.path
        shared = self.file.get("SharedFunctionalGroupsSequence") or ()
        groups = [*shared[:1], *(self.file.get("PerFrameFunctionalGroupsSequence") or ())]
        with decoding(path, "the scale of its values"):
            given = [group.PixelValueTransformationSequence[0] for group in groups if _transforms(group)] or [header]
            pairs = {
                (
                    finite(path, "RescaleSlope", one.get("RescaleSlope"), 1.0) or 1.0,
                    finite(path, "RescaleIntercept", one.get("RescaleIntercept"), 0.0),
                )
                for one in given
            }
        if len(pairs) > 1:
            raise InputError(
                f"{path} scales its frames differently.",
                "Its intensities would not be comparable between slices.",
                "Convert it to single-frame DICOM or NIfTI first.",
            )
        return pairs.pop()

    @property
    def output_dtype(self) -> np.dtype:
        """The smallest type that holds all rescaled values that the stored bits can have, as GDCM chooses it; float32
        where slope or intercept are no whole numbers."""
        slope, intercept = self.rescale
        if not self.is_gray or (slope, intercept) == (1.0, 0.0):
            return self.dtype
        lowest, highest = (
            (-(2 ** (self.stored - 1)), 2 ** (self.stored - 1) - 1) if self.signed else (0, 2**self.stored - 1)
        )
        low, high = sorted((lowest * slope + intercept, highest * slope + intercept))
        if not (slope.is_integer() and intercept.is_integer()):
            return np.dtype(np.float32)
        kind = "u" if low >= 0 else "i"
        for bits in (8, 16, 32):
            least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if kind == "i" else (0, 2**bits - 1)
            if least <= low and high <= most:
                return np.dtype(f"{kind}{bits // 8}")
        return np.dtype(np.float32)

    @property
    def output_bytes(self) -> int:
        """Of all frames, as an array."""
        samples = 3 if self.photometric == "PALETTE COLOR" else self.samples
        return self.frames * self.rows * self.columns * samples * self.output_dtype.itemsize


def pixel_form(file: DicomFile) -> PixelForm:
    """Read and check the pixel module.

    Raises:
        InputError: it contradicts itself or the length of the file, or names a form that cannot be read.
    """
    rows, columns, samples = file.size
    allocated = file.whole_number("BitsAllocated", 16, 1, 32)
    stored = file.whole_number("BitsStored", allocated, 1, allocated)
    high = file.whole_number("HighBit", stored - 1, stored - 1, allocated - 1)
    photometric = file.text("PhotometricInterpretation").upper() or ("MONOCHROME2" if samples == 1 else "RGB")
    if allocated not in (1, 8, 16, 32):
        raise damaged(file.path, f"its BitsAllocated is {allocated}")
    if photometric not in (_ONE_SAMPLE if samples == 1 else _THREE_SAMPLES) or samples not in (1, 3):
        raise damaged(file.path, f"{samples} samples per pixel do not make {photometric}")
    form = PixelForm(
        file, file.frames, rows, columns, samples, allocated, stored, high,
        bool(file.whole_number("PixelRepresentation", 0, 0, 1)),
        bool(file.whole_number("PlanarConfiguration", 0, 0, 1)) and samples == 3,
        photometric, _syntax(file),
    )  # fmt: skip
    least = form.stored_bytes if form.stored_bytes is not None else file.frames  # no codec gives a frame for nothing
    if least > file.path.stat().st_size:
        raise damaged(file.path, f"it is shorter than the {file.frames} x {rows} x {columns} voxels of its header")
    return form


def _transforms(group: Dataset) -> bool:
    return bool(group.get("PixelValueTransformationSequence"))


def _syntax(file: DicomFile) -> str:
    named = file.meta("TransferSyntaxUID")
    implicit, little = file.header.original_encoding
    if named in ("", IMPLICIT, EXPLICIT, BIG_ENDIAN):  # what is found counts, not what is said
        return (IMPLICIT if implicit else EXPLICIT) if little is not False else BIG_ENDIAN
    if named not in _KNOWN:
        from pydicom.uid import UID

        raise InputError(
            f"{file.path} is stored as {UID(named).name}.",
            "That form of compression cannot be read here.",
            "Export it uncompressed or with lossless JPEG, for example with dcmconv or dcmdjpeg.",
        )
    return named

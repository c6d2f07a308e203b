"""DICOM images: which series a folder holds, and one of them as a volume. Pixels through GDCM in SimpleITK."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..volume import Source, Volume
from . import itk
from .dicom_stack import Plane, Stack, resample, stack_planes
from .formats import damaged, looks_like_dicom

if TYPE_CHECKING:
    from pydicom import Dataset

    Member = tuple[Path, Dataset]  # a file and its header

_NO_POSITION = "has no position in the patient; columns were taken to run to the left and rows to the back"
_DECODED_EARLY = (
    "Rows", "Columns", "SamplesPerPixel", "Modality", "SOPInstanceUID", "SeriesInstanceUID", "SeriesDescription",
)  # fmt: skip


@dataclass(frozen=True)
class Series:
    """One series of images in a folder; `slices` counts the frames of multi-frame files too."""

    uid: str
    description: str
    modality: str
    slices: int
    files: tuple[Path, ...]

    def __str__(self) -> str:
        return f"{self.uid} ({self.description or 'no description'}, {self.modality}, {self.slices} slices)"


def list_series(folder: Path | str) -> list[Series]:
    """The image series in `folder` and its subfolders, by description; segmentations and reports are left out.

    Raises:
        InputError: the folder cannot be listed, or a DICOM file in it is damaged.
    """
    found = [_series(uid, members) for uid, members in _grouped(Path(folder)).items()]
    return sorted(found, key=lambda series: (series.description, series.uid))


def read_folder(folder: Path, series_uid: str | None = None) -> Volume:
    """The one image series in `folder`, or the one named, as `read_file` gives it.

    Raises:
        InputError: no image series; several and none is named; no series of that UID; and what `read_file` raises.
    """
    grouped = _grouped(folder)
    if not grouped:
        raise InputError(
            f"{folder} holds no DICOM images.",
            "There is nothing to read as one volume.",
            "Name the folder with the DICOM files of the series, or a single image file.",
        )
    listing = "; ".join(str(_series(uid, members)) for uid, members in grouped.items())
    if series_uid is None and len(grouped) > 1:
        raise InputError(
            f"{folder} holds {len(grouped)} series: {listing}.",
            "Which one to segment is not known.",
            "Choose one by its UID.",
        )
    uid = next(iter(grouped)) if series_uid is None else series_uid
    if uid not in grouped:
        raise InputError(f"{folder} has no series {uid}.", f"It holds: {listing}.", "Choose one of these by its UID.")
    return _read_members(grouped[uid], str(folder) if len(grouped) == 1 else f"Series {uid} of {folder}", folder)


def read_file(path: Path) -> Volume:
    """One DICOM file: a slice, or a multi-frame volume, sorted along its normal and rescaled to its unit (HU for CT).

    Raises:
        InputError: damaged, no image, or slices that do not form one volume (see `stack_planes`).
    """
    return _read_members([(path, _header(path))], str(path), path)


def _grouped(folder: Path) -> dict[str, list[Member]]:
    """Series UID -> its images."""
    grouped: dict[str, list[Member]] = {}
    for path, header in _headers(folder):
        if _is_image(header):
            grouped.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((path, header))
    return grouped


def _series(uid: str, members: Sequence[Member]) -> Series:
    first = members[0][1]
    return Series(
        uid=uid,
        description=str(first.get("SeriesDescription", "")),
        modality=str(first.get("Modality", "unknown modality")),
        slices=sum(_frames(header) for _, header in members),
        files=tuple(path for path, _ in members),
    )


def _read_members(found: Sequence[Member], name: str, origin: Path) -> Volume:
    members, notes = _distinct(found, name)
    first = members[0][1]
    if not all(_is_image(header) for _, header in members):
        raise InputError(
            f"{name} is no image ({first.get('Modality', 'unknown kind')}).",
            "Only images can be read as a volume.",
            "Pass the image series itself.",
        )
    if len({(header.Rows, header.Columns, header.get("SamplesPerPixel", 1)) for _, header in members}) > 1:
        raise InputError(
            f"{name} has slices of different size.", "They do not form one volume.", "Choose a series of equal slices."
        )
    planes, thickness, more_notes = _geometry(members, name)
    notes += more_notes
    stack = stack_planes(planes, thickness, name)
    array = _pixels([path for path, _ in members], len(planes), stack, name)
    paths = tuple(members[n][0] for n in stack.order) if len(members) > 1 else (members[0][0],)
    source = Source(origin, paths if stack.even else (), str(first.get("SeriesInstanceUID", "")) or None, "dicom")
    matrix = itk.flip_lps_ras(stack.ijk_to_lps)
    return Volume(array, matrix, str(first.get("Modality", "")) or None, source, notes + stack.notes)


def _geometry(members: Sequence[Member], name: str) -> tuple[list[Plane], float, tuple[str, ...]]:
    """One plane per frame, the slice thickness in mm, and what to tell the user."""
    found: list[Plane | None] = []
    for path, header in members:
        try:
            found += _planes(header, name)
            thickness = _thickness(header)
            flat = _flat_plane(header)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError) as error:
            raise damaged(path, f"its geometry cannot be decoded ({error})") from error
    planes = [plane for plane in found if plane is not None]
    if len(planes) == len(found):
        return planes, thickness, ()
    if len(found) == 1:
        return [flat], thickness, (f"{name}: the slice {_NO_POSITION}",)
    raise InputError(
        f"{name} has {len(found)} slices without a position in the patient.",
        "They may be a film (cine, ultrasound) or out of order, and cannot be stacked into a volume.",
        "Choose a series with ImagePositionPatient, or pass one slice.",
    )


def _headers(folder: Path) -> Iterator[Member]:
    try:
        candidates = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        for path in candidates:
            if path.suffix.lower() in (".dcm", ".ima") or looks_like_dicom(path):
                yield path, _header(path)
    except OSError as error:
        raise InputError(
            f"{folder} could not be read: {error.strerror or error}.",
            "Its series are not known.",
            "Check the path and the permissions.",
        ) from error


def _header(path: Path) -> Dataset:
    import pydicom

    try:
        # Old archives leave out the preamble; a file without a SOP class is then no DICOM after all.
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        if "SOPClassUID" not in header and "MediaStorageSOPClassUID" not in header.file_meta:
            raise damaged(path, "it is not a DICOM file")
        for keyword in _DECODED_EARLY:  # pydicom decodes on access; find damage while the file's name is at hand
            header.get(keyword)
        _frames(header)
    except InputError:
        raise
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise damaged(path, str(error)) from error
    return header


def _distinct(members: Sequence[Member], name: str) -> tuple[list[Member], tuple[str, ...]]:
    """Drop copies of the same slice (the same SOP instance in two files)."""
    unique: dict[str, Member] = {}
    for path, header in members:
        unique.setdefault(str(header.get("SOPInstanceUID", path)), (path, header))
    copies = len(members) - len(unique)
    return list(unique.values()), ((f"{name}: {copies} copies of slices were ignored",) if copies else ())


def _is_image(header: Dataset) -> bool:
    return "Rows" in header and "Columns" in header and header.get("Modality") != "SEG"


def _frames(header: Dataset) -> int:
    return int(header.get("NumberOfFrames", 1) or 1)


def _planes(header: Dataset, name: str) -> list[Plane | None]:
    """One plane per frame; None where the header gives no place in the patient."""
    if "PerFrameFunctionalGroupsSequence" not in header:
        position, orientation = header.get("ImagePositionPatient"), header.get("ImageOrientationPatient")
        if not position or not orientation or _frames(header) > 1:
            return [None] * _frames(header)
        return [_plane(position, orientation, header.get("PixelSpacing"), name)]
    shared = header.SharedFunctionalGroupsSequence[0] if header.get("SharedFunctionalGroupsSequence") else None
    _check_one_rescale(header, name)
    planes: list[Plane | None] = []
    for frame in header.PerFrameFunctionalGroupsSequence:
        position = _group(frame, shared, "PlanePositionSequence", "ImagePositionPatient")
        orientation = _group(frame, shared, "PlaneOrientationSequence", "ImageOrientationPatient")
        spacing = _group(frame, shared, "PixelMeasuresSequence", "PixelSpacing")
        planes.append(_plane(position, orientation, spacing, name) if position and orientation else None)
    return planes


def _group(frame: Dataset, shared: Dataset | None, sequence: str, keyword: str) -> Any:
    for groups in (frame, shared):
        if groups is not None and groups.get(sequence):
            return groups[sequence].value[0].get(keyword)
    return None


def _check_one_rescale(header: Dataset, name: str) -> None:
    """GDCM applies one rescale to all frames; refuse the files where that would be wrong."""
    pairs = set()
    for frame in header.PerFrameFunctionalGroupsSequence:
        if frame.get("PixelValueTransformationSequence"):
            transform = frame.PixelValueTransformationSequence[0]
            pairs.add((float(transform.get("RescaleSlope", 1)), float(transform.get("RescaleIntercept", 0))))
    if len(pairs) > 1:
        raise InputError(
            f"{name} scales its frames differently.",
            "Its intensities would not be comparable between slices.",
            "Convert it to single-frame DICOM or NIfTI first.",
        )


def _plane(position: Any, orientation: Any, spacing: Any, name: str) -> Plane:
    if not spacing:
        raise InputError(
            f"{name} gives no pixel spacing.",
            "Sizes and volumes in mm cannot be computed.",
            "Export the series again from the scanner or archive.",
        )
    cosines = np.array([float(number) for number in orientation])
    between_rows, between_columns = (float(number) for number in spacing)
    where = np.array([float(number) for number in position])
    return Plane(where, cosines[:3], cosines[3:], (between_columns, between_rows))


def _flat_plane(header: Dataset) -> Plane:
    between_rows, between_columns = (float(number) for number in (header.get("PixelSpacing") or (1.0, 1.0)))
    x, y, _ = np.eye(3)
    return Plane(np.zeros(3), x, y, (between_columns, between_rows))


def _thickness(header: Dataset) -> float:
    """k spacing of a single slice in mm; 1 when the header gives none."""
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        value = header.get(keyword)
        if value is not None and math.isfinite(float(value)) and float(value) > 0:
            return float(value)
    return 1.0


def _pixels(files: Sequence[Path], frames: int, stack: Stack, name: str) -> np.ndarray:
    """(k, j, i) or (C, k, j, i) on the even grid. Files are read one by one: ITK's series reader takes the pixel type
    of the first file for all, which cuts fractions off where slopes differ (PET)."""
    if len(files) == 1:
        array = itk.array_of(itk.read_image(files[0]))
        if array.shape[-3] != frames:
            raise damaged(files[0], f"it holds {array.shape[-3]} of {frames} frames")
        if stack.order != tuple(range(frames)):
            array = array[..., list(stack.order), :, :]
    else:
        array = _stacked([files[n] for n in stack.order], name)
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return array if stack.even else resample(array, stack)


def _stacked(files: Sequence[Path], name: str) -> np.ndarray:
    whole: np.ndarray | None = None
    for k, path in enumerate(files):
        part = itk.array_of(itk.read_image(path))[..., 0, :, :]
        if whole is None:
            whole = np.empty((*part.shape[:-2], len(files), *part.shape[-2:]), part.dtype)
        if part.shape != (*whole.shape[:-3], *whole.shape[-2:]):
            raise InputError(
                f"{name} has slices of different size ({path.name}).",
                "They do not form one volume.",
                "Choose a series of equal slices.",
            )
        if not np.can_cast(part.dtype, whole.dtype):
            whole = whole.astype(np.result_type(part.dtype, whole.dtype))
        whole[..., k, :, :] = part
    if whole is None:
        raise InputError(f"{name} has no slices.", "There is nothing to read.", "Choose another series.")
    return whole

"""One slice of a DICOM file: where it lies in the patient, and what its header says of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from ...memory import require_memory
from ..formats import damaged
from .file import DicomFile, decoding, finite
from .stack import Plane

if TYPE_CHECKING:
    from pydicom import Dataset

_FRAME_BYTES = 1000  # that the place of a frame takes in memory, about
_THICKNESSES = ("SpacingBetweenSlices", "SliceThickness")


@dataclass(frozen=True, eq=False)
class Slice:
    """A frame of a file. `plane` is None where the header gives it no place in the patient, and `problem` says why
    that is an error, if it is one."""

    file: DicomFile
    frame: int
    plane: Plane | None
    problem: InputError | None = None

    @property
    def name(self) -> str:
        """For messages."""
        return self.file.path.name + (f" (frame {self.frame + 1})" if self.file.frames > 1 else "")

    @cached_property
    def is_localizer(self) -> bool:
        return "LOCALIZER" in self.file.text("ImageType").upper()

    def value(self, keyword: str) -> Any:
        """An attribute of this slice: of its frame, of the frames in common, or of the file; None where absent."""
        header = self.file.header
        with decoding(self.file.path, f"its {keyword}"):
            for groups in (_frame_groups(header, self.frame), _shared_groups(header)):
                for element in () if groups is None else groups:
                    if element.VR == "SQ" and element.value and keyword in element.value[0]:
                        return element.value[0].get(keyword)
            return header.get(keyword)

    @property
    def told_thickness(self) -> float | None:
        """From this slice to the next in mm, or else its own thickness; None when the header gives neither."""
        lengths = (finite(self.file.path, keyword, self.value(keyword), 0.0) for keyword in _THICKNESSES)
        return next((length for length in lengths if length > 0), None)

    @property
    def thickness(self) -> float:
        """k spacing of a single slice in mm; 1 when the header gives none."""
        return self.told_thickness or 1.0


def slices_of(file: DicomFile) -> list[Slice]:
    """One per frame.

    Raises:
        InputError: the geometry cannot be decoded, or there are more or fewer places than frames.
    """
    if file.frames > file.path.stat().st_size:  # a frame takes a byte at least
        raise damaged(file.path, f"it is too short for {file.frames} frames")
    require_memory(file.path, file.frames * _FRAME_BYTES)
    with decoding(file.path, "its geometry"):
        return list(_slices(file))


def flat_plane(file: DicomFile) -> Plane:
    """For a single slice without a place: columns run to the left, rows to the back.

    Raises:
        InputError: its spacing cannot be decoded.
    """
    x, y, _ = np.eye(3)
    with decoding(file.path, "its PixelSpacing"):
        return Plane(np.zeros(3), x, y, _spacing(file.header.get("PixelSpacing") or (1.0, 1.0)))


def _slices(file: DicomFile) -> Iterator[Slice]:
    header = file.header
    if "PerFrameFunctionalGroupsSequence" not in header:
        position, orientation = header.get("ImagePositionPatient"), header.get("ImageOrientationPatient")
        for frame in range(file.frames):
            placed = position and orientation and file.frames == 1
            yield (
                _placed(file, frame, position, orientation, header.get("PixelSpacing"))
                if placed
                else Slice(file, frame, None)
            )
        return
    frames = header.PerFrameFunctionalGroupsSequence
    if len(frames) != file.frames:
        raise damaged(file.path, f"it tells the places of {len(frames)} frames and has {file.frames}")
    for frame, groups in enumerate(frames):
        both = (groups, _shared_groups(header))
        position = _group(both, "PlanePositionSequence", "ImagePositionPatient")
        orientation = _group(both, "PlaneOrientationSequence", "ImageOrientationPatient")
        spacing = _group(both, "PixelMeasuresSequence", "PixelSpacing")
        if position and orientation:
            yield _placed(file, frame, position, orientation, spacing)
        else:
            yield Slice(file, frame, None)


def _placed(file: DicomFile, frame: int, position: Any, orientation: Any, spacing: Any) -> Slice:
    if not spacing:
        problem = InputError(
            f"{file.path} gives no pixel spacing.",
            "Sizes and volumes in mm cannot be computed.",
            "Export the series again from the scanner or archive.",
        )
        return Slice(file, frame, None, problem)
    cosines = np.array([float(number) for number in orientation])
    where = np.array([float(number) for number in position])
    if cosines.shape != (6,) or where.shape != (3,):
        raise ValueError(f"{len(cosines)} direction cosines and {len(where)} coordinates")
    return Slice(file, frame, Plane(where, cosines[:3], cosines[3:], _spacing(spacing)))


def _spacing(spacing: Any) -> tuple[float, float]:
    between_rows, between_columns = (float(number) for number in spacing)
    return between_columns, between_rows


def _group(groups: tuple[Dataset | None, ...], sequence: str, keyword: str) -> Any:
    for group in groups:
        if group is not None and group.get(sequence):
            return group[sequence].value[0].get(keyword)
    return None


def _frame_groups(header: Dataset, frame: int) -> Dataset | None:
    frames = header.get("PerFrameFunctionalGroupsSequence")
    return frames[frame] if frames else None


def _shared_groups(header: Dataset) -> Dataset | None:
    shared = header.get("SharedFunctionalGroupsSequence")
    return shared[0] if shared else None

"""DICOM images: which series a folder holds, and one of them as a volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...memory import require_memory
from ...volume import Source, Volume
from .. import itk
from .divide import OTHER_CONTRAST
from .file import DicomFile, open_dicom
from .form import pixel_form
from .pixels import Frames, memory_needed, read_frames
from .separate import Part, separate
from .series import Found, Series, find_series
from .slice import Slice, flat_plane, slices_of
from .stack import Plane, Stack, listed, resample, stack_planes

__all__ = ["Series", "list_series", "read_file", "read_folder"]

_NO_POSITION = "has no position in the patient; columns were taken to run to the left and rows to the back"
_AIR_HU, _SURELY_HU = -1000.0, -200.0  # nothing but CT in Hounsfield units has values below the second
_MOST_LISTED = 40
_FEWEST_ALTERNATING = 8
_CLOSE = 0.01  # of the range of the voxels: padding that close below them disturbs nothing


def list_series(folder: Path | str, *, skip: Sequence[str] = ()) -> list[Series]:
    """The image series in `folder` and its subfolders, by description; segmentations and reports are left out. A
    series that holds several volumes (echoes, acquisitions) is listed once for each.

    Args:
        skip: files to leave out: names, paths or patterns such as "loc*.dcm".

    Raises:
        InputError: the folder cannot be listed, or a DICOM file in it is damaged.
    """
    return [one.series for one in find_series(Path(folder), skip)[0]]


def read_folder(folder: Path, series_uid: str | None = None, skip: Sequence[str] = ()) -> Volume:
    """The one image series in `folder`, or the one named as `list_series` does, as `read_file` gives it.

    Args:
        skip: see `list_series`.

    Raises:
        InputError: no image series; several and none is named; no series of that UID; and what `read_file` raises.
    """
    found, skipped = find_series(folder, skip)
    if not found:
        raise InputError(
            f"{folder} holds no DICOM images.",
            "There is nothing to read as one volume.",
            "Name the folder with the DICOM files of the series, or a single image file.",
        )
    chosen = _choose(found, folder, series_uid)
    name = str(folder) if len(found) == 1 else f"Series {chosen.series.uid} of {folder}"
    volume = _read_part(chosen.part, name, folder)
    return Volume(volume.array, volume.ijk_to_ras, volume.modality, volume.source, (*volume.notes, *skipped))


def read_file(path: Path) -> Volume:
    """One DICOM file: a slice, or a multi-frame volume, sorted along its normal and rescaled to its unit (HU for CT).
    Voxels outside of what was scanned (PixelPaddingValue) get the lowest value of the others, which `notes` says.

    Raises:
        InputError: damaged, no image, larger than the memory, or slices that do not form one volume (see
            `stack_planes`).
    """
    file = open_dicom(path)
    if not file.is_image:
        raise InputError(
            f"{path} is no image ({file.modality or 'unknown kind'}).",
            "Only images can be read as a volume.",
            "Pass the image series itself.",
        )
    parts = separate(slices_of(file))
    if len(parts) > 1:
        raise InputError(
            f"{path} holds {len(parts)} volumes: {'; '.join(part.words for part in parts)}.",
            "Which one to segment is not known.",
            "Pass its folder, and choose one of the series listed for it; or export one volume from Slicer.",
        )
    return _read_part(parts[0], str(path), path)


def _choose(found: Sequence[Found], folder: Path, series_uid: str | None) -> Found:
    of_uid = [one for one in found if series_uid is None or one.series.uid == series_uid]
    if len(of_uid) == 1:
        return of_uid[0]
    volumes = [one for one in found if series_uid and one.series.uid.startswith(f"{series_uid}#")]
    offered = [str(one.series) for one in volumes or found]
    listing = "; ".join(offered[:_MOST_LISTED]) + ("; ..." if len(offered) > _MOST_LISTED else "")
    if of_uid or volumes:
        kind = "volumes in one series" if volumes else "series"
        raise InputError(
            f"{folder} holds {len(volumes or of_uid)} {kind}: {listing}.",
            "Which one to segment is not known.",
            "Choose one by its UID, with the part after the # if there is one.",
        )
    raise InputError(
        f"{folder} has no series {series_uid}.", f"It holds: {listing}.", "Choose one of these by its UID."
    )


def _read_part(part: Part, name: str, origin: Path) -> Volume:
    first = part.slices[0].file
    _check_sizes(part.slices, name)
    planes, notes = _planes(part.slices, name)
    stack = stack_planes(planes, part.slices[0].thickness, name, [one.name for one in part.slices])
    array, padded = _pixels([part.slices[n] for n in stack.order], stack, name)
    files = dict.fromkeys(part.slices[n].file.path for n in stack.order)
    source = Source(origin, tuple(files) if stack.even else (), first.text("SeriesInstanceUID") or None, "dicom")
    told = (*(f"{name}: {note}" for note in (*part.notes, *_about_uids(part.slices), *padded)), *notes, *stack.notes)
    return Volume(array, itk.flip_lps_ras(stack.ijk_to_lps), first.modality or None, source, told)


def _check_sizes(slices: Sequence[Slice], name: str) -> None:
    sizes = Counter(one.file.size for one in slices)
    usual = sizes.most_common(1)[0][0]
    odd = [one.name for one in slices if one.file.size != usual]
    if odd:
        raise InputError(
            f"{name} has slices of different size ({listed(odd)}).",
            "They do not form one volume.",
            "Choose a series of equal slices, or leave the others out (--skip FILE on the command line).",
        )


def _planes(slices: Sequence[Slice], name: str) -> tuple[list[Plane], tuple[str, ...]]:
    """Where each slice lies, and what to tell the user."""
    for one in slices:
        if one.problem is not None:
            raise one.problem
    placed = [one.plane for one in slices if one.plane is not None]
    if len(placed) == len(slices):
        return placed, ()
    if len(slices) == 1:
        return [flat_plane(slices[0].file)], (f"{name}: the slice {_NO_POSITION}",)
    lost = [one.name for one in slices if one.plane is None]
    raise InputError(
        f"{name} has {len(lost)} slices without a position in the patient ({listed(lost)}).",
        "They may be a film (cine, ultrasound) or out of order, and cannot be stacked into a volume.",
        "Choose a series with ImagePositionPatient, leave these out (--skip FILE on the command"
        " line), or pass one slice.",
    )


def _about_uids(slices: Sequence[Slice]) -> tuple[str, ...]:
    uids = Counter(one.file.text("SOPInstanceUID") for one in slices if one.frame == 0)
    missing, repeated = uids.pop("", 0), sum(count for count in uids.values() if count > 1)
    told = ", which careless anonymisers leave; they were told apart by their places"
    return (
        *((f"{missing} files have no SOPInstanceUID{told}",) if missing else ()),
        *((f"{repeated} files share a SOPInstanceUID{told}",) if repeated else ()),
    )


def _pixels(slices: Sequence[Slice], stack: Stack, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """(k, j, i) or (C, k, j, i) on the even grid, and what to tell the user."""
    _check_memory(slices, stack, name)
    array, padding = _stacked(slices, name)
    notes = () if padding is None else _fill(array, padding, slices[0].file.modality)
    return (array if stack.even else resample(array, stack)), (*notes, *_alternating(array))


def _alternating(array: np.ndarray) -> tuple[str, ...]:
    """A note where every other slice is brighter, as when two acquisitions lie between each other and nothing in their
    headers tells them apart."""
    length = array.shape[-3]
    if length < _FEWEST_ALTERNATING:
        return ()
    means = np.array([float(array[..., k, ::4, ::4].mean()) for k in range(length)])
    over_neighbours = (means[1:-1] - (means[:-2] + means[2:]) / 2) * np.where(np.arange(length - 2) % 2, -1.0, 1.0)
    if abs(np.median(over_neighbours)) <= OTHER_CONTRAST * float(array[..., ::4, ::4, ::4].std()):
        return ()
    return (
        "every other slice is brighter, as if two acquisitions lay between each other: look at it before you go on",
    )


def _check_memory(slices: Sequence[Slice], stack: Stack, name: str) -> None:
    """Ask for what the array, its padding and one file take; `read_frames` asks again for its file alone."""
    forms = [pixel_form(file) for file in {one.file: None for one in slices}]
    widest = max(form.output_bytes // form.frames for form in forms)
    growing = len({form.output_dtype for form in forms}) > 1  # then there are two for a moment
    arrays = len(slices) * (2 if growing else 1) + (0 if stack.even else stack.length)
    padding = len(slices) * forms[0].rows * forms[0].columns
    require_memory(name, arrays * widest + padding + max(map(memory_needed, forms)))


def _stacked(slices: Sequence[Slice], name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The slices one on the other in the type that holds all of them, and where they are padding. Slopes may differ
    between slices (PET)."""
    whole = padding = None
    read: tuple[DicomFile, Frames] | None = None
    for k, one in enumerate(slices):
        if read is None or read[0] is not one.file:
            read = one.file, read_frames(one.file)
        part = read[1].array[..., one.frame, :, :]
        if whole is None:
            whole = np.empty((*part.shape[:-2], len(slices), *part.shape[-2:]), part.dtype)
        if not np.can_cast(part.dtype, whole.dtype):
            wider = np.result_type(part.dtype, whole.dtype)
            whole = whole.astype(np.float32 if wider == np.float64 else wider)
        whole[..., k, :, :] = part
        if read[1].padding is not None:
            padding = np.zeros((len(slices), *part.shape[-2:]), bool) if padding is None else padding
            padding[k] = read[1].padding[one.frame]
    if whole is None:
        raise InputError(f"{name} has no slices.", "There is nothing to read.", "Choose another series.")
    return whole, padding


def _fill(array: np.ndarray, padding: np.ndarray, modality: str) -> tuple[str, ...]:
    """Give padding the lowest value of the other voxels, or that of air in a CT in HU: what was not scanned must not
    decide how intensities are scaled. Padding between the values of the others is left: nobody can tell it apart."""
    low, high = np.inf, -np.inf
    for k, mask in enumerate(padding):
        if not mask.all():
            valid = array[k][~mask]
            low, high = min(low, float(valid.min())), max(high, float(valid.max()))
    held = array[padding]
    if low > high:
        return ("all of its voxels are marked as padding (PixelPaddingValue)",)
    fill = min(low, _AIR_HU) if modality == "CT" and low < _SURELY_HU else low
    outside = (held < low - _CLOSE * (high - low)) | (held > high)
    if not outside.any():
        return ()
    held[outside] = fill
    array[padding] = held
    return (f"{int(outside.sum())} voxels of padding (PixelPaddingValue) were given the value {fill:g}",)

"""Reading: the format is chosen by suffix, or by content when the name says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..volume import Volume
from . import dicom, metaimage, nifti, nrrd, picture, slicer_segmentation
from .dicom.mark import looks_like_dicom
from .formats import IMAGE_SUFFIXES, require_file, suffix_of

_READERS = {
    ".seg.nrrd": slicer_segmentation.read,
    ".nii.gz": nifti.read,
    ".nii": nifti.read,
    ".nrrd": nrrd.read,
    ".nhdr": nrrd.read,
    ".mha": metaimage.read,
    ".mhd": metaimage.read,
    ".png": picture.read,
    ".jpg": picture.read,
    ".jpeg": picture.read,
}


_NOTES = {
    ".nii.gz": nifti.header_notes,
    ".nii": nifti.header_notes,
    ".nrrd": nrrd.header_notes,
    ".nhdr": nrrd.header_notes,
    ".mha": metaimage.header_notes,
    ".mhd": metaimage.header_notes,
}


def header_notes(path: Path | str) -> tuple[str, ...]:
    """What `read_volume` would note about the place of an image that a host has read itself, in the same words.

    Nothing for formats without such headers, and where the file is gone or cannot be read: the host has the image.
    """
    path = Path(path)
    look = _NOTES.get(suffix_of(path))
    try:
        return look(path) if look is not None and path.is_file() else ()
    except (InputError, OSError):
        return ()


def read_volume(path: Path | str, *, series_uid: str | None = None, skip: Sequence[str] = ()) -> Volume:
    """Read an image or label map: NIfTI, NRRD, MHA, .seg.nrrd, PNG, JPEG, a DICOM file, or a folder with DICOM files.

    Voxels keep their stored type (rescaled NIfTI and DICOM become the smallest type that holds them). Nothing is
    resampled, except DICOM slices with uneven gaps, which `notes` says.

    Args:
        series_uid: which series to read when a DICOM folder holds several, as `list_series` names it.
        skip: files of a DICOM folder to leave out: names, paths or patterns such as "loc*.dcm".

    Raises:
        InputError: the file is missing, unreadable, damaged or of an unknown format; has more than three dimensions,
            or geometry that cannot be trusted; several series and no `series_uid`.
    """
    path = Path(path)
    if path.is_dir():
        return dicom.read_folder(path, series_uid, skip)
    require_file(path)
    reader = _READERS.get(suffix_of(path))
    if reader is not None:
        return reader(path)
    if suffix_of(path) == ".dcm" or looks_like_dicom(path):
        return dicom.read_file(path)
    raise InputError(
        f"{path} is of an unknown format.",
        "Its name and content match none of the formats that can be read.",
        f"Use a DICOM folder, or a file ending in {', '.join(IMAGE_SUFFIXES)}.",
    )

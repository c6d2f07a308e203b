"""PNG and JPEG pictures: one slice of 1 mm pixels, columns towards the patient's left, rows towards the back."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import OutputError
from ..memory import require_memory
from ..volume import Source, Volume
from . import itk, png
from .formats import damaged

PICTURE_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_EXIF_ORIENTATION = 0x0112
_BYTES_PER_PIXEL = 12  # colour, once more in a decoder, and once more as a copy for the network


def read(path: Path) -> Volume:
    """Gray: (1, rows, columns), 8 or 16 bit. Colour: (3, 1, rows, columns), modality "RGB"; three equal channels are
    read as gray and transparency is dropped. The camera's rotation (EXIF) is undone.

    Raises:
        InputError: the file is damaged or not a picture.
    """
    pixels, turn = _decode(path)  # (rows, columns) or (rows, columns, 3)
    if pixels.ndim == 3 and np.array_equal(pixels[..., 0], pixels[..., 1]):
        pixels = pixels[..., 0] if np.array_equal(pixels[..., 0], pixels[..., 2]) else pixels
    modality = "RGB" if pixels.ndim == 3 else None
    array = pixels if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    array = np.ascontiguousarray(_upright(array, turn)[..., np.newaxis, :, :])
    return Volume(array, PICTURE_TO_RAS, modality=modality, source=Source(path, kind="picture"))


def _decode(path: Path) -> tuple[np.ndarray, int]:
    """Pixels and the EXIF orientation. Pillow rather than ITK, which accepts truncated JPEGs and fails on gray with
    transparency; but Pillow would cut colours of 16 bit to 8."""
    from PIL import Image, UnidentifiedImageError

    kind = _kind(path)
    deep = False
    if kind == "PNG":
        head = png.check(path)
        deep = head.depth == 16 and head.colour in (2, 6)  # with or without transparency
    try:
        with Image.open(path, formats=[kind]) as picture:
            require_memory(path, picture.width * picture.height * _BYTES_PER_PIXEL)
            turn = int(picture.getexif().get(_EXIF_ORIENTATION, 1))
            if deep:
                return np.moveaxis(itk.array_of(itk.read_image(path))[:3, 0], 0, -1), turn
            if picture.mode in ("1", "LA"):
                return np.asarray(picture.convert("L")), turn
            if picture.mode == "L" or picture.mode.startswith("I"):
                pixels = np.asarray(picture)
                return (pixels if pixels.dtype == np.uint8 else pixels.astype(np.uint16)), turn
            return np.asarray(picture.convert("RGB")), turn
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise damaged(path, str(error)) from error


def _kind(path: Path) -> str:
    """By content: Pillow would try every format it knows, some of them through other programs."""
    with path.open("rb") as stream:
        start = stream.read(8)
    if start.startswith(b"\x89PNG"):
        return "PNG"
    if start.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    raise damaged(path, "it is neither PNG nor JPEG")


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Undo EXIF orientation 2 to 8; rows and columns are the last two axes."""
    if orientation in (5, 6, 7, 8):
        array = np.swapaxes(array, -1, -2)
    if orientation in (3, 4, 7, 8):
        array = array[..., ::-1, :]
    if orientation in (2, 3, 6, 7):
        array = array[..., ::-1]
    return array


def write(path: Path, array: np.ndarray) -> None:
    """Write one slice, (1, rows, columns), as gray PNG of 8 or 16 bit.

    Raises:
        OutputError: several slices, or values that are not whole numbers from 0 to 65535.
    """
    import SimpleITK as sitk

    if array.shape[0] != 1:
        raise OutputError(
            f"{array.shape[0]} slices do not fit into a PNG.", "A PNG holds one slice.", "Write .nii.gz or .nrrd."
        )
    if array.dtype.kind not in "bui" or int(array.min()) < 0 or int(array.max()) > 65535:
        raise OutputError(
            "The values do not fit into a PNG.", "A PNG holds whole numbers from 0 to 65535.", "Write .nrrd instead."
        )
    pixels = array[0].astype(np.uint8 if int(array.max()) < 256 else np.uint16)
    itk.write_image(sitk.GetImageFromArray(np.ascontiguousarray(pixels)), path)

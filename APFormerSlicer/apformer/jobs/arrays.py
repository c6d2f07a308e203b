"""Handing an array over as files, which is faster than any pipe and needs no image format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from ..part import Part

IMAGE = "image.npy"


def array_fields(
    folder: Path,
    array: np.ndarray,
    ijk_to_ras: np.ndarray | Sequence[Sequence[float]],
    modality: str | None = None,
    *,
    picture: bool = False,
    name: str = "",
    maps: Sequence[str] = (),
) -> dict[str, Any]:
    """Write `array` into `folder` and return the fields of a `segment` request that concern it.

    It takes as long as the disk needs; hosts with windows call it in a thread of its own.

    Args:
        folder: private to the job; see `JobClient.folder`. The results will be `.npy` files in it too.
        array: (k, j, i), or (C, k, j, i) with C channels.
        ijk_to_ras: 4x4, mm.
        modality: "CT", "MR", "RGB" or None when unknown.
        picture: a photograph or drawing, whose voxels have no size.
        name: what the user calls the image; messages name it so.
        maps: also wanted: "uncertainty", "kept_tokens".
    """
    outputs = {wanted: str(folder / f"{wanted}.npy") for wanted in ("labels", *maps)}
    described = image_fields(folder / IMAGE, array, ijk_to_ras, modality, picture=picture, name=name)
    return {"array": described, "outputs": outputs}


def image_fields(
    file: Path,
    array: np.ndarray,
    ijk_to_ras: np.ndarray | Sequence[Sequence[float]],
    modality: str | None = None,
    *,
    picture: bool = False,
    name: str = "",
) -> dict[str, Any]:
    """Write `array` to `file` and return the field "array" of a request; arguments as of `array_fields`."""
    import numpy as np

    np.save(file, array, allow_pickle=False)  # a contiguous array is written by one call that lets other threads run
    return {"file": str(file), **about_fields(ijk_to_ras, modality, picture=picture, name=name)}


def about_fields(
    ijk_to_ras: np.ndarray | Sequence[Sequence[float]], modality: str | None, *, picture: bool, name: str
) -> dict[str, Any]:
    """What a request tells of an image besides its voxels."""
    import numpy as np

    about: dict[str, Any] = {"ijk_to_ras": np.asarray(ijk_to_ras, dtype=np.float64).tolist(), "picture": picture}
    if modality is not None:
        about["modality"] = modality
    return about | ({"name": name} if name else {})


def part_fields(file: Path, part: Part) -> dict[str, Any]:
    """Write the part to `file` and return the field of a request that `image.read_part` reads."""
    import numpy as np

    np.save(file, part.array, allow_pickle=False)
    return {"file": str(file), **part.place()}

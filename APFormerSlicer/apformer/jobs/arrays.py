"""Handing an array over as files, which is faster than any pipe and needs no image format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

IMAGE = "image.npy"


def array_fields(
    folder: Path,
    array: np.ndarray,
    ijk_to_ras: np.ndarray | Sequence[Sequence[float]],
    modality: str | None = None,
    *,
    picture: bool = False,
    maps: Sequence[str] = (),
) -> dict[str, Any]:
    """Write `array` into `folder` and return the fields of a `segment` or `preflight` request that concern it.

    Args:
        folder: private to the job; see `JobClient.folder`. The results will be `.npy` files in it too.
        array: (k, j, i), or (C, k, j, i) with C channels.
        ijk_to_ras: 4x4, mm.
        modality: "CT", "MR", "RGB" or None when unknown.
        picture: a photograph or drawing, whose voxels have no size.
        maps: also wanted: "uncertainty", "kept_tokens".
    """
    import numpy as np

    np.save(folder / IMAGE, array, allow_pickle=False)
    matrix = np.asarray(ijk_to_ras, dtype=np.float64).tolist()
    described = {"file": str(folder / IMAGE), "ijk_to_ras": matrix, "picture": picture}
    if modality is not None:
        described["modality"] = modality
    outputs = {name: str(folder / f"{name}.npy") for name in ("labels", *maps)}
    return {"array": described, "outputs": outputs}

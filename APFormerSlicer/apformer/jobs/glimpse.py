"""An image as an estimate sees it: its grid, and a few of its values. No voxels are copied or written for it.

Of a CT of 157 MB, some 40 000 voxels travel with the request itself, evenly strided: enough for what can be told of its
values, and for a piece of an image that the network can be timed on. How long pruning takes depends on what is seen.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .arrays import about_fields
from .image import NAMES, check_modality
from .messages import Fields, RequestError

if TYPE_CHECKING:
    import numpy as np

    from ..volume import Roi, Volume

MOST_VALUES = 40_000  # voxels; with 8 bytes each, in base64, 430 kB of a line of 1 MiB
_LONGEST_TEXT = 600_000  # characters of base64
_MOST_CHANNELS = 4
_TYPES = tuple(f"<{kind}{size}" for kind, sizes in (("u", "1248"), ("i", "1248"), ("f", "248")) for size in sizes)


def glimpse_fields(
    array: np.ndarray,
    ijk_to_ras: np.ndarray | Sequence[Sequence[float]],
    modality: str | None = None,
    *,
    picture: bool = False,
    name: str = "",
) -> dict[str, Any]:
    """The field "glimpse" of a `preflight` request; a few of the values of `array` are read, and nothing is written.

    Args:
        array: (k, j, i), or (C, k, j, i); of numbers.
        ijk_to_ras, modality, picture, name: as of `arrays.array_fields`.
    """
    import numpy as np

    steps = _steps(array.shape[-3:])
    places = [slice((n - 1) % step // 2, None, step) for n, step in zip(array.shape[-3:], steps, strict=True)]
    few = array[(slice(_MOST_CHANNELS), *places) if array.ndim == 4 else tuple(places)]
    few = few.astype(np.uint8) if few.dtype.kind == "b" else few
    few = np.ascontiguousarray(few, few.dtype.newbyteorder("<"))
    kind = f"<{few.dtype.kind}{few.dtype.itemsize}"  # NumPy writes those of one byte with another sign
    return {
        "shape": list(array.shape),
        "type": kind,
        "few": list(few.shape),
        "values": base64.b64encode(few.tobytes()).decode("ascii"),
        **about_fields(ijk_to_ras, modality, picture=picture, name=name),
    }


def _steps(shape_kji: Sequence[int]) -> list[int]:
    """Along k, j, i; of an axis of several voxels at least two are seen, or a volume would pass for a slice."""
    step = max(1, int((math.prod(shape_kji) / MOST_VALUES) ** (1 / 3)))
    while True:
        steps = [min(step, max(1, n - 1)) for n in shape_kji]
        if math.prod(math.ceil(n / one) for n, one in zip(shape_kji, steps, strict=True)) <= MOST_VALUES:
            return steps
        step += 1


@dataclass(frozen=True, eq=False)
class Glimpse:
    """What is known of an image.

    Attributes:
        grid: shape, type, geometry and source; of an image that was not read, the array is one zero many times over.
        few: values, evenly strided, with as many axes as the array of `grid`; all of them of an image that was read.
    """

    grid: Volume
    few: np.ndarray

    @staticmethod
    def of(volume: Volume) -> Glimpse:
        """All of an image that was read."""
        return Glimpse(volume, volume.array)

    @staticmethod
    def parse(fields: Fields) -> Glimpse:
        """What `glimpse_fields` gave.

        Raises:
            RequestError: something else.
        """
        import numpy as np

        from ..volume import Source, Volume

        shape, few_shape = (_shape(fields, name) for name in ("shape", "few"))
        kind = fields.choice("type", _TYPES)
        text, matrix = fields.text("values"), fields.matrix("ijk_to_ras")
        modality, picture = fields.optional_text("modality"), fields.flag("picture")
        name = (fields.optional_text("name") or "")[:NAMES]
        fields.close()
        check_modality(modality, fields.job)
        try:
            values = base64.b64decode(text[:_LONGEST_TEXT], validate=True)
            few = np.frombuffer(values, kind).reshape(few_shape)
        except (ValueError, binascii.Error) as error:
            raise RequestError(
                f"The request ({fields.job}) has 'values' that are not those of 'few' voxels."
            ) from error
        if len(shape) != len(few_shape) or not all(0 < a <= b for a, b in zip(few_shape, shape, strict=True)):
            raise RequestError(f"The request ({fields.job}) has 'few' voxels that are not those of a 'shape'.")
        source = Source(None, kind="picture" if picture else "memory", name=name)
        zeros = np.broadcast_to(np.zeros((), np.dtype(kind)), shape)
        return Glimpse(Volume(zeros, np.array(matrix), modality, source), few)

    def values_in(self, roi: Roi) -> np.ndarray:
        """Values for the voxels in `roi`, each of the nearest voxel that is known: (C, k, j, i) or (k, j, i)."""
        import numpy as np

        known, all_of = self.few.shape[-3:], self.grid.spatial_shape
        if known == all_of:
            return self.few[(..., *roi.slices_kji)]
        nearest = [
            np.arange(side.start, side.stop) * have // length
            for side, have, length in zip(roi.slices_kji, known, all_of, strict=True)
        ]
        values: np.ndarray = self.few[(..., *np.ix_(*nearest))]
        return values

    def seen(self, roi: Roi | None) -> Volume:
        """The region as far as it is known, for the checks of an image: its extent and whether it is a slice are those
        of the region, its values those of the whole image, since a small region may hold hardly one that is known."""
        whole = self.grid if roi is None else self.grid.cropped(roi)
        if self.few.shape == self.grid.array.shape:
            return whole.with_array(self.few if roi is None else self.few[(..., *roi.slices_kji)])
        flat = [slice(0, 1) if length == 1 else slice(None) for length in whole.spatial_shape]
        few = self.few[(..., *flat)]
        matrix = whole.ijk_to_ras.copy()
        for axis in range(3):
            matrix[:3, axis] *= whole.spatial_shape[2 - axis] / few.shape[-1 - axis]
        return replace(whole, array=few, ijk_to_ras=matrix)


def _shape(fields: Fields, name: str) -> tuple[int, ...]:
    """3 numbers, or 4 where the first is that of channels."""
    numbers = fields.counts(name)
    if len(numbers) not in (3, 4) or 0 in numbers:
        raise RequestError(f"The request ({fields.job}) needs {name!r}: 3 or 4 whole numbers from 1.")
    return numbers

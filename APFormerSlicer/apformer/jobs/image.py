"""The image a request means: a file, a DICOM folder, or an array that the host wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .messages import Fields, RequestError

if TYPE_CHECKING:
    from ..volume import Volume

MODALITIES = 20  # characters; DICOM's have two


@dataclass(frozen=True)
class Image:
    """Where the voxels are.

    Attributes:
        path: an image file, a DICOM folder, or a `.npy` file where `ijk_to_ras` is given.
        series: which series of a DICOM folder.
        ijk_to_ras, modality, picture: what a `.npy` file cannot tell; see `arrays.array_fields`.
    """

    path: Path
    series: str | None = None
    ijk_to_ras: list[list[float]] | None = None
    modality: str | None = None
    picture: bool = False

    @staticmethod
    def parse(fields: Fields) -> Image:
        """From "image" (and "series"), or from "array"."""
        if fields.has("image") == fields.has("array"):
            raise RequestError(f"The request ({fields.job}) needs either 'image' or 'array'.")
        if fields.has("image"):
            return Image(fields.path("image"), fields.optional_text("series"))
        array = fields.section("array")
        image = Image(
            array.path("file"),
            None,
            array.matrix("ijk_to_ras"),
            array.optional_text("modality"),
            array.flag("picture"),
        )
        array.close()
        if len(image.modality or "") > MODALITIES:
            raise RequestError(f"The request ({fields.job}) has a 'modality' of more than {MODALITIES} characters.")
        return image

    def read(self) -> Volume:
        """The volume.

        Raises:
            InputError: it cannot be read.
        """
        from ..files import read_volume

        if self.ijk_to_ras is not None:
            return self._read_array()
        return read_volume(self.path, series_uid=self.series if self.path.is_dir() else None)

    def _read_array(self) -> Volume:
        import numpy as np

        from ..volume import Source, Volume

        try:
            array = np.load(self.path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"The array {self.path} could not be read ({type(error).__name__}).",
                "There is no image to work on.",
                "Send it again; if it happens again, check that the disk is not full.",
            ) from error
        source = Source(None, kind="picture" if self.picture else "memory")
        return Volume(array, np.array(self.ijk_to_ras), self.modality, source)

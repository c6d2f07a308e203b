"""The image a request means: a file, a DICOM folder, or an array that the host wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .messages import Fields, RequestError

if TYPE_CHECKING:
    import numpy as np

    from ..part import Part
    from ..volume import Volume

MODALITIES = 20  # characters; DICOM's have two
NAMES = 500  # characters of what a user calls an image; longer ones are cut


@dataclass(frozen=True)
class Image:
    """Where the voxels are.

    Attributes:
        path: an image file, a DICOM folder, or a `.npy` file where `ijk_to_ras` is given.
        series: which series of a DICOM folder.
        ijk_to_ras, modality, picture, name: what a `.npy` file cannot tell; see `arrays.array_fields`.
    """

    path: Path
    series: str | None = None
    ijk_to_ras: list[list[float]] | None = None
    modality: str | None = None
    picture: bool = False
    name: str = ""

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
            (array.optional_text("name") or "")[:NAMES],
        )
        array.close()
        check_modality(image.modality, fields.job)
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

        array = load_array(self.path)
        source = Source(None, kind="picture" if self.picture else "memory", name=self.name)
        return Volume(array, np.array(self.ijk_to_ras), self.modality, source)


def check_modality(modality: str | None, job: str) -> None:
    """Raises RequestError for a modality that cannot be one."""
    if len(modality or "") > MODALITIES:
        raise RequestError(f"The request ({job}) has a 'modality' of more than {MODALITIES} characters.")


def load_array(path: Path) -> np.ndarray:
    """The array that a host wrote.

    Raises:
        InputError: it cannot be read.
    """
    import numpy as np

    try:
        array: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"The array {path} could not be read ({type(error).__name__}).",
            "There is no image to work on.",
            "Send it again; if it happens again, check that the disk is not full.",
        ) from error
    return array


@dataclass(frozen=True)
class PartFile:
    """A label map that a host wrote with `arrays.part_fields`."""

    path: Path
    place: dict[str, list[int]]

    @staticmethod
    def parse(fields: Fields) -> PartFile:
        """From the section that tells of it."""
        place = {name: list(fields.counts(name)) for name in ("start_kji", "shape_kji")}
        part = PartFile(fields.path("file"), place)
        fields.close()
        return part

    def read(self) -> Part:
        """Raises InputError when it cannot be read, or cannot be there."""
        from ..part import Part

        return Part.at(load_array(self.path), self.place)

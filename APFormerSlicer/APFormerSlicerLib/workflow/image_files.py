"""Image files and DICOM folders of a work list: found, and read in a thread of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from apformer.volume import Volume

Stamp = tuple[int, int] | None


@dataclass(frozen=True)
class ImageFile:
    """An image to be loaded. `name`: unique in its folder. `patient`: whose it is, as far as the name tells."""

    path: Path
    name: str
    patient: str

    def stamp(self) -> Stamp:
        """Changes when the file does; None for a folder, and for a file that is gone."""
        try:
            told = self.path.stat()
        except OSError:
            return None
        return (told.st_mtime_ns, told.st_size) if self.path.is_file() else None


@dataclass(frozen=True)
class ImagesFound:
    """What there is in a folder. `note`: which files were taken as one patient's; None where each is a patient."""

    images: tuple[ImageFile, ...]
    note: str | None


@dataclass(frozen=True)
class ImageRead:
    """An image, and whose it is: the DICOM patient ID or, where there is none, what the name tells. The voxels are
    contiguous and belong to nobody else, so a node can have them without a copy."""

    volume: Volume
    patient: str
    stamp: Stamp


def images_in(folder: Path) -> ImagesFound:
    """The image files in a folder and the DICOM folders below it; a folder with DICOM files is one image.

    Raises:
        InputError: there is none, or the folder cannot be read.
    """
    from apformer.commands.cases import find_cases
    from apformer.datasets.identity import name_patients

    cases = find_cases([folder])[0]
    patients, note = name_patients([case.stem for case in cases])
    found = (ImageFile(case.source, case.stem, patient) for case, patient in zip(cases, patients, strict=True))
    return ImagesFound(tuple(found), note)


def read_image_file(image: ImageFile) -> ImageRead:
    """Read it; touches no node.

    Raises:
        InputError: it cannot be read.
    """
    from apformer.datasets.identity import dicom_patient
    from apformer.files import read_volume

    stamp = image.stamp()
    volume = read_volume(image.path)
    own = volume.with_array(np.require(volume.array, requirements=("C", "O", "W")))
    return ImageRead(own, dicom_patient(volume, image.path) or image.patient, stamp)

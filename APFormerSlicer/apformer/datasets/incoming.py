"""What a host or a user brings: an image and its labels, read, checked, and stripped of who it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..bundles.labels import Label
from ..checks import check_image
from ..errors import InputError
from ..files import read_volume, suffix_of
from ..grid import put_on_grid
from ..hounsfield import doubtful_ct
from ..label_maps import names_in, read_label_map, whole_numbers
from ..volume import Volume
from .case_files import anonymous
from .identity import dicom_patient
from .table import to_table


def read_image(
    image: Path | Volume, series_uid: str | None, patient: str | None, skip: Sequence[str] = ()
) -> tuple[Volume, str, tuple[str, ...]]:
    """The image without anything that names the patient, the patient's identity, and what to tell the user.

    Args:
        series_uid, skip: see `read_volume`.
        patient: the identity, where it is known; else the DICOM patient ID, else the file's name.

    Raises:
        InputError: the image cannot be used, or a volume without file comes without a patient.
    """
    volume = image if isinstance(image, Volume) else read_volume(image, series_uid=series_uid, skip=skip)
    check_image(volume)
    identity, notes = (patient or "").strip(), volume.notes
    if not identity and isinstance(image, Volume):
        raise InputError(
            "It is not known of which patient the image is.",
            "Cases are divided by patient for training and validation.",
            "Give the patient's ID; it is kept only as a pseudonym.",
        )
    if not identity and isinstance(image, Path):
        identity = dicom_patient(volume, image) or ""
    if not identity and isinstance(image, Path):
        identity = image.name[: len(image.name) - len(suffix_of(image))] or image.name
        notes += ("no patient was given: the image was taken as that of a patient of its own",)
    return anonymous(volume), identity, notes


def doubts(volume: Volume, modality: str | None) -> tuple[str, ...]:
    """What the user should know of the values of an image of that modality."""
    if modality != "CT" or volume.channels != 1 or volume.source.kind == "picture":
        return ()
    doubt = doubtful_ct(volume)
    return () if doubt is None else (doubt,)


@dataclass(frozen=True)
class Incoming:
    """Labels as a file or host gives them, and how they become those of a data set.

    Attributes:
        labels: the file, or a label map.
        names: label value -> name; None: those in the file, else the values are the table's.
        mapping: see `table.read_mapping`.
        threshold: see `label_maps.read_label_map`.
    """

    labels: Path | Volume
    names: Mapping[int, str] | None = None
    mapping: Mapping[str, str | None] | None = None
    threshold: bool = False

    def read(self, image: Volume, table: Sequence[Label]) -> tuple[np.ndarray, tuple[str, ...]]:
        """uint8 (k, j, i) with the values of `table`, on the grid of `image`, and what to tell the user; see
        `to_table` and `put_on_grid`.

        Raises:
            InputError: the labels cannot be read, or are on another grid.
            ConfigError: labels that the table does not have.
        """
        given, names = self.labels, self.names
        if isinstance(given, Volume):
            volume = whole_numbers(given)
        else:
            volume = read_label_map(given, threshold=self.threshold)
            names = names_in(given) if names is None else names
        array = to_table(volume, table, names=names, mapping=self.mapping)
        placed = put_on_grid(replace(volume, array=array), image)
        return placed.array, placed.notes

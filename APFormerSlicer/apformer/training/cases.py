"""Labelled cases of a Decathlon-style folder, their split by patient, and their prepared form on disk."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import files
from ..bundles.preprocessing import Preprocessing
from ..errors import ConfigError, InputError
from ..inference.preprocess import IntensityScaling, model_axes, model_size, resize
from ..volume import Volume
from .config import Split


@dataclass(frozen=True)
class Case:
    """One labelled image: its name, its patient, and where the two files are.

    `revision` tells apart versions of its labels; prepared forms of another revision are not used.
    """

    name: str
    patient: str
    number: int
    image: Path
    label: Path
    revision: str = ""


class Labelled(NamedTuple):
    """A case as read: image, labels, and where a person has corrected what a model proposed (k, j, i), if known."""

    image: Volume
    label: Volume
    corrected: np.ndarray | None = None


def read_case(case: Case) -> Labelled:
    """The two files of a case.

    Raises:
        InputError: one cannot be read.
    """
    return Labelled(files.read_volume(case.image), files.read_volume(case.label))


def _refuse(what: str, remedy: str) -> ConfigError:
    return ConfigError(what, "The data set cannot be trained on.", remedy)


def read_dataset(folder: Path, split: Split) -> list[Case]:
    """The cases `dataset.json` lists under "training", in its order.

    Raises:
        ConfigError: no or malformed dataset.json, a file missing, a name `split.pattern` does not match.
    """
    try:
        listed = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["training"]
        pairs = [(folder / item["image"], folder / item["label"]) for item in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _refuse(
            f"{folder} has no usable dataset.json ({error}).",
            "Point to a folder in Medical Segmentation Decathlon layout: dataset.json, imagesTr, labelsTr.",
        ) from error
    cases = []
    for image, label in pairs:
        match = re.search(split.pattern, image.name)
        if match is None:
            raise _refuse(
                f"split.pattern does not match {image.name}.", "Correct [split] pattern in the configuration."
            )
        missing = [path for path in (image, label) if not path.is_file()]
        if missing:
            raise _refuse(f"{missing[0]} is listed in dataset.json but missing.", "Restore the file or the list.")
        name = re.sub(r"\.(nii(\.gz)?|nrrd|mha|png|jpe?g)$", "", image.name)
        patient = match.groupdict().get("patient") or match.group(0)
        cases.append(Case(name, patient, int(match["number"]), image, label))
    return cases


def split_cases(cases: Sequence[Case], split: Split) -> tuple[list[Case], list[Case]]:
    """(training, validation) by the rule in `split`; a patient is in one of them only.

    Raises:
        ConfigError: either side is empty.
    """
    validation = [case for case in cases if case.number % split.modulus == split.remainder]
    training = [case for case in cases if case.number % split.modulus != split.remainder]
    if not training or not validation:
        raise _refuse(
            f"The split rule leaves {len(training)} training and {len(validation)} validation cases.",
            "Add cases, or change [split] in the configuration.",
        )
    return training, validation


def prepare(
    image: Volume, label: Volume, preprocessing: Preprocessing, corrected: np.ndarray | None = None
) -> tuple[Tensor, Tensor]:
    """Image and labels as the network meets them, before the patch is cut.

    Returns: float32 (C, k, j, i) scaled and resampled; uint8 (1 or 2, k, j, i) by nearest neighbour: labels, and where
        they were `corrected` (bool (k, j, i) on the image's grid) if that is given.
    """
    if image.spatial_shape != label.spatial_shape:
        raise InputError(
            f"Image and labels have different grids: {image.spatial_shape} and {label.spatial_shape}.",
            "Labels cannot be matched to voxels.",
            "Resample the labels to the image's grid.",
        )
    change = model_axes(image, preprocessing)
    size = model_size(image, preprocessing, change)
    scaling = IntensityScaling.for_array(image.array, preprocessing.intensity)
    pixels = scaling.apply(change.apply(image.array))
    pixels = pixels if pixels.ndim == 4 else pixels[None]
    maps = [label.array, *([] if corrected is None else [corrected])]
    target = torch.from_numpy(np.stack([np.ascontiguousarray(change.apply(each)) for each in maps]).astype(np.uint8))
    if preprocessing.spatial_dims == 2:
        pixels = resize(pixels.transpose(0, 1), size).transpose(0, 1)
        slices = F.interpolate(target.transpose(0, 1).float(), size=size, mode="nearest-exact")
        target = slices.transpose(0, 1).to(torch.uint8)
    else:
        pixels = resize(pixels[None], size)[0]
        target = F.interpolate(target[None].float(), size=size, mode="nearest-exact")[0].to(torch.uint8)
    return pixels.contiguous(), target.contiguous()


class PreparedCases:
    """Cases prepared once and kept on disk, so that memory does not grow with their number.

    Each case is two .npy files; a 2D data set serves their slices one by one, a 3D one whole volumes.

    Args:
        folder: where the prepared form is kept; it must not be shared with other preprocessing.
        read: how a case is read.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        folder: Path,
        preprocessing: Preprocessing,
        read: Callable[[Case], Labelled] = read_case,
    ) -> None:
        self.cases = list(cases)
        self.folder = folder
        self.preprocessing = preprocessing
        self.items: list[tuple[int, int | None]] = []  # (case, slice or None for the whole volume)
        self._read = read

    def build(
        self,
        progress: Callable[[int, int], None] = lambda done, total: None,
        skip: Callable[[Case, InputError], None] | None = None,
    ) -> None:
        """Read, prepare and store every case that is not stored yet.

        Args:
            skip: told of a case that cannot be read, which is then left out; without it the error is raised.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for index, case in enumerate(self.cases):
            label_path = self._paths(case)[1]
            try:
                if not all(path.exists() for path in self._paths(case)):
                    self._store(case)
                depth = np.load(label_path, mmap_mode="r").shape[1]
            except InputError as error:
                if skip is None:
                    raise
                skip(case, error)
                continue
            slices: list[int | None] = list(range(depth)) if self.preprocessing.spatial_dims == 2 else [None]
            self.items += [(index, k) for k in slices]
            progress(index + 1, len(self.cases))

    def _store(self, case: Case) -> None:
        image, label, corrected = self._read(case)
        pixels, target = prepare(image, label, self.preprocessing, corrected)
        # The labels last: a run that is killed in between leaves no case that looks prepared.
        for path, array in zip(self._paths(case), (pixels.numpy().astype(np.float16), target.numpy()), strict=True):
            with files.atomic_path(path) as temporary, temporary.open("wb") as stream:
                np.save(stream, array)

    def _paths(self, case: Case) -> tuple[Path, Path]:
        stem = case.name + (f"-{case.revision}" if case.revision else "")
        return self.folder / f"{stem}.image.npy", self.folder / f"{stem}.label.npy"

    def __len__(self) -> int:
        return len(self.items)

    def item(self, index: int) -> tuple[Tensor, Tensor]:
        """float32 (C, *spatial) and uint8 (1 or 2, *spatial) of one slice or volume: see `prepare`.

        Raises:
            InputError: its prepared files are missing or damaged.
        """
        case, k = self.items[index]
        image_path, label_path = self._paths(self.cases[case])
        try:
            pixels: Any = np.load(image_path, mmap_mode="r")
            target: Any = np.load(label_path, mmap_mode="r")
            if k is not None:
                pixels, target = pixels[:, k], target[:, k]
            return torch.from_numpy(np.array(pixels, dtype=np.float32)), torch.from_numpy(np.array(target))
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"The prepared form of {self.cases[case].name} cannot be read ({error}).",
                "It was removed or damaged while it was in use.",
                "Start the training again: cases are prepared anew when their prepared form is missing.",
            ) from error

    def case(self, index: int) -> Case:
        """The case that an item belongs to."""
        return self.cases[self.items[index][0]]

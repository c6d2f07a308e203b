"""Labelled cases of a Decathlon-style folder, their split by patient, and their prepared form on disk."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import files
from ..bundles.labels import HIGHEST_LABEL, Label
from ..bundles.preprocessing import Preprocessing
from ..datasets.case import UNKNOWN as UNKNOWN_LABEL
from ..datasets.listing import read_listing, stem_of
from ..datasets.table import IGNORE
from ..errors import ConfigError, InputError
from ..grid import put_on_grid
from ..inference.preprocess import IntensityScaling, model_axes, model_size, resize
from ..label_maps import WHITE, read_label_map
from ..names import same
from ..volume import Volume, check_field_of_view
from .config import Split


@dataclass(frozen=True)
class Case:
    """One labelled image: its name, its patient, and where the two files are.

    `revision` tells apart versions of its labels; prepared forms of another revision are not used. `values`: value in
    the label map -> the model's, by name; empty where names are not known, and values are the model's. `labelled`:
    values in the label map that were outlined; None: all.
    """

    name: str
    patient: str
    number: int
    image: Path
    label: Path
    revision: str = ""
    values: tuple[tuple[int, int], ...] = ()
    labelled: tuple[int, ...] | None = None

    @property
    def missing(self) -> frozenset[int]:
        """The model's values of the structures that were not outlined: unknown in this case, not absent."""
        if self.labelled is None:
            return frozenset()
        return frozenset(ours for theirs, ours in self.values if theirs not in self.labelled) - {0}


# Marks of voxels: a person has corrected what a model proposed; what it is, nobody knows.
CORRECTED, UNKNOWN = 1, 2
PLACES = 64  # voxels that stand for all of a structure when one of them is drawn


class Labelled(NamedTuple):
    """A case as read: image, labels, and its marks, uint8 (k, j, i), where any case of the set may have some.

    Voxels that are marked as UNKNOWN are 0 in the labels, and are neither learned nor judged.
    """

    image: Volume
    label: Volume
    marks: np.ndarray | None = None


def read_case(case: Case) -> Labelled:
    """The two files of a case; the labels are whole numbers up to 255 on the image's grid, and the notes of their
    volume tell what a user should know.

    Raises:
        InputError: one cannot be read, or they do not belong together.
    """
    image = files.read_volume(case.image)
    label = put_on_grid(read_label_map(case.label), image)
    marks = None
    if case.values:
        values = dict(case.values)
        label = _named(label, values, case)
        marks = _unknown(label) if UNKNOWN_LABEL in values.values() else None
    if marks is not None:
        label = label.with_array(np.where(marks, 0, label.array))
    highest = int(label.array.max(initial=0))
    if highest > HIGHEST_LABEL:
        raise InputError(
            f"{case.label} has label {highest}.",
            f"Labels of a model are numbers from 1 to {HIGHEST_LABEL}.",
            "Write the labels with smaller numbers, or name them in dataset.json: then names decide.",
        )
    return Labelled(image, label.with_array(label.array.astype(np.uint8)), marks)


def _unknown(label: Volume) -> np.ndarray:
    return np.where(label.array == UNKNOWN_LABEL, np.uint8(UNKNOWN), np.uint8(0))


def _named(label: Volume, values: dict[int, int], case: Case) -> Volume:
    """The label map with the model's values; what has no name is background, which a note says."""
    found = {int(value) for slab in label.array for value in np.unique(slab)} - {0}
    if found == {WHITE} and len(values) == 1:  # a picture of a mask: black and white, and one thing to be white
        values = {WHITE: next(iter(values.values()))}
    changed = np.zeros(label.spatial_shape, np.uint8)
    for value in found & set(values):
        changed[label.array == value] = values[value]
    unknown = sorted(found - set(values))
    listed = ", ".join(map(str, unknown))
    note = f"{case.label.name} has values that no label has, taken as background: {listed}"
    return replace(label, array=changed, notes=(*label.notes, *((note,) if unknown else ())))


def _refuse(what: str, remedy: str) -> ConfigError:
    return ConfigError(what, "The data set cannot be trained on.", remedy)


def read_dataset(folder: Path, split: Split) -> list[Case]:
    """The cases `dataset.json` lists under "training", in its order.

    Raises:
        ConfigError: no or malformed dataset.json, a file missing, several files for one image, a name that
            `split.pattern` does not match.
    """
    listing = read_listing(folder)
    cases = []
    for pair in listing.pairs:
        image, label = pair.images[0], pair.labels
        if len(pair.images) > 1:
            raise _refuse(
                f"{pair.stem} has a file for each of {len(pair.images)} channels.",
                "Import the folder into a data set of its own, which joins them: `apformer dataset import-decathlon`.",
            )
        match = re.search(split.pattern, image.name)
        if match is None:
            raise _refuse(
                f"split.pattern does not match {image.name}.", "Correct [split] pattern in the configuration."
            )
        missing = [path for path in (image, label) if not path.is_file()]
        if missing:
            raise _refuse(f"{missing[0]} is listed in dataset.json but missing.", "Restore the file or the list.")
        patient = match.groupdict().get("patient") or match.group(0)
        number = int(match["number"])
        cases.append(Case(stem_of(image), patient, number, image, label, labelled=pair.labelled))
    return cases


def by_name(cases: Sequence[Case], folder: Path, labels: Sequence[Label]) -> tuple[list[Case], tuple[str, ...]]:
    """The cases with the values of `labels`, matched with the names in dataset.json, and what to tell the user.

    Raises:
        ConfigError: dataset.json names its labels, and not all of these are among them.
    """
    names = read_listing(folder).names
    if not names:
        pairs = tuple((label.value, label.value) for label in labels)
        note = "dataset.json does not name its labels: their numbers were taken as the model's."
        return [replace(case, values=pairs) for case in cases], (note,)
    values = {}
    for label in labels:
        theirs = next((value for value, name in names.items() if same(name, label.name)), None)
        if theirs is None:
            raise _refuse(
                f"The data set has no label {label.name!r}; it has: {', '.join(names.values())}.",
                "Labels are matched by name: use the data set's name in [[labels]] of the configuration, or correct "
                "dataset.json.",
            )
        values[theirs] = label.value
    ignored = next((value for value, name in names.items() if value not in values and same(name, IGNORE)), None)
    if ignored is not None and UNKNOWN_LABEL in values.values():
        raise _refuse(
            f"The data set has voxels to ignore, and the configuration has a label {UNKNOWN_LABEL}.",
            f"Give the label a value below {UNKNOWN_LABEL}: that one stands for what nobody knows.",
        )
    others = [name for value, name in names.items() if value not in values and value != ignored]
    notes = [f"Not learned, so taken as background: {', '.join(others)}."] if others else []
    if any(theirs != ours for theirs, ours in values.items()):
        changed = ", ".join(f"{names[theirs]} {theirs} -> {ours}" for theirs, ours in values.items())
        notes.append(
            f"Labels have other numbers in the data set than in the model, and were matched by name: {changed}."
        )
    if ignored is not None:
        values[ignored] = UNKNOWN_LABEL
    pairs = tuple((value, values.get(value, 0)) for value in names)
    kept = all(value == new for value, new in pairs)
    revision = "" if kept else hashlib.sha256(repr(pairs).encode()).hexdigest()[:12]  # of the prepared form
    return [replace(case, values=pairs, revision=revision) for case in cases], tuple(notes)


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
    image: Volume, label: Volume, preprocessing: Preprocessing, marks: np.ndarray | None = None
) -> tuple[Tensor, Tensor]:
    """Image and labels as the network meets them, before the patch is cut.

    Returns: float32 (C, k, j, i) scaled and resampled; uint8 (1 or 2, k, j, i) by nearest neighbour: labels, and their
        `marks` (uint8 (k, j, i) on the image's grid) if these are given.

    Raises:
        InputError: image and labels have different grids, or the image covers what no patient does.
    """
    check_field_of_view(image)  # before it is resampled
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
    maps = [label.array, *([] if marks is None else [marks])]
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
        self.notes: list[str] = []  # of the cases that were read, for the user
        self._read = read
        self._places: dict[tuple[int, int | None], list[Tensor]] = {}
        self._partial = any(case.missing for case in self.cases)
        self._maker: ThreadPoolExecutor | None = None
        self._making: Future[None] | None = None
        self._stopped = Event()

    def build(
        self,
        progress: Callable[[int, int], None] = lambda done, total: None,
        skip: Callable[[Case, InputError], None] | None = None,
        first: int | None = None,
    ) -> None:
        """Read, prepare and store every case that is not stored yet.

        Args:
            skip: told of a case that cannot be read, which is then left out; without it the error is raised.
            first: return as soon as so many cases are there; a thread prepares the others meanwhile, and their items
                come as they are ready. `finish` waits for it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        coming = iter(range(len(self.cases)))
        for index in coming:
            self._add(index, skip)
            progress(index + 1, len(self.cases))
            if first is not None and self.items and len({case for case, _ in self.items}) >= first:
                break
        left = list(coming)
        if left:
            # With one core: the others are computing.
            self._maker = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
            self._making = self._maker.submit(self._add_all, left, skip)

    def _add_all(self, indices: Sequence[int], skip: Callable[[Case, InputError], None] | None) -> None:
        for index in indices:
            if self._stopped.is_set():
                return
            self._add(index, skip)

    def finish(self) -> None:
        """Wait until all cases are prepared.

        Raises:
            InputError, OutputError: what went wrong meanwhile.
        """
        if self._making is not None and self._maker is not None:
            self._making.result()
            self._maker.shutdown()
            self._making = self._maker = None

    def stop(self) -> None:
        """Prepare no further case; the present one is not waited for."""
        self._stopped.set()
        if self._maker is not None:
            self._maker.shutdown(wait=False)

    def raise_failure(self) -> None:
        """Raise what has gone wrong in the thread until now, if anything has; does not wait."""
        if self._making is not None and self._making.done():
            self.finish()

    def _add(self, index: int, skip: Callable[[Case, InputError], None] | None) -> None:
        """Prepare a case if it is not, and offer its items."""
        case = self.cases[index]
        try:
            if not all(path.exists() for path in self._paths(case)):
                self._store(case)
            depth = np.load(self._paths(case)[1], mmap_mode="r").shape[1]
        except InputError as error:
            if skip is None:
                raise
            skip(case, error)
            return
        slices: list[int | None] = list(range(depth)) if self.preprocessing.spatial_dims == 2 else [None]
        self.items += [(index, k) for k in slices]

    def _store(self, case: Case) -> None:
        image, label, marks = self._read(case)
        self.notes += [f"{case.name}: {note}" for note in dict.fromkeys([*image.notes, *label.notes])]
        pixels, target = prepare(image, label, self.preprocessing, marks)
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
        pixels, target = self._loaded(index, 0), self._loaded(index, 1)
        return torch.from_numpy(pixels.astype(np.float32)), torch.from_numpy(target)

    def label(self, index: int) -> Tensor:
        """The second of an `item` alone."""
        return torch.from_numpy(self._loaded(index, 1))

    def _loaded(self, index: int, which: int) -> np.ndarray:
        case, k = self.items[index]
        try:
            array: Any = np.load(self._paths(self.cases[case])[which], mmap_mode="r")
            return np.array(array if k is None else array[:, k])
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"The prepared form of {self.cases[case].name} cannot be read ({error}).",
                "It was removed or damaged while it was in use.",
                "Start the training again: cases are prepared anew when their prepared form is missing.",
            ) from error

    def places(self, index: int, label: Tensor) -> list[Tensor]:
        """Of each structure that occurs in an item, voxels of it: int64 (at most `PLACES`, dims), the same each time.

        Args:
            label: the item's, as it was read.
        """
        key = self.items[index]
        if key not in self._places:
            voxels = [torch.nonzero(label[0] == value) for value in label[0].unique().tolist() if value]
            self._places[key] = [every[:: max(1, len(every) // PLACES)][:PLACES].clone() for every in voxels]
        return self._places[key]

    def missing(self, index: int) -> Tensor | None:
        """bool (256,): by label value, what was not outlined in the case of an item. None where every case outlines
        everything."""
        if not self._partial:
            return None
        flags = torch.zeros(HIGHEST_LABEL + 1, dtype=torch.bool)
        flags[list(self.case(index).missing)] = True
        return flags

    def case(self, index: int) -> Case:
        """The case that an item belongs to."""
        return self.cases[self.items[index][0]]

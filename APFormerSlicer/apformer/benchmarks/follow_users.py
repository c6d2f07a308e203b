"""Simulated users of following: they correct slices of labelled volumes by the reference, and look what follows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..bundles import Bundle
from ..datasets.listing import Pair
from ..errors import ConfigError
from ..files import read_volume
from ..following import SECONDS, Corrections, Followed, Plane, follow
from ..grid import put_on_grid
from ..inference import Segmenter
from ..inference.preprocess import model_axes
from ..label_maps import read_label_map
from ..metrics import dice, hd95_mm
from ..names import plain
from ..places import uncertain_places
from ..volume import Volume
from .outlined import comparator

USERS = ("worst", "middle", "place")
Interpolate = Callable[[np.ndarray, Sequence[Plane]], np.ndarray]
"""Labels (k, j, i) and the slices that are right (of one axis) -> labels, between these slices interpolated."""


@dataclass(frozen=True)
class Patient:
    """A labelled volume and what the model says of it.

    Attributes:
        reference: uint8 (k, j, i), the model's values.
        values: those that were outlined.
        axis: across the slices that the model sees, or of the longest step between slices.
    """

    name: str
    volume: Volume
    reference: np.ndarray
    values: tuple[int, ...]
    proposal: Volume
    uncertainty: Volume
    axis: int

    def slices(self, labels: np.ndarray) -> np.ndarray:
        """With the slices first."""
        return np.moveaxis(labels, self.axis, 0)

    def corrected(self, labels: np.ndarray, drawn: Sequence[int]) -> np.ndarray:
        """`labels` with these slices as in the reference; structures that were not outlined in it stay."""
        now = labels.copy()
        for index in drawn:
            there, right = self.slices(now)[index], self.slices(self.reference)[index]
            unknown = ~np.isin(there, (0, *self.values)) & (right == 0)
            self.slices(now)[index] = np.where(unknown, there, right)
        return now

    def score(self, labels: np.ndarray, without: Sequence[int] = ()) -> dict[str, float | None]:
        """Mean over the structures of Dice and HD95 (mm), with the slices `without` left out."""
        ours, theirs = (np.delete(self.slices(part), without, axis=0) for part in (labels, self.reference))
        spacing = self.volume.spacing_ijk[::-1]
        step, *across = (spacing[self.axis], *(spacing[a] for a in range(3) if a != self.axis))
        overlaps, distances = [], []
        for value in self.values:
            if not (theirs == value).any():
                continue
            overlaps.append(dice(ours == value, theirs == value))
            distance = hd95_mm(ours == value, theirs == value, (across[1], across[0], step))
            distances += [] if distance is None else [distance]
        return {
            "dice": float(np.mean(overlaps)) if overlaps else None,
            "hd95_mm": float(np.mean(distances)) if distances else None,
        }


def shared_labels(bundle: Bundle, names: Mapping[int, str]) -> dict[int, int]:
    """Value in the data set -> the model's, for structures that both name: the same name, or one that has all words of
    the other, as "Left ventricle" and "Left ventricle cavity" do.

    Raises:
        ConfigError: there are none.
    """
    found: dict[int, int] = {}
    for label in bundle.labels:
        ours = set(plain(label.name).split())
        alike = [value for value, name in names.items() if value and _same_words(ours, set(plain(name).split()))]
        exact = [value for value in alike if plain(names[value]) == plain(label.name)]
        if len(exact or alike) == 1:
            found[(exact or alike)[0]] = label.value
    if not found:
        raise ConfigError(
            f"The data set names {', '.join(names.values()) or 'no structures'}; the model {bundle.name} knows "
            f"{', '.join(label.name for label in bundle.labels)}.",
            "Nothing can be compared.",
            "Choose the data set of this model, or another model.",
        )
    return found


def _same_words(ours: set[str], theirs: set[str]) -> bool:
    return bool(ours and theirs) and (ours <= theirs or theirs <= ours)


def read_patient(pair: Pair, segmenter: Segmenter, values: Mapping[int, int]) -> Patient | None:
    """The volume, segmented; None where nothing can be judged on its rest."""
    if len(pair.images) != 1:
        raise ConfigError(
            f"{pair.stem} has {len(pair.images)} image files.", "One is expected.", "Choose a data set of one channel."
        )
    volume = read_volume(pair.images[0])
    labels = put_on_grid(read_label_map(pair.labels), volume).array
    reference = np.zeros(labels.shape, np.uint8)
    outlined = [theirs for theirs in values if pair.labelled is None or theirs in pair.labelled]
    for theirs in outlined:
        reference[labels == theirs] = values[theirs]
    settings = segmenter.bundle.preprocessing
    axis = 2 - model_axes(volume, settings).order[2] if settings.spatial_dims == 2 else _thickest(volume)
    if np.moveaxis(reference, axis, 0).any(axis=(1, 2)).sum() < 2:
        return None
    result = segmenter.segment(volume, uncertainty=True)
    assert result.uncertainty is not None
    known = tuple(values[theirs] for theirs in outlined)
    return Patient(pair.stem, volume, reference, known, result.labels, result.uncertainty, axis)


def _thickest(volume: Volume) -> int:
    """The axis (of k, j, i) with the longest step, k on ties: across it a user draws."""
    return int(np.argmax(np.round(volume.spacing_ijk[::-1], 3)))


def simulate(
    patient: Patient,
    segmenter: Segmenter,
    user: str,
    counts: Sequence[int],
    seconds: float | None,
    interpolate: Interpolate,
) -> Iterator[dict[str, Any]]:
    """What is measured after each number of corrected slices, which are chosen in the proposal of the time."""
    drawn: list[int] = []
    first, labels, uncertainty = patient.proposal.array, patient.proposal.array, patient.uncertainty
    filled = int(patient.slices(patient.reference).any(axis=(1, 2)).sum())
    for count in sorted(set(counts)):
        if count >= filled:  # nothing would be left to judge
            return
        while len(drawn) < count:
            drawn.append(choose(patient, user, labels, uncertainty, drawn))
        right = [Plane(patient.axis, index) for index in sorted(drawn)]
        used_s = time.process_time()
        followed = _follow(patient, segmenter, labels, right, seconds)
        used_s = time.process_time() - used_s
        labels = followed.labels.array
        uncertainty = followed.uncertainty or uncertainty
        between = interpolate(patient.corrected(first, drawn), right)
        yield {
            "slices": count,
            "corrected": sorted(drawn),
            "before": patient.score(first, drawn),
            "after": patient.score(labels, drawn),
            "interpolated": patient.score(between, drawn),
            "both": patient.score(interpolate(labels, right), drawn),
            "whole": patient.score(labels)["dice"],
            "share": followed.share,
            "steps": followed.steps,
            "seconds": round(followed.seconds, 2),
            "processor_s": round(used_s, 2),
        }


def _follow(
    patient: Patient, segmenter: Segmenter, labels: np.ndarray, right: list[Plane], seconds: float | None
) -> Followed:
    """From the proposal `labels`, with the slices `right` as the reference has them."""
    values = [label.value for label in segmenter.bundle.labels]
    now = patient.corrected(labels, [plane.number for plane in right])
    corrections = Corrections.of(labels, now, values, right=right, axis=patient.axis)
    return follow(patient.volume, segmenter, corrections, seconds=SECONDS if seconds is None else seconds)


def choose(patient: Patient, user: str, labels: np.ndarray, uncertainty: Volume, drawn: Sequence[int]) -> int:
    """The slice that a user corrects next.

    "worst": of those that show a structure, where most voxels are wrong. "middle": in the middle of the widest gap
    between slices that were corrected, within the reference's extent. "place": where the next place to check is.
    """
    wrong = (patient.slices(labels) != patient.slices(patient.reference)).sum(axis=(1, 2)).astype(float)
    wrong[~patient.slices(patient.reference).any(axis=(1, 2))] = -1.0
    wrong[list(drawn)] = -2.0
    if user == "worst":
        return int(wrong.argmax())
    if user == "middle":
        return _middle(np.flatnonzero(patient.slices(patient.reference).any(axis=(1, 2))), drawn)
    for place in uncertain_places(uncertainty.array, patient.volume.ijk_to_ras):
        index = place.ijk[2 - patient.axis]
        if index not in drawn:
            return index
    return int(wrong.argmax())


def _middle(filled: np.ndarray, drawn: Sequence[int]) -> int:
    """The slice that is farthest from those that were corrected and from the ends of the structure."""
    edges = np.array([filled[0] - 1, filled[-1] + 1, *drawn])
    apart = np.abs(filled[:, None] - edges).min(axis=1)
    return int(filled[apart.argmax()])


def interpolated_between(labels: np.ndarray, right: Sequence[Plane]) -> np.ndarray:
    """`labels` (k, j, i) with the slices between those of `right` interpolated, structure by structure, as `comparator`
    does; beyond the first and the last nothing is changed. One slice alone has nothing to be interpolated with."""
    result = labels.copy()
    indices = sorted(plane.number for plane in right)
    if len(indices) < 2:
        return result
    stack = np.moveaxis(result, right[0].axis, 0)
    between = [index for index in range(*indices[:: len(indices) - 1]) if index not in indices]
    _, fill = comparator()
    drawn = stack.copy()
    for value in (int(value) for value in np.unique(drawn[indices]) if value):
        filled = fill(drawn == value, indices)
        for index in between:
            stack[index][stack[index] == value] = 0
            stack[index][filled[index]] = value
    return result

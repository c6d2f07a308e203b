"""How well a segmentation agrees with a reference: Dice, 95 % Hausdorff distance, average surface distance, volumes.

Definitions, those of MONAI's metrics and of the Medical Segmentation Decathlon's evaluation:

- The surface of a mask is the mask less its erosion with face neighbours (6 in a volume, 4 in a single slice); what
  lies outside the image is background, so a mask cut by the image's edge has a surface there.
- Distances run between centres of surface voxels, in mm, each to the nearest surface voxel of the other mask.
- HD95 is the larger of the two directed 95th percentiles; ASSD is the mean over the distances of both directions.
- Two empty masks have Dice 1; distances are undefined (None) when either mask is empty.

What is absent, one rule for every figure of a set of cases (of which a single case is the smallest):

- A label that no case of the set has in its reference is judged by nobody: its figures are None, shown as "-"; it
  counts in no mean and decides nothing.
- Of a label that some case has, the cases without it count too: Dice 1 where nothing was found there, 0 where something
  was. They have no distances.
- What was found of a label in cases whose reference has none of it is reported apart, as false positives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk

from .errors import InputError
from .grid import check_same_grid
from .label_maps import whole_numbers
from .volume import Volume

Mask = np.ndarray
Spacing = tuple[float, float, float]


class Overlap(NamedTuple):
    """Voxels of one label in one case: in both masks, in the prediction, in the reference."""

    common: int
    predicted: int
    reference: int

    @property
    def dice(self) -> float:
        """2 |A and B| / (|A| + |B|); 1 when both are empty."""
        total = self.predicted + self.reference
        return 2 * self.common / total if total else 1.0

    @staticmethod
    def of(prediction: Mask, reference: Mask) -> Overlap:
        """Counted in two masks of one shape; InputError when the shapes differ."""
        ours, theirs = _as_masks(prediction, reference)
        counted = (int(np.count_nonzero(mask)) for mask in (ours & theirs, ours, theirs))
        return Overlap(*counted)


@dataclass(frozen=True)
class Agreement:
    """One label over a set of cases, by the rule for what is absent.

    Attributes:
        case_dice: of each case; mean_dice: their mean; pooled_dice: over all voxels of all cases, so that a case counts
            by its size. All None when no case has the label in its reference.
        false_positives: voxels found in the cases whose reference has none; false_positive_cases: how many these are.
    """

    case_dice: tuple[float | None, ...]
    mean_dice: float | None
    pooled_dice: float | None
    false_positives: int
    false_positive_cases: int


def over_cases(overlaps: Sequence[Overlap]) -> Agreement:
    """What the cases of a set tell together of one label."""
    elsewhere = [overlap.predicted for overlap in overlaps if not overlap.reference and overlap.predicted]
    if not any(overlap.reference for overlap in overlaps):
        return Agreement((None,) * len(overlaps), None, None, sum(elsewhere), len(elsewhere))
    case_dice = tuple(overlap.dice for overlap in overlaps)
    pooled = Overlap(*(sum(counts) for counts in zip(*overlaps, strict=True))).dice
    return Agreement(case_dice, float(np.mean(case_dice)), pooled, sum(elsewhere), len(elsewhere))


@dataclass(frozen=True)
class LabelScore:
    """Agreement on one label in one case; distances in mm, None where undefined."""

    name: str
    overlap: Overlap
    hd95_mm: float | None
    assd_mm: float | None
    volume_ml: float
    reference_volume_ml: float

    @property
    def dice(self) -> float | None:
        """None when the reference has none of the label: nothing judges it."""
        return self.overlap.dice if self.overlap.reference else None

    @property
    def false_positive_ml(self) -> float:
        """What was found although the reference has none of the label; 0 where it has."""
        return 0.0 if self.overlap.reference else self.volume_ml

    @property
    def volume_difference_ml(self) -> float:
        """Volume of the prediction less that of the reference."""
        return self.volume_ml - self.reference_volume_ml


@dataclass(frozen=True)
class Evaluation:
    """Agreement of a label map with a reference, by label value."""

    labels: dict[int, LabelScore]

    @property
    def mean_dice(self) -> float | None:
        """Mean over the labels that the reference has; None when it has none."""
        judged = [score.dice for score in self.labels.values() if score.dice is not None]
        return float(np.mean(judged)) if judged else None

    def as_dict(self) -> dict[str, object]:
        """The scores, ready for JSON."""
        labels = {
            str(value): {
                "name": score.name,
                "dice": score.dice,
                "hd95_mm": score.hd95_mm,
                "assd_mm": score.assd_mm,
                "volume_ml": score.volume_ml,
                "reference_volume_ml": score.reference_volume_ml,
                "false_positive_ml": score.false_positive_ml,
            }
            for value, score in self.labels.items()
        }
        return {"labels": labels, "mean_dice": self.mean_dice}


def evaluate(prediction: Volume, reference: Volume, names: Mapping[int, str] | None = None) -> Evaluation:
    """Compare two label maps on the same grid, value by value.

    Args:
        prediction, reference: label maps (k, j, i), whole numbers.
        names: label value -> name of the labels to compare; None or empty compares every value but 0 that occurs.

    Raises:
        InputError: the grids differ, or either is not a label map.
    """
    check_same_grid(prediction, reference)
    prediction, reference = whole_numbers(prediction), whole_numbers(reference)
    if not names:
        found = np.union1d(np.unique(prediction.array), np.unique(reference.array))
        names = {int(value): f"label {int(value)}" for value in found if value != 0}
    scores = {}
    for value, name in names.items():
        ours, theirs = prediction.array == value, reference.array == value
        distances = surface_distances(ours, theirs, reference.spacing_ijk)
        scores[value] = LabelScore(
            name=name,
            overlap=Overlap.of(ours, theirs),
            hd95_mm=_hd95(distances),
            assd_mm=_assd(distances),
            volume_ml=int(np.count_nonzero(ours)) * prediction.voxel_volume_ml,
            reference_volume_ml=int(np.count_nonzero(theirs)) * reference.voxel_volume_ml,
        )
    return Evaluation(scores)


def dice(prediction: Mask, reference: Mask) -> float:
    """2 |A and B| / (|A| + |B|) of two masks of one shape; 1 when both are empty.

    Raises:
        InputError: the shapes differ.
    """
    return Overlap.of(prediction, reference).dice


def pooled_dice(cases: Iterable[tuple[Mask, Mask]]) -> float | None:
    """Dice over all cases together, 2 sum |A and B| / sum (|A| + |B|); None when no reference has a voxel.

    Args:
        cases: (prediction, reference) masks, one shape per case; taken one at a time.

    Raises:
        InputError: the shapes of a case differ.
    """
    return over_cases([Overlap.of(*pair) for pair in cases]).pooled_dice


def hd95_mm(prediction: Mask, reference: Mask, spacing_ijk: Spacing) -> float | None:
    """The larger of the two directed 95th percentiles of surface distance, mm; see `surface_distances`."""
    return _hd95(surface_distances(prediction, reference, spacing_ijk))


def assd_mm(prediction: Mask, reference: Mask, spacing_ijk: Spacing) -> float | None:
    """The mean surface distance over both directions, mm; see `surface_distances`."""
    return _assd(surface_distances(prediction, reference, spacing_ijk))


def _hd95(distances: tuple[np.ndarray, np.ndarray] | None) -> float | None:
    return None if distances is None else float(max(np.percentile(directed, 95) for directed in distances))


def _assd(distances: tuple[np.ndarray, np.ndarray] | None) -> float | None:
    return None if distances is None else float(np.concatenate(distances).mean())


def surface_distances(prediction: Mask, reference: Mask, spacing_ijk: Spacing) -> tuple[np.ndarray, np.ndarray] | None:
    """Distances in mm from each surface voxel of one mask to the surface of the other, in both directions.

    Memory and time go with the box around both masks, not with the image.

    Args:
        prediction, reference: masks (k, j, i).
        spacing_ijk: distance between voxel centres along i, j, k, mm.

    Returns: (prediction to reference, reference to prediction), or None when either mask is empty.

    Raises:
        InputError: the masks are not 3D or their shapes differ.
    """
    ours, theirs = _as_masks(prediction, reference)
    if ours.ndim != 3:
        raise InputError(
            f"A mask has {ours.ndim} axes.", "Distances need axes (k, j, i).", "Give a slice a first axis of length 1."
        )
    if not ours.any() or not theirs.any():
        return None
    # a single slice has no neighbours before and after it; all other axes count, so that no mask is without a surface
    flat = ours.shape.index(1) if 1 in ours.shape else None
    axes = [axis for axis in range(3) if axis != flat]
    box = _bounding_box(ours | theirs)
    edges = [_surface(mask[box], axes) for mask in (ours, theirs)]
    from_ours, from_theirs = (_distance_map(edge, spacing_ijk) for edge in edges)
    return from_theirs[edges[0]], from_ours[edges[1]]


def _as_masks(prediction: Mask, reference: Mask) -> tuple[Mask, Mask]:
    ours, theirs = np.asarray(prediction), np.asarray(reference)
    if ours.shape != theirs.shape:
        raise InputError(
            f"The masks have shapes {ours.shape} and {theirs.shape}.",
            "They cannot be compared.",
            "Compare masks of the same image.",
        )
    return ours.astype(bool, copy=False), theirs.astype(bool, copy=False)


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box around the mask's voxels."""
    box = []
    for axis in range(mask.ndim):
        occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return tuple(box)


def _surface(mask: Mask, axes: Iterable[int]) -> Mask:
    """Voxels of the mask with a neighbour along `axes` outside it; all beyond the array counts as outside."""
    inside = mask.copy()
    for axis in axes:
        for step in (1, -1):
            neighbour = np.zeros_like(mask)
            source, target = [slice(None)] * mask.ndim, [slice(None)] * mask.ndim
            source[axis], target[axis] = (slice(1, None), slice(None, -1))[::step]
            neighbour[tuple(target)] = mask[tuple(source)]
            inside &= neighbour
    return mask & ~inside


def _distance_map(surface: Mask, spacing_ijk: Spacing) -> np.ndarray:
    """Distance of every voxel to the nearest surface voxel, mm, float32 (k, j, i)."""
    image = sitk.GetImageFromArray(surface.astype(np.uint8))
    image.SetSpacing([float(step) for step in spacing_ijk])
    signed = sitk.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    # where surface voxels lie thick the map is negative within them; they are on the surface
    return np.maximum(sitk.GetArrayViewFromImage(signed), 0.0)

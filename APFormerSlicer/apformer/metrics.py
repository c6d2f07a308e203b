"""How well a segmentation agrees with a reference: Dice, 95 % Hausdorff distance, average surface distance, volumes.

Definitions, those of MONAI's metrics and of the Medical Segmentation Decathlon's evaluation:

- The surface of a mask is the mask less its erosion with face neighbours (6 in a volume, 4 in a single slice); what
  lies outside the image is background, so a mask cut by the image's edge has a surface there.
- Distances run between centres of surface voxels, in mm, each to the nearest surface voxel of the other mask.
- HD95 is the larger of the two directed 95th percentiles; ASSD is the mean over the distances of both directions.
- Two empty masks have Dice 1; distances are undefined (None) when either mask is empty.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from .errors import InputError
from .volume import Volume

Mask = np.ndarray
Spacing = tuple[float, float, float]

# Files keep matrices in float32 or as text of six digits; a real difference is far larger.
MATRIX_TOLERANCE_MM = 1e-3
# Small differences in spacing add up along an axis; a tenth of a voxel at the far corner does not change a result.
CORNER_TOLERANCE_VOXELS = 0.1


@dataclass(frozen=True)
class LabelScore:
    """Agreement on one label; distances in mm, None where undefined."""

    name: str
    dice: float
    hd95_mm: float | None
    assd_mm: float | None
    volume_ml: float
    reference_volume_ml: float

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
        """Mean over the labels; None when there are none."""
        return float(np.mean([score.dice for score in self.labels.values()])) if self.labels else None

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
            }
            for value, score in self.labels.items()
        }
        return {"labels": labels, "mean_dice": self.mean_dice}


def evaluate(prediction: Volume, reference: Volume, names: Mapping[int, str] | None = None) -> Evaluation:
    """Compare two label maps on the same grid.

    Args:
        prediction, reference: label maps (k, j, i), whole numbers.
        names: label value -> name of the labels to compare; None or empty compares every value but 0 that occurs.

    Raises:
        InputError: the grids differ, or either is not a label map.
    """
    check_same_grid(prediction, reference)
    _check_label_map(prediction.array, "prediction")
    _check_label_map(reference.array, "reference")
    if not names:
        found = np.union1d(np.unique(prediction.array), np.unique(reference.array))
        names = {int(value): f"label {int(value)}" for value in found if value != 0}
    scores = {}
    for value, name in names.items():
        ours, theirs = prediction.array == value, reference.array == value
        distances = surface_distances(ours, theirs, reference.spacing_ijk)
        scores[value] = LabelScore(
            name=name,
            dice=dice(ours, theirs),
            hd95_mm=_hd95(distances),
            assd_mm=_assd(distances),
            volume_ml=int(np.count_nonzero(ours)) * prediction.voxel_volume_ml,
            reference_volume_ml=int(np.count_nonzero(theirs)) * reference.voxel_volume_ml,
        )
    return Evaluation(scores)


def check_same_grid(prediction: Volume, reference: Volume) -> None:
    """Raise InputError unless both have one channel, the same shape, and the same place in the patient."""
    for role, volume in (("prediction", prediction), ("reference", reference)):
        if volume.array.ndim != 3:
            raise _not_comparable(f"The {role} has {volume.channels} channels.", "A label map has one.")
    if prediction.spatial_shape != reference.spatial_shape:
        shapes = f"{prediction.spatial_shape} and {reference.spatial_shape} voxels (k, j, i)"
        raise _not_comparable(f"The grids differ: {shapes}.", "Voxels cannot be compared one by one.")
    difference = np.asarray(prediction.ijk_to_ras) - np.asarray(reference.ijk_to_ras)
    ends = [(0, size - 1) for size in reversed(reference.spatial_shape)]  # of i, j, k
    corners = np.array([(*corner, 1) for corner in itertools.product(*ends)])
    drift_mm = float(np.linalg.norm(corners @ difference[:3].T, axis=1).max())
    allowed_mm = CORNER_TOLERANCE_VOXELS * min(reference.spacing_ijk)
    # "not <=" refuses NaN too
    if not np.abs(difference).max() <= MATRIX_TOLERANCE_MM or not drift_mm <= allowed_mm:
        raise _not_comparable(
            f"The grids lie up to {drift_mm:.4g} mm apart, or their spacings or directions differ.",
            "The same voxel is another place in the patient, so agreement would be misjudged.",
        )


def _not_comparable(what: str, meaning: str) -> InputError:
    remedy = "Compare files made from the same image, or resample one of them onto the other's grid first."
    return InputError(what, meaning, remedy)


def _check_label_map(array: np.ndarray, role: str) -> None:
    whole = array.dtype.kind in "biu" or (array.dtype.kind == "f" and bool((array == np.rint(array)).all()))
    if not whole:
        raise InputError(
            f"The {role} holds values that are not whole numbers.",
            "It is an image or a probability map rather than a label map.",
            "Pass the label map.",
        )


def dice(prediction: Mask, reference: Mask) -> float:
    """2 |A and B| / (|A| + |B|) of two masks of one shape; 1 when both are empty.

    Raises:
        InputError: the shapes differ.
    """
    return pooled_dice([(prediction, reference)])


def pooled_dice(cases: Iterable[tuple[Mask, Mask]]) -> float:
    """Dice over all cases together, 2 sum |A and B| / sum (|A| + |B|), so that a case counts by its size.

    Args:
        cases: (prediction, reference) masks, one shape per case; taken one at a time.

    Raises:
        InputError: the shapes of a case differ.
    """
    common = total = 0
    for prediction, reference in cases:
        ours, theirs = _as_masks(prediction, reference)
        common += int(np.count_nonzero(ours & theirs))
        total += int(np.count_nonzero(ours)) + int(np.count_nonzero(theirs))
    return 2 * common / total if total else 1.0


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
        raise _not_comparable(f"The masks have shapes {ours.shape} and {theirs.shape}.", "They cannot be compared.")
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

"""A bundle measured on labelled cases, through the same Segmenter that users run, on the files' own grids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from ..bundles import Bundle
from ..inference import Segmenter
from ..metrics import Evaluation, evaluate
from ..volume import Volume
from .cases import Case

LabelCounts = dict[int, list[int]]


@dataclass(frozen=True)
class CaseScore:
    """One case: its evaluation, and per label the intersection and the two sizes in voxels."""

    case: Case
    evaluation: Evaluation
    counts: LabelCounts
    is_picture: bool


def assess(
    bundle: Bundle, cases: Sequence[Case], device: str, on_case: Callable[[int, int], None] = lambda done, total: None
) -> list[CaseScore]:
    """Segment and score every case, one at a time."""
    segmenter = Segmenter(bundle, device)
    names = {label.value: label.name for label in bundle.labels}
    scores = []
    for number, case in enumerate(cases, 1):
        image = files.read_volume(case.image)
        reference = _reference(files.read_volume(case.label), image)
        predicted = segmenter.segment(image).labels
        counts = {value: _counts(predicted.array == value, reference.array == value) for value in names}
        is_picture = image.source.kind == "picture"
        scores.append(CaseScore(case, evaluate(predicted, reference, names), counts, is_picture))
        on_case(number, len(cases))
    return scores


def _reference(label: Volume, image: Volume) -> Volume:
    """The reference with uint8 values; its geometry is its own, so a mismatch is noticed."""
    return Volume(label.array.astype(np.uint8), label.ijk_to_ras, source=image.source)


def _counts(predicted: np.ndarray, reference: np.ndarray) -> list[int]:
    return [int(np.count_nonzero(predicted & reference)), int(predicted.sum()), int(reference.sum())]


def summarise(scores: Sequence[CaseScore]) -> dict[str, Any]:
    """Per label: mean Dice over cases, Dice pooled over all voxels, mean HD95 and ASSD.

    Pictures have no spacing, so their distances are in pixels and named so.
    """
    unit = "px" if all(score.is_picture for score in scores) else "mm"
    labels: dict[str, Any] = {}
    for value, first in scores[0].evaluation.labels.items():
        entries = [score.evaluation.labels[value] for score in scores]
        both, predicted, reference = np.sum([score.counts[value] for score in scores], axis=0).tolist()
        labels[first.name] = {
            "mean_dice": _mean([entry.dice for entry in entries]),
            "pooled_dice": round(2 * both / (predicted + reference), 4) if predicted + reference else None,
            f"hd95_{unit}": _mean([entry.hd95_mm for entry in entries]),
            f"assd_{unit}": _mean([entry.assd_mm for entry in entries]),
        }
    patients = sorted({score.case.patient for score in scores})
    return {"cases": len(scores), "patients": patients, "labels": labels}


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that exist (a distance to an absent label does not)."""
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), 4) if known else None


def overlay_picture(bundle: Bundle, scores: Sequence[CaseScore], device: str, path: Path, count: int = 8) -> None:
    """PNG of `count` validation cases, worst to best by mean Dice: reference in white, prediction in label colours."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    def mean_dice(score: CaseScore) -> float:
        return score.evaluation.mean_dice or 0.0

    ranked = sorted(scores, key=mean_dice)
    chosen = [ranked[round(i * (len(ranked) - 1) / max(1, count - 1))] for i in range(min(count, len(ranked)))]
    columns = 4
    rows = -(-len(chosen) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3 * columns, 3.2 * rows), squeeze=False)
    segmenter = Segmenter(bundle, device)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, score in zip(axes.flat, chosen, strict=False):
        image = files.read_volume(score.case.image)
        reference = files.read_volume(score.case.label).array
        predicted = segmenter.segment(image).labels.array
        k = int(np.argmax((reference > 0).sum(axis=(1, 2))))
        axis.imshow(image.array.reshape(-1, *image.spatial_shape)[0, k], cmap="gray")
        for label in bundle.labels:
            for array, color, width in ((reference, "white", 1.6), (predicted, [c / 255 for c in label.color], 1.0)):
                mask = array[k] == label.value
                if mask.any():
                    axis.contour(mask, [0.5], colors=[color], linewidths=width)
        axis.set_title(f"{score.case.name}\nDice {mean_dice(score):.3f}", fontsize=8)
    figure.suptitle(
        f"{bundle.name} {bundle.version}: validation cases from worst to best; white = reference", fontsize=9
    )
    figure.tight_layout(h_pad=2.0)
    figure.savefig(path, dpi=80)
    plt.close(figure)

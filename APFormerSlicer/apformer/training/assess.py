"""A bundle measured on labelled cases, through the same Segmenter that users run, on the files' own grids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..bundles import Bundle
from ..inference import Segmenter
from ..metrics import Agreement, Evaluation, evaluate, over_cases
from ..volume import Volume
from .cases import UNKNOWN, Case, read_case
from .report import shown


@dataclass(frozen=True)
class CaseScore:
    """One case and its evaluation, of those of the model's labels (`names`) that were outlined in it."""

    case: Case
    names: Mapping[int, str]
    evaluation: Evaluation
    is_picture: bool


def assess(
    bundle: Bundle, cases: Sequence[Case], device: str, on_case: Callable[[int, int], None] = lambda done, total: None
) -> list[CaseScore]:
    """Segment and score every case, one at a time."""
    segmenter = Segmenter(bundle, device)
    names = {label.value: label.name for label in bundle.labels}
    scores = []
    for number, case in enumerate(cases, 1):
        image, reference, marks = read_case(case)
        predicted = without_unknown(segmenter.segment(image).labels, marks)
        is_picture = image.source.kind == "picture"
        told = {value: name for value, name in names.items() if value not in case.missing}
        found = evaluate(predicted, reference, told) if told else Evaluation({})
        scores.append(CaseScore(case, names, found, is_picture))
        on_case(number, len(cases))
    return scores


def without_unknown(predicted: Volume, marks: np.ndarray | None) -> Volume:
    """What was found, but not where nobody knows what there is: there the reference has nothing to compare with."""
    if marks is None:
        return predicted
    return predicted.with_array(np.where(marks == UNKNOWN, 0, predicted.array).astype(predicted.array.dtype))


def summarise(scores: Sequence[CaseScore]) -> dict[str, Any]:
    """Per label: mean Dice over cases, Dice pooled over all voxels, mean HD95 and ASSD, all of the cases that outline
    it; None for a label that no case has. "false_positives": what was found of a label in cases without it, where
    something was.

    Pictures have no spacing, so their distances are in pixels and named so.
    """
    flat = all(score.is_picture for score in scores)
    unit = "px" if flat else "mm"
    labels: dict[str, Any] = {}
    wrong: dict[str, Any] = {}
    for value, name in scores[0].names.items():
        entries = [score.evaluation.labels[value] for score in scores if value in score.evaluation.labels]
        together = over_cases([entry.overlap for entry in entries])
        labels[name] = {
            "mean_dice": _mean([together.mean_dice]),
            "pooled_dice": _mean([together.pooled_dice]),
            f"hd95_{unit}": _mean([entry.hd95_mm for entry in entries]),
            f"assd_{unit}": _mean([entry.assd_mm for entry in entries]),
        }
        if together.false_positives:
            wrong[name] = false_positive(together, sum(entry.false_positive_ml for entry in entries), flat)
    patients = sorted({score.case.patient for score in scores})
    found = {"cases": len(scores), "patients": patients, "labels": labels}
    return {**found, "false_positives": wrong} if wrong else found


def false_positive(together: Agreement, millilitres: float, flat: bool) -> dict[str, Any]:
    """What was found of a label in the cases that have none of it: cases, amount, and its unit, px of pictures."""
    amount = float(together.false_positives) if flat else round(millilitres, 4)
    return {"cases": together.false_positive_cases, "amount": amount, "unit": "px" if flat else "mL"}


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
        dice = score.evaluation.mean_dice
        return 2.0 if dice is None else dice  # what nothing judges comes last

    ranked = sorted(scores, key=mean_dice)
    chosen = [ranked[round(i * (len(ranked) - 1) / max(1, count - 1))] for i in range(min(count, len(ranked)))]
    columns = 4
    rows = -(-len(chosen) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3 * columns, 3.2 * rows), squeeze=False)
    segmenter = Segmenter(bundle, device)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, score in zip(axes.flat, chosen, strict=False):
        image, label_map, _ = read_case(score.case)
        reference = label_map.array
        predicted = segmenter.segment(image).labels.array
        k = int(np.argmax((reference > 0).sum(axis=(1, 2))))
        axis.imshow(image.array.reshape(-1, *image.spatial_shape)[0, k], cmap="gray")
        for label in bundle.labels:
            for array, color, width in ((reference, "white", 1.6), (predicted, [c / 255 for c in label.color], 1.0)):
                mask = array[k] == label.value
                if mask.any():
                    axis.contour(mask, [0.5], colors=[color], linewidths=width)
        axis.set_title(f"{score.case.name}\nDice {shown(score.evaluation.mean_dice)}", fontsize=8)
    figure.suptitle(
        f"{bundle.name} {bundle.version}: validation cases from worst to best; white = reference", fontsize=9
    )
    figure.tight_layout(h_pad=2.0)
    figure.savefig(path, dpi=80)
    plt.close(figure)

"""A model measured on a site's validation cases: accuracy per case and label, milliseconds, operations. Plain data."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..bundles import Bundle
from ..inference import Segmenter
from ..metrics import Overlap, evaluate, over_cases
from ..pruning import count_macs
from ..pruning.budget import dense_macs
from ..pruning.flops import count_parameters
from ..training.assess import false_positive, without_unknown
from ..training.augment import fit
from ..training.calibration import Prunable, foreground_inside
from ..training.cases import Case, Labelled, PreparedCases
from .labels import relabelled

COUNTED_IMAGES = 24  # over which kept tokens and operations are averaged
DISTANCES = ("hd95", "assd")
Check = Callable[[], None]
# Case -> {"seconds", "picture", "labels": name -> {"hd95_mm", "assd_mm", "false_positive_ml", "both", "predicted",
# "reference"}}; the last three are voxels.
Scores = dict[str, dict[str, Any]]


def measure(
    bundle: Bundle,
    cases: Sequence[Case],
    read: Callable[[Case], Labelled],
    values: Mapping[int, int],
    judged: Mapping[int, str],
    device: str,
    *,
    check: Check,
    on_case: Callable[[int, int], None] = lambda done, total: None,
    enough: Callable[[int], bool] = lambda done: False,
) -> Scores:
    """Segment and score every case, as a user would: through the Segmenter, on the files' own grids.

    Args:
        read: gives labels in the new model's values.
        values: value in this bundle's results -> value of the new model.
        judged: value of the new model -> name, for the labels to compare. Those that this bundle does not know are
            left out, and of each case those that were not outlined in it.
        enough: whether those that are done by now are; the others are left out.
    """
    segmenter = Segmenter(bundle, device)
    names = {value: name for value, name in judged.items() if value in set(values.values())}
    same = {value: value for value in names}
    scores: Scores = {}
    handle = segmenter.network.register_forward_pre_hook(lambda *_: check())
    try:
        for number, case in enumerate(cases, 1):
            check()
            image, label, marks = read(case)
            result = segmenter.segment(image)
            found = result.labels.with_array(relabelled(relabelled(result.labels.array, dict(values)), same))
            found = without_unknown(found, marks)
            truth = label.with_array(relabelled(label.array, same))
            told = {value: name for value, name in names.items() if value not in case.missing}
            entries = evaluate(found, truth, told).labels if told else {}
            scores[case.name] = {
                "seconds": round(result.seconds, 4),
                "picture": image.source.kind == "picture",
                "labels": {
                    names[value]: {
                        "hd95_mm": entry.hd95_mm,
                        "assd_mm": entry.assd_mm,
                        "false_positive_ml": entry.false_positive_ml,
                        "both": entry.overlap.common,
                        "predicted": entry.overlap.predicted,
                        "reference": entry.overlap.reference,
                    }
                    for value, entry in entries.items()
                },
            }
            on_case(number, len(cases))
            if enough(number):
                break
    finally:
        handle.remove()
    return scores


def probe(
    bundle: Bundle,
    case: Case,
    read: Callable[[Case], Labelled],
    judged: Mapping[int, str],
    device: str,
    check: Check,
) -> None:
    """Do for a case what `measure` does, to see how long it takes, with a network that has not learned yet: its labels
    are compared with themselves, since distances to noise take longer than to any answer.

    Raises:
        InputError: the case cannot be read.
    """
    segmenter = Segmenter(bundle, device)
    with segmenter.network.register_forward_pre_hook(lambda *_: check()):
        image, label, _ = read(case)
        segmenter.segment(image)
        evaluate(label, label, dict(judged))


def summary(model: str, scores: Scores, judged: Mapping[int, str], cost: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of one model, as the report holds them; None for what the model does not know, what no case has (see
    `metrics`), or what is not defined. "false_positives" tells what was found of a label in cases without it.

    Distances between pictures are in pixels, and named so.
    """
    flat = bool(scores) and all(score["picture"] for score in scores.values())
    unit = "px" if flat else "mm"
    labels: dict[str, Any] = {}
    wrong: dict[str, Any] = {}
    cases: dict[str, dict[str, Any]] = {case: {} for case in scores}
    for name in judged.values():
        entries = {case: score["labels"][name] for case, score in scores.items() if name in score["labels"]}
        together = over_cases([_overlap(entry) for entry in entries.values()])
        labels[name] = {
            "mean_dice": _mean([together.mean_dice]),
            "pooled_dice": _mean([together.pooled_dice]),
            **{f"{kind}_{unit}": _mean([entry[f"{kind}_mm"] for entry in entries.values()]) for kind in DISTANCES},
        }
        for (case, entry), dice in zip(entries.items(), together.case_dice, strict=True):
            cases[case][name] = {"dice": dice, "hd95_mm": entry["hd95_mm"], "assd_mm": entry["assd_mm"]}
        if together.false_positives:
            millilitres = sum(entry.get("false_positive_ml", 0.0) for entry in entries.values())
            wrong[name] = false_positive(together, millilitres, flat)
    seconds = [score["seconds"] for score in scores.values()]
    milliseconds = round(1000 * statistics.median(seconds), 1) if seconds else None
    figures = {"labels": labels, "cases": cases, "false_positives": wrong}
    return {"model": model, **figures, "ms_per_case": milliseconds, **cost}


def _overlap(entry: Mapping[str, Any]) -> Overlap:
    return Overlap(entry["both"], entry["predicted"], entry["reference"])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), 4) if known else None


@torch.no_grad()
def cost_of(bundle: Bundle, images: PreparedCases, check: Check) -> dict[str, Any]:
    """Multiply-accumulates of one patch, attention included: as it runs on these images on average, and dense.

    Returns: "gmac", "gmac_dense", "parameters", "kept_tokens_mean", and "foreground_inside", the share of the
        foreground's voxels in the cells that it works on (None for a network without gates).
    """
    network = bundle.build_network()
    patch = bundle.preprocessing.patch_size
    shape = (1, bundle.channels, *patch)
    gated = hasattr(network, "gating")
    if gated:
        network.gating = "off"  # type: ignore[assignment]
    whole = count_macs(network, shape).total
    figures: dict[str, Any] = {"gmac": whole / 1e9, "gmac_dense": whole / 1e9, "parameters": count_parameters(network)}
    kept = []
    macs = []
    inside = None
    if getattr(network, "query_gate", None) is not None:
        network.gating = "hard"  # type: ignore[assignment]
        for index in _spread(len(images)):
            check()
            _, said = network(fit(images.item(index)[0], patch)[None], auxiliaries=True)
            kept.append(float(said.kept.float().mean()))
            macs.append(float(said.transformer_macs[0]))
        rest = whole - dense_macs(network.costs, said.kept[0].numel())  # type: ignore[arg-type]
        figures["gmac"] = (rest + statistics.fmean(macs)) / 1e9
        if isinstance(network, Prunable):
            inside = foreground_inside(network, images)
    return {
        **{name: round(value, 4) for name, value in figures.items()},
        "kept_tokens_mean": round(statistics.fmean(kept), 4) if kept else None,
        "foreground_inside": None if inside is None else math.floor(1e5 * inside) / 1e5,  # 1 means all of it
    }


def _spread(count: int) -> Iterable[int]:
    return range(0, count, max(1, count // COUNTED_IMAGES))

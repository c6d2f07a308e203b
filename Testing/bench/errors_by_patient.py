"""Whose pixels a 2D model gets wrong: `.venv/bin/python errors_by_patient.py DATASET --config TOML --model NAME`.

One row per validation patient of the configuration's split, worst first: pooled Dice, the patient's share of all wrong
pixels, and how much the image changes across the outline of the reference: mean gray value just inside less just
outside, in standard deviations of both. A reference that lies beside what it outlines has next to no such contrast,
whatever the model says.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "APFormerSlicer"))

from apformer.bundles import ModelLibrary
from apformer.inference import Segmenter
from apformer.metrics import pooled_dice
from apformer.training.cases import Case, read_case, read_dataset, split_cases
from apformer.training.config import read_config

RING = 4  # pixels on each side of an outline
FEWEST_PIXELS = 100  # smaller outlines say little
Slice = tuple[np.ndarray, np.ndarray, np.ndarray]  # gray values, found, reference


def edge_contrast(gray: np.ndarray, reference: np.ndarray) -> float:
    """Across the outline of a mask, both (rows, columns); NaN where there is too little of it."""
    if reference.sum() < FEWEST_PIXELS:
        return math.nan
    inside = reference & ~ndimage.binary_erosion(reference, iterations=RING)
    outside = ndimage.binary_dilation(reference, iterations=RING) & ~reference
    both = gray[inside | outside]
    return float((gray[inside].mean() - gray[outside].mean()) / both.std())


def by_patient(dataset: Path, config: Path, model: str) -> dict[str, list[Slice]]:
    """What the model finds on the validation slices, as they are stored; any label counts as found."""
    split = read_config(config).split
    segmenter = Segmenter(ModelLibrary().find(model), device="cpu")
    found: dict[str, list[Slice]] = {}
    for case in split_cases(read_dataset(dataset, split), split)[1]:
        found.setdefault(case.patient, []).append(_slice(segmenter, case))
    return found


def _slice(segmenter: Segmenter, case: Case) -> Slice:
    image, label, _ = read_case(case)
    ours = segmenter.segment(image).labels.array
    return tuple(np.asarray(array).squeeze() for array in (image.array, ours > 0, label.array > 0))  # type: ignore[return-value]


def table(patients: dict[str, list[Slice]]) -> list[str]:
    """As lines of text."""
    wrong = {name: sum(int((ours != theirs).sum()) for _, ours, theirs in rows) for name, rows in patients.items()}
    lines = ["patient           slices  pooled Dice  of all wrong pixels  edge contrast"]
    for name in sorted(patients, key=lambda name: -wrong[name]):
        rows = patients[name]
        contrasts = [edge_contrast(gray, theirs) for gray, _, theirs in rows]
        contrast = statistics.fmean([value for value in contrasts if not math.isnan(value)] or [math.nan])
        share = wrong[name] / max(1, sum(wrong.values()))
        lines.append(f"{name:<16}  {len(rows):>6}  {_dice(rows):>11.3f}  {share:>19.1%}  {contrast:>13.2f}")
    worst = max(wrong, key=lambda name: wrong[name])
    others = [row for name, rows in patients.items() if name != worst for row in rows]
    everything = [row for rows in patients.values() for row in rows]
    return [*lines, f"all: {_dice(everything):.4f}; without {worst}: {_dice(others):.4f}"]


def _dice(rows: Sequence[Slice]) -> float:
    return pooled_dice((ours, theirs) for _, ours, theirs in rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--model", required=True)
    options = parser.parse_args()
    print("\n".join(table(by_patient(options.dataset, options.config, options.model))))

"""Whether the cases that a model doubts most are those it gets wrong: `.venv/bin/python measure_doubt.py [MODEL ...]`.

For each bundled model, on the validation cases that it was measured on: Spearman's rank correlation between
`case_doubt` and 1 - mean Dice, and how wrong the quarter is that would be corrected first, beside the mean of all and
the worst quarter there is. Data is looked for in $APFORMER_DATA, then in ../shared/data.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "APFormerSlicer"))

from apformer.bundles import ModelLibrary
from apformer.case_doubt import case_doubt
from apformer.inference import Segmenter
from apformer.metrics import evaluate
from apformer.training.cases import read_case, read_dataset, split_cases
from apformer.training.config import read_config

ROOT = Path(__file__).resolve().parents[2]
DATA = {
    "hippocampus-mr": ("hippocampus-mr", "hippocampus-mr-pruned.toml"),
    "liver-ct": ("liver-ct-slices", "liver-ct-pruned.toml"),
    "left-ventricle-cine-mr": ("left-ventricle-cine-mr", "left-ventricle-cine-mr-pruned.toml"),
}


class Judged(NamedTuple):
    """A case: how unsure the model was of it, and 1 - its mean Dice."""

    doubt: float
    wrong: float


def judged(model: str, dataset: Path, config: Path) -> Iterator[Judged]:
    """The validation cases whose reference has a label of the model."""
    split = read_config(config).split
    segmenter = Segmenter(ModelLibrary().find(model), device="cpu")
    names = {label.value: label.name for label in segmenter.bundle.labels}
    for case in split_cases(read_dataset(dataset, split), split)[1]:
        image, reference, _ = read_case(case)
        found = segmenter.segment(image, uncertainty=True)
        dice = evaluate(found.labels, reference, names).mean_dice
        if dice is not None and found.uncertainty is not None:
            yield Judged(case_doubt(found.labels.array, found.uncertainty.array), 1 - dice)


def line(model: str, cases: Sequence[Judged]) -> str:
    """A row of the table."""
    doubt, wrong = (np.array(column) for column in zip(*cases, strict=True))
    quarter = max(1, len(cases) // 4)
    rho, p = stats.spearmanr(doubt, wrong)
    first, worst = wrong[np.argsort(-doubt)[:quarter]].mean(), np.sort(wrong)[-quarter:].mean()
    return f"{model:<24}{len(cases):>5}  {rho:>5.2f} (p={p:.0e})  {wrong.mean():>8.3f}  {first:>16.3f}  {worst:>13.3f}"


if __name__ == "__main__":
    root = Path(os.environ.get("APFORMER_DATA") or ROOT.parent / "shared" / "data")
    print("model                   cases  rank correlation  1 - Dice  most doubted 1/4  worst 1/4")
    for name in sys.argv[1:] or DATA:
        folder, config = DATA[name]
        print(line(name, list(judged(name, root / folder, ROOT / "Configs" / config))), flush=True)

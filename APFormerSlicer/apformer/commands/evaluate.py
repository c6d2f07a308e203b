"""`apformer evaluate`: label maps against references, case by case and pooled."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, UsageError
from . import options as option
from .console import Console, as_user_error

if TYPE_CHECKING:
    from ..metrics import Evaluation
    from ..volume import Volume

_DESCRIPTION = """\
Compare label maps: Dice, 95 % Hausdorff distance and average surface distance in mm, volumes in mL. PRED and REF are
two files, or two folders whose files belong together by name, whatever their formats."""


def add_parser(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "evaluate", parents=[shared], help="label maps against references", description=_DESCRIPTION
    )
    parser.add_argument("prediction", type=option.path, metavar="PRED", help="label map, or a folder of label maps")
    parser.add_argument("reference", type=option.path, metavar="REF", help="the reference, or a folder of references")
    parser.add_argument(
        "--model", metavar=option.MODEL, help="name the labels as this model does, and compare only those"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, console: Console) -> int:
    names = _names_of_model(options.model) if options.model else None
    if options.prediction.is_dir() != options.reference.is_dir():
        raise UsageError(
            "One of PRED and REF is a folder and the other is not.",
            "Which files belong together is not known.",
            "Name two files or two folders.",
        )
    if options.prediction.is_dir():
        return _evaluate_folders(options.prediction, options.reference, names, console)
    evaluation = _Pool().add(options.prediction, options.reference, names)
    console.result(evaluation.as_dict(), _as_table(evaluation))
    return 0


def _names_of_model(model: str) -> dict[int, str]:
    from ..bundles import ModelLibrary

    return {label.value: label.name for label in ModelLibrary().find(model).labels}


class _Pool:
    """Voxel counts over cases, so that a case counts by its size."""

    def __init__(self) -> None:
        self._common: dict[int, int] = defaultdict(int)
        self._total: dict[int, int] = defaultdict(int)
        self._evaluations: list[Evaluation] = []

    def add(self, prediction_file: Path, reference_file: Path, names: Mapping[int, str] | None) -> Evaluation:
        """Compare one pair of files and count it in."""
        from ..files import read_volume
        from ..metrics import evaluate

        prediction, reference = read_volume(prediction_file), read_volume(reference_file)
        evaluation = evaluate(prediction, reference, names or _names_in(reference_file, prediction_file))
        for value in evaluation.labels:
            self._count(value, prediction, reference)
        self._evaluations.append(evaluation)
        return evaluation

    def _count(self, value: int, prediction: Volume, reference: Volume) -> None:
        ours, theirs = prediction.array == value, reference.array == value
        self._common[value] += int((ours & theirs).sum())
        self._total[value] += int(ours.sum()) + int(theirs.sum())

    def as_dict(self) -> dict[str, Any]:
        """Per label: Dice over all voxels of all cases, and the mean over the cases of each measure."""
        labels: dict[str, Any] = {}
        for value in sorted(self._total):
            scores = [evaluation.labels[value] for evaluation in self._evaluations if value in evaluation.labels]
            total = self._total[value]
            labels[str(value)] = {
                "name": scores[0].name,
                "cases": len(scores),
                "dice": 2 * self._common[value] / total if total else 1.0,
                "mean_case_dice": _mean([score.dice for score in scores]),
                "mean_hd95_mm": _mean([score.hd95_mm for score in scores]),
                "mean_assd_mm": _mean([score.assd_mm for score in scores]),
            }
        return {"labels": labels, "mean_dice": _mean([label["dice"] for label in labels.values()])}


def _names_in(*files: Path) -> dict[int, str] | None:
    """Label names that a .seg.nrrd carries; the first file that has them is asked."""
    from ..files import read_segment_names, suffix_of

    return next((read_segment_names(file) for file in files if suffix_of(file) == ".seg.nrrd"), None)


def _mean(numbers: Sequence[float | None]) -> float | None:
    """The mean of those that are defined; None when none is."""
    defined = [number for number in numbers if number is not None]
    return sum(defined) / len(defined) if defined else None


def _evaluate_folders(predictions: Path, references: Path, names: Mapping[int, str] | None, console: Console) -> int:
    ours, theirs = _by_stem(predictions), _by_stem(references)
    for stem in sorted(set(ours) - set(theirs)):
        console.warn(f"{ours[stem]} has no reference in {references}; it was left out")
    pool, cases = _Pool(), []
    for stem, reference in theirs.items():
        try:
            if stem not in ours:
                raise _missing(stem, predictions)
            evaluation = pool.add(ours[stem], reference, names)
            cases.append({"case": stem, **evaluation.as_dict()})
            console.say(f"{stem}\n{_as_table(evaluation)}")
        except Exception as error:  # noqa: BLE001  one bad case must not cost the others
            told = as_user_error(error)
            console.complain(told, error, about=stem)
            cases.append({"case": stem, "error": told.as_dict()})
    failed = sum("error" in case for case in cases)
    report = {
        "cases": cases,
        "pooled": pool.as_dict(),
        "without_reference": sorted(set(ours) - set(theirs)),
        "failed": failed,
    }
    console.result(report, _as_summary(report))
    return 1 if failed else 0


def _missing(stem: str, folder: Path) -> InputError:
    return InputError(
        f"{folder} has no prediction named {stem}.",
        "A result that is missing cannot count as if it were not asked for.",
        "Segment that case too, or move its reference elsewhere.",
    )


def _by_stem(folder: Path) -> dict[str, Path]:
    from ..files import LABEL_SUFFIXES, suffix_of
    from .cases import stem_of

    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir() or path.name.startswith(".") or suffix_of(path) not in LABEL_SUFFIXES:
            continue
        stem = stem_of(path)
        if stem in files:
            raise InputError(
                f"{folder} holds {files[stem].name} and {path.name}.",
                f"Which of them is the label map of {stem} is not known.",
                "Keep one label map per case in the folder.",
            )
        files[stem] = path
    if not files:
        raise InputError(
            f"{folder} holds no label map.",
            "There is nothing to compare.",
            f"Use files in {', '.join(LABEL_SUFFIXES)}.",
        )
    return files


def _as_table(evaluation: Evaluation) -> str:
    rows: list[tuple[str, ...]] = [("label", "Dice", "HD95 mm", "ASSD mm", "mL", "reference mL", "difference mL")]
    for value, score in evaluation.labels.items():
        measures = (score.dice, score.hd95_mm, score.assd_mm)
        volumes = (f"{score.volume_ml:.2f}", f"{score.reference_volume_ml:.2f}", f"{score.volume_difference_ml:+.2f}")
        rows.append((f"{value} {score.name}", *map(_number, measures), *volumes))
    if not evaluation.labels:
        return "Neither file has a label; there is nothing to compare."
    return f"{_aligned(rows)}\nmean Dice {_number(evaluation.mean_dice)}"


def _as_summary(report: Mapping[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [
        ("all cases", "cases", "Dice, pooled", "Dice, mean", "HD95 mm, mean", "ASSD mm, mean")
    ]
    for value, label in report["pooled"]["labels"].items():
        means = (label["dice"], label["mean_case_dice"], label["mean_hd95_mm"], label["mean_assd_mm"])
        rows.append((f"{value} {label['name']}", str(label["cases"]), *map(_number, means)))
    failed = f", {report['failed']} failed" if report["failed"] else ""
    return f"{_aligned(rows)}\nmean pooled Dice {_number(report['pooled']['mean_dice'])}{failed}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns: the first to the left, all others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)

"""`apformer evaluate`: label maps against references, case by case and pooled."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, UsageError
from . import options as option
from .console import Console, as_user_error

if TYPE_CHECKING:
    from ..metrics import Evaluation, LabelScore

_DESCRIPTION = """\
Compare label maps: Dice, 95 % Hausdorff distance and average surface distance in mm, volumes in mL. PRED and REF are
two files, or two folders whose files belong together by name, whatever their formats. Labels are matched by name where
both files have names (.seg.nrrd, or --labels or --model for files without), else by number, which is told. A label that
no reference has is judged by nobody and shown as "-"; what was found of it is a false positive."""


def add_parser(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "evaluate", parents=[shared], help="label maps against references", description=_DESCRIPTION
    )
    parser.add_argument("prediction", type=option.path, metavar="PRED", help="label map, or a folder of label maps")
    parser.add_argument("reference", type=option.path, metavar="REF", help="the reference, or a folder of references")
    parser.add_argument(
        "--model", metavar=option.MODEL, help="name the labels as this model does, and compare only those"
    )
    parser.add_argument(
        "--labels", action="append", default=[], metavar="NAMES", help="names for files without: 1=Liver,2=Tumor"
    )
    parser.add_argument(
        "--map", action="append", default=[], metavar="PRED=REF", help="which label is which where names differ"
    )
    parser.add_argument("--by-number", action="store_true", help="compare label values although there are names")
    option.add_threshold(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, console: Console) -> int:
    if options.prediction.is_dir() != options.reference.is_dir():
        raise UsageError(
            "One of PRED and REF is a folder and the other is not.",
            "Which files belong together is not known.",
            "Name two files or two folders.",
        )
    pool = _Pool(_how(options))
    if options.prediction.is_dir():
        return _evaluate_folders(options.prediction, options.reference, pool, console)
    evaluation, notes = pool.add(options.prediction, options.reference)
    for note in notes:
        console.warn(note)
    console.result({**evaluation.as_dict(), "notes": list(notes)}, _as_table(evaluation))
    return 0


def _how(options: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of `read_pair` that the command line asks for."""
    from ..datasets.table import make_table, read_mapping

    if options.model and options.labels:
        raise UsageError("--model and --labels contradict each other.", "Both name labels.", "Give one of them.")
    mapping = read_mapping(options.map)
    if None in mapping.values():
        raise UsageError(
            "A part of --map names no label of the reference.",
            "Which label is meant is not known.",
            "Write PRED=REF, for example Leber=Liver.",
        )
    how = {"mapping": mapping, "by_number": options.by_number, "threshold": options.threshold}
    if options.model:
        return {**how, **model_names(options.model)}
    return {**how, "table": {label.value: label.name for label in make_table(options.labels)} or None}


def model_names(model: str) -> dict[str, Any]:
    """The keyword arguments of `read_pair` that name the labels as a model does, and compare only those."""
    from ..bundles import ModelLibrary

    names = {label.value: label.name for label in ModelLibrary().find(model).labels}
    return {"table": names, "only": list(names.values())}


class _Pool:
    """Scores over cases, by label name: a label may have another value in each case.

    Args:
        how: keyword arguments of `read_pair`.
    """

    def __init__(self, how: Mapping[str, Any]) -> None:
        self._how = how
        self._scores: dict[str, list[tuple[int, LabelScore]]] = {}  # plain name -> (value there, score) of each case

    def add(self, prediction_file: Path, reference_file: Path) -> tuple[Evaluation, tuple[str, ...]]:
        """Compare one pair of files and count it in; and what the user should know."""
        from ..metrics import evaluate
        from ..names import plain
        from ..pairing import read_pair

        pair = read_pair(prediction_file, reference_file, **self._how)
        evaluation = evaluate(pair.prediction, pair.reference, pair.names)
        for value, score in evaluation.labels.items():
            self._scores.setdefault(plain(score.name), []).append((value, score))
        return evaluation, pair.notes

    def as_dict(self) -> dict[str, Any]:
        """Per label: Dice over all voxels of all cases, the mean over the cases of each measure, false positives.

        Keys are the label's value in its first case, or its name where another label has that value.
        """
        from ..metrics import over_cases

        labels: dict[str, Any] = {}
        for value, found in sorted((found[0][0], found) for found in self._scores.values()):
            scores = [score for _, score in found]
            together = over_cases([score.overlap for score in scores])
            labels[str(value) if str(value) not in labels else scores[0].name] = {
                "name": scores[0].name,
                "cases": len(scores),
                "dice": together.pooled_dice,
                "mean_case_dice": together.mean_dice,
                "mean_hd95_mm": _mean([score.hd95_mm for score in scores]),
                "mean_assd_mm": _mean([score.assd_mm for score in scores]),
                "false_positive_ml": sum(score.false_positive_ml for score in scores),
                "false_positive_cases": together.false_positive_cases,
            }
        return {"labels": labels, "mean_dice": _mean([label["dice"] for label in labels.values()])}


def _mean(numbers: Sequence[float | None]) -> float | None:
    """The mean of those that are defined; None when none is."""
    defined = [number for number in numbers if number is not None]
    return sum(defined) / len(defined) if defined else None


def _evaluate_folders(predictions: Path, references: Path, pool: _Pool, console: Console) -> int:
    ours, theirs = _by_stem(predictions), _by_stem(references)
    for stem in sorted(set(ours) - set(theirs)):
        console.warn(f"{ours[stem]} has no reference in {references}; it was left out")
    cases: list[dict[str, Any]] = []
    told: set[str] = set()
    for stem, reference in theirs.items():
        try:
            if stem not in ours:
                raise _missing(stem, predictions)
            evaluation, notes = pool.add(ours[stem], reference)
            cases.append({"case": stem, **evaluation.as_dict(), "notes": list(notes)})
            for note in notes:
                if note not in told:  # the same for every case of a folder, most often
                    console.warn(f"{stem}: {note}")
            told.update(notes)
            console.say(f"{stem}\n{_as_table(evaluation)}")
        except Exception as error:  # noqa: BLE001  one bad case must not cost the others
            complaint = as_user_error(error)
            console.complain(complaint, error, about=stem)
            cases.append({"case": stem, "error": complaint.as_dict()})
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
    wrong = {score.name: score.false_positive_ml for score in evaluation.labels.values() if score.false_positive_ml}
    return "\n".join([_aligned(rows), f"mean Dice {_number(evaluation.mean_dice)}", *_false_positives(wrong)])


def _as_summary(report: Mapping[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [
        ("all cases", "cases", "Dice, pooled", "Dice, mean", "HD95 mm, mean", "ASSD mm, mean")
    ]
    labels = report["pooled"]["labels"]
    for value, label in labels.items():
        means = (label["dice"], label["mean_case_dice"], label["mean_hd95_mm"], label["mean_assd_mm"])
        rows.append((f"{value} {label['name']}", str(label["cases"]), *map(_number, means)))
    failed = f", {report['failed']} failed" if report["failed"] else ""
    mean = f"mean pooled Dice {_number(report['pooled']['mean_dice'])}{failed}"
    wrong = {label["name"]: label["false_positive_ml"] for label in labels.values() if label["false_positive_ml"]}
    return "\n".join([_aligned(rows), mean, *_false_positives(wrong)])


def _false_positives(wrong: Mapping[str, float]) -> list[str]:
    """A line about what was found where the reference has nothing: label -> mL."""
    found = ", ".join(f"{name} {volume:.2f} mL" for name, volume in wrong.items())
    return [f"found where the reference has none: {found}"] if found else []


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

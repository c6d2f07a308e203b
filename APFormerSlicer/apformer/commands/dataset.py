"""`apformer dataset`: a site's own labelled cases."""

from __future__ import annotations

import argparse
import getpass
import re
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from . import options as option
from .console import Console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..bundles import Bundle, Label
    from ..datasets import ImportReport, SiteCase, SiteDataset, Split
    from ..datasets.imports import Source

_STATUSES = ("in progress", "completed", "flagged")
_DESCRIPTION = """\
Keep a site's labelled cases for training. Images are copied on their own grid; DICOM tags and file names are dropped,
and patient IDs become pseudonyms. Labels are matched by name. Every correction keeps the older labels."""


def add_parser(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("dataset", help="keep labelled cases for training", description=_DESCRIPTION)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    def action(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = actions.add_parser(name, parents=[shared], help=text, description=text)
        added.set_defaults(run=function)
        added.add_argument("dataset", type=option.path, metavar="DIR", help="folder of the data set")
        return added

    init = action("init", _init, "make an empty data set in a new folder")
    init.add_argument(
        "--labels", action="append", default=[], metavar="NAMES", help="Liver,Tumor or 1=Liver,2=Tumor; can be repeated"
    )
    init.add_argument(
        "--base", metavar=option.MODEL, help="take the labels of this model, with their codes and colours"
    )
    _add_case_parsers(action)
    _add_label_parsers(action)
    check = action("check", _check, "explain what would spoil a training; exit status 1 when something blocks it")
    check.add_argument("--base", metavar=option.MODEL, help="compare with the model that fine-tuning would start from")
    check.add_argument("--quick", action="store_true", help="look at the index only, not at the files")
    split = action("split", _split, "show which patients train and which validate")
    split.add_argument("--freeze", action="store_true", help="draw the split now; the first training does it otherwise")
    split.add_argument(
        "--redraw", action="store_true", help="draw a new one; figures from before cannot be compared with those after"
    )
    decathlon = action("import-decathlon", _import_decathlon, "add the cases of a Decathlon or nnU-Net folder")
    decathlon.add_argument("source", type=option.path, metavar="SOURCE", help="folder with a dataset.json")
    decathlon.add_argument("--add-labels", action="store_true", help="add labels that the data set does not have yet")
    pairs = action("import-pairs", _import_pairs, "add images and masks that belong together by name")
    pairs.add_argument("images", type=option.path, metavar="IMAGES", help="folder of images, or one image")
    pairs.add_argument("masks", type=option.path, metavar="MASKS", help="folder of label maps, or one label map")
    for imported in (decathlon, pairs):
        imported.add_argument(
            "--patient-pattern", metavar="REGEX", help="what of a file name is the patient, e.g. '^(?P<patient>[^_]+)_'"
        )
        imported.add_argument("--correct", action="store_true", help="replace labels of known images that differ")
        imported.add_argument("--status", choices=_STATUSES, default="completed")
        option.add_threshold(imported)
        _add_mapping(imported)
        _add_outlined(imported, "what the source says")
        _add_who(imported)
    export = action("export", _export, "write completed cases in Decathlon layout")
    export.add_argument("output", type=option.path, metavar="OUT", help="a new or empty folder")
    export.add_argument("--status", choices=_STATUSES, default="completed", help="which cases")


def _add_case_parsers(action: Any) -> None:
    add = action("add", _add, "add an image and its labels as a case")
    add.add_argument("image", type=option.path, metavar="IMAGE", help="image file, or folder with a DICOM series")
    add.add_argument("--labels", type=option.path, metavar="FILE", help="label map; names come from a .seg.nrrd")
    add.add_argument(
        "--patient", metavar="ID", help="whose image it is; kept as a pseudonym (default: DICOM PatientID)"
    )
    option.add_dicom(add)
    add.add_argument("--modality", metavar="NAME", help="CT, MR, RGB, ...; DICOM files say it themselves")
    add.add_argument("--correct", action="store_true", help="replace the labels of an image that is there already")
    correct = action("correct", _correct, "give a case new labels or another status, or restore older labels")
    correct.add_argument("case", metavar="CASE")
    correct.add_argument("--labels", type=option.path, metavar="FILE", help="the new label map")
    correct.add_argument("--restore", type=option.positive, metavar="N", help="go back to version N of the labels")
    for changed in (add, correct):
        changed.add_argument("--status", choices=_STATUSES, help="only completed cases are trained on")
        changed.add_argument("--proposed-by", metavar="MODEL", help="the model whose output the labels are")
        changed.add_argument("--comment", metavar="TEXT", help="kept in the history; name no patient in it")
        option.add_threshold(changed)
        _add_mapping(changed)
        _add_outlined(changed, "all of the table; what was before, where labels are replaced")
        _add_who(changed)
    listed = action("list", _list, "the cases")
    listed.add_argument("--status", choices=_STATUSES, help="only those")
    for name, function, text in (("show", _show, "a case and its history"), ("remove", _remove, "remove a case")):
        action(name, function, text).add_argument("case", metavar="CASE")


def _add_label_parsers(action: Any) -> None:
    add_label = action("add-label", _add_label, "add a label to the table")
    add_label.add_argument("name", metavar="NAME")
    add_label.add_argument("--value", type=option.positive, metavar="N", help="its value in label maps (lowest free)")
    add_label.add_argument("--color", type=_color, metavar="RRGGBB", help="its colour, hexadecimal")
    rename_label = action("rename-label", _rename_label, "change the name of a label")
    rename_label.add_argument("name", metavar="OLD")
    rename_label.add_argument("new_name", metavar="NEW")


def _add_mapping(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="FILE=TABLE",
        help="what labels of the file are: 1=Liver, Leber=Liver; 3= leaves out, 3=ignore is unknown",
    )


def _add_outlined(parser: argparse.ArgumentParser, default: str) -> None:
    """What is said of structures that do not occur: looked for and not there, or not looked for."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--outlined",
        action="append",
        metavar="NAMES",
        help="structures that were outlined, where they occur or not; all others are unknown, not absent (default: "
        f"{default})",
    )
    either.add_argument(
        "--others-unknown", action="store_true", help="only what occurs in the label map was outlined in it"
    )


def _outlined(options: argparse.Namespace) -> list[str] | None:
    if options.others_unknown:
        return []
    if options.outlined is None:
        return None
    return [name.strip() for text in options.outlined for name in text.split(",") if name.strip()]


def _add_who(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--who", metavar="NAME", help="who labelled (default: the user of this computer)")


def _color(text: str) -> tuple[int, int, int]:
    if not re.fullmatch(r"#?[0-9A-Fa-f]{6}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not six hexadecimal digits such as dd8265")
    red, green, blue = bytes.fromhex(text.removeprefix("#"))
    return red, green, blue


def _who(options: argparse.Namespace) -> str | None:
    if options.who is not None:
        return str(options.who)
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a system without user names
        return None


def _open(options: argparse.Namespace) -> SiteDataset:
    from ..datasets import SiteDataset

    return SiteDataset.open(options.dataset)


def _model(name: str | None) -> Bundle | None:
    from ..bundles import ModelLibrary

    return None if name is None else ModelLibrary().find(name)


def _init(options: argparse.Namespace, console: Console) -> int:
    from ..datasets import SiteDataset
    from ..datasets.table import make_table, with_label

    base = _model(options.base)
    table = make_table(options.labels) if base is None else base.labels
    for label in make_table(options.labels) if base is not None else ():
        table = with_label(table, label.name)
    dataset = SiteDataset.create(options.dataset, table)
    labels = ", ".join(f"{label.value} {label.name}" for label in table) or "none yet"
    data = {"dataset": str(dataset.root), "labels": [label.as_dict() for label in table]}
    console.result(data, f"A data set was made in {dataset.root}\nlabels: {labels}")
    return 0


def _add(options: argparse.Namespace, console: Console) -> int:
    from ..datasets.table import read_mapping

    dataset = _open(options)
    case, notes = dataset.add(
        options.image,
        options.labels,
        status=options.status,
        patient=options.patient,
        mapping=read_mapping(options.map),
        modality=options.modality,
        series_uid=options.series,
        skip=options.skip,
        proposed_by=options.proposed_by,
        who=_who(options),
        comment=options.comment,
        correct=options.correct,
        threshold=options.threshold,
        outlined=_outlined(options),
    )
    for note in notes:
        console.warn(note)
    console.result({**_outline(case), "notes": list(notes)}, _line(case, dataset.labels))
    return 0


def _correct(options: argparse.Namespace, console: Console) -> int:
    from ..datasets.table import read_mapping

    outlined = _outlined(options)
    if all(given is None for given in (options.labels, options.restore, options.status, options.comment, outlined)):
        raise UsageError(
            "Nothing was given that would change the case.",
            "A correction is new labels, older ones, what was outlined, a status or a comment.",
            "Give --labels, --restore, --outlined, --status or --comment.",
        )
    if options.labels is not None and options.restore is not None:
        raise UsageError(
            "--labels and --restore contradict each other.", "Which labels are meant is not known.", "Give one of them."
        )
    dataset = _open(options)
    case = dataset.correct(
        options.case,
        options.labels,
        restore=options.restore,
        status=options.status,
        mapping=read_mapping(options.map),
        proposed_by=options.proposed_by,
        who=_who(options),
        comment=options.comment,
        threshold=options.threshold,
        outlined=outlined,
        tell=console.warn,
    )
    console.result(_outline(case), _line(case, dataset.labels))
    return 0


def _list(options: argparse.Namespace, console: Console) -> int:
    dataset = _open(options)
    cases = dataset.cases(options.status)
    data = {
        "dataset": str(dataset.root),
        "labels": [label.as_dict() for label in dataset.labels],
        "cases": [_outline(case) for case in cases],
    }
    head = "labels: " + (", ".join(f"{label.value} {label.name}" for label in dataset.labels) or "none")
    patients = len({case.patient for case in cases})
    lines = [_line(case, dataset.labels) for case in cases]
    console.result(data, "\n".join([head, *lines, f"{len(cases)} cases of {patients} patients"]))
    return 0


def _outline(case: SiteCase) -> dict[str, Any]:
    image, revision = case.image, case.revision
    return {
        "case": case.name,
        "patient": case.patient,
        "status": case.status,
        "modality": case.modality,
        "shape_ijk": list(reversed(image.shape_kji)),
        "spacing_mm": list(image.spacing_ijk),
        "channels": image.channels,
        "voxels": {str(value): count for value, count in revision.counts.items()} if revision else {},
        "labelled": list(revision.labelled) if revision and revision.labelled is not None else None,
        "version": case.current,
        "proposed_by": revision.proposed_by if revision else None,
        "who": case.history[-1].who,
        "when": case.history[-1].when,
    }


def _line(case: SiteCase, table: Sequence[Label]) -> str:
    size = " x ".join(map(str, reversed(case.image.shape_kji)))
    labels = f"labels version {case.current}" if case.current else "no labels"
    outlined = [label for label in table if case.revision is not None and case.revision.outlines(label.value)]
    if case.current and len(outlined) < len(table):
        labels += f", {len(outlined)} of {len(table)} structures outlined"
    last = case.history[-1]
    by = f" by {last.who}" if last.who else ""
    return f"{case.name}  {case.status}  {case.patient}  {case.modality or '-'} {size}  {labels}  {last.when}{by}"


def _show(options: argparse.Namespace, console: Console) -> int:
    from ..datasets.case import UNKNOWN

    dataset = _open(options)
    case = dataset.case(options.case)
    labels_path = case.labels_path
    data = {
        **_outline(case),
        "image": str(case.image_path),
        "labels": str(labels_path) if labels_path else None,
        "versions": [revision.as_dict() for revision in case.revisions],
        "history": [vars(event) for event in case.history],
        "source": case.source,
        "collection": case.collection,
        "licence": case.licence,
    }
    names = {label.value: label.name for label in dataset.labels}
    lines = [_line(case, dataset.labels), f"image: {case.image_path}", f"labels: {labels_path or 'none'}"]
    for value, count in (case.revision.counts if case.revision else {}).items():
        name = names.get(value, "unknown" if value == UNKNOWN else "?")
        lines.append(f"  {value} {name}: {count} voxels, {count * case.image.voxel_ml:.3g} mL")
    for value, name in names.items():
        if case.revision is not None and not case.revision.outlines(value):
            lines.append(f"  {value} {name}: not outlined")
    for event in case.history:
        said = "".join([f" by {event.who}" if event.who else "", f": {event.comment}" if event.comment else ""])
        lines.append(f"  {event.when}  {event.what}, {event.status}, labels version {event.revision}{said}")
    console.result(data, "\n".join(lines))
    return 0


def _remove(options: argparse.Namespace, console: Console) -> int:
    _open(options).remove(options.case)
    console.result({"removed": options.case}, f"{options.case} was removed")
    return 0


def _add_label(options: argparse.Namespace, console: Console) -> int:
    label = _open(options).add_label(options.name, options.value, options.color)
    console.result(label.as_dict(), f"{label.value} {label.name} was added to the labels")
    return 0


def _rename_label(options: argparse.Namespace, console: Console) -> int:
    label = _open(options).rename_label(options.name, options.new_name)
    console.result(label.as_dict(), f"{options.name} is called {label.name} now")
    return 0


def _check(options: argparse.Namespace, console: Console) -> int:
    from ..datasets import BLOCKS, check_dataset

    dataset = _open(options)
    with console.progress("check") as report:
        problems = check_dataset(
            dataset,
            _model(options.base),
            read_files=not options.quick,
            progress=lambda done, total: report(done / total, f"{done} of {total} cases"),
        )
    blocked = any(problem.severity == BLOCKS for problem in problems)
    lines = [f"{problem.severity}: {problem.what}\n  {problem.meaning}\n  {problem.remedy}" for problem in problems]
    verdict = "Training cannot start like this." if blocked else "Nothing stands in the way of training."
    data = {"ready": not blocked, "problems": [problem.as_dict() for problem in problems]}
    console.result(data, "\n".join([*lines, verdict]))
    return 1 if blocked else 0


def _split(options: argparse.Namespace, console: Console) -> int:
    dataset = _open(options)
    freeze = options.freeze or options.redraw
    split = dataset.freeze_split(redraw=options.redraw) if freeze else dataset.planned_split()
    frozen = dataset.split == split
    rounds = [_round(dataset, split, fold) for fold in range(split.rounds)]
    data = {"kind": split.kind, "frozen": split.frozen if frozen else None, "rounds": rounds}
    kind = f"{split.rounds}-fold cross-validation" if split.is_cross_validation else "a single split"
    state = f"frozen {split.frozen}" if frozen else "not frozen yet; the first training, or --freeze, does it"
    lines = [f"{kind}, {state}"]
    for number, sides in enumerate(rounds, 1):
        counted = ", ".join(f"{len(sides[side])} {side}" for side in ("training", "validation"))
        lines.append(
            f"{f'fold {number}: ' if split.is_cross_validation else ''}{counted}: {' '.join(sides['validation'])}"
        )
    console.result(data, "\n".join(lines))
    return 0


def _round(dataset: SiteDataset, split: Split, fold: int) -> dict[str, list[str]]:
    training, validation = split.divide(dataset.cases(), fold)
    return {"training": [case.name for case in training], "validation": [case.name for case in validation]}


def _import_decathlon(options: argparse.Namespace, console: Console) -> int:
    from ..datasets import read_decathlon

    return _import(options, console, read_decathlon(options.source), options.add_labels)


def _import_pairs(options: argparse.Namespace, console: Console) -> int:
    from ..datasets import read_pairs

    return _import(options, console, read_pairs(options.images, options.masks), False)


def _import(options: argparse.Namespace, console: Console, source: Source, add_labels: bool) -> int:
    from ..datasets import import_cases
    from ..datasets.table import read_mapping

    dataset = _open(options)
    with console.progress("import") as report:
        done: ImportReport = import_cases(
            dataset,
            source,
            patient_pattern=options.patient_pattern,
            mapping=read_mapping(options.map),
            add_labels=add_labels,
            status=options.status,
            correct=options.correct,
            who=_who(options),
            threshold=options.threshold,
            outlined=_outlined(options),
            progress=lambda number, total: report(number / total, f"{number} of {total} cases"),
        )
    for note in done.notes:
        console.warn(note)
    for stem, error in done.failed.items():
        console.complain(error, about=stem)
    patients = len({dataset.case(name).patient for name in done.added})
    text = f"{len(done.added)} cases of {patients} patients were added"
    for count, what in ((done.corrected, "corrected"), (done.unchanged, "there already"), (done.failed, "failed")):
        text += f", {len(count)} {what}" if count else ""
    console.result({**done.as_dict(), "patients": patients}, text)
    return 1 if done.failed else 0


def _export(options: argparse.Namespace, console: Console) -> int:
    from ..datasets import export_decathlon

    with console.progress("export") as report:
        done = export_decathlon(
            _open(options),
            options.output,
            status=options.status,
            progress=lambda number, total: report(number / total, f"{number} of {total} cases"),
        )
    for name, error in done.failed.items():
        console.complain(error, about=name)
    failed = {name: error.as_dict() for name, error in done.failed.items()}
    data = {"folder": str(done.folder), "cases": list(done.cases), "failed": failed}
    console.result(data, f"{len(done.cases)} cases were written to {done.folder}")
    return 1 if failed else 0

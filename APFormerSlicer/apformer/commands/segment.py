"""`apformer segment`: images to label maps."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import UsageError
from . import options as option
from .console import Console, as_user_error

if TYPE_CHECKING:
    from ..bundles import Bundle
    from ..inference import Segmenter
    from .outputs import Task

_DESCRIPTION = """\
Segment images with a model. IN is a NIfTI, NRRD, MHA, PNG, JPEG or DICOM file, a folder with a DICOM series, or a
folder of such files and folders; several may be named. The label map has the voxel grid of its image and the label
values of the model."""


def add_parser(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("segment", parents=[shared], help="images to label maps", description=_DESCRIPTION)
    parser.add_argument(
        "inputs", nargs="+", type=option.path, metavar="IN", help="image, DICOM folder, folder of these"
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=option.path,
        metavar="OUT",
        help="label map (.seg.nrrd .nii.gz .nii .nrrd .mha .dcm .png), or a folder",
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar=option.MODEL,
        help="installed model, its active version unless one is named; or a model's folder",
    )
    option.add_device(parser)
    parser.add_argument(
        "--roi",
        type=option.roi,
        metavar="BOX",
        help="segment only there: i0:i1,j0:j1,k0:k1 (voxels) or r0,r1,a0,a1,s0,s1 (RAS bounds in mm)",
    )
    option.add_maps(parser)
    option.add_dicom(parser)
    parser.add_argument("--format", metavar="SUFFIX", help="format of label maps in a folder, such as .seg.nrrd")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, console: Console) -> int:
    from .cases import find_cases
    from .outputs import place_outputs

    cases, batch = find_cases(options.inputs)
    suffix = None if options.format is None else _label_suffix(options.format)
    # before the model is loaded: a place that cannot be written to is told at once
    tasks = place_outputs(cases, batch=batch, output=options.output, suffix=suffix, maps=option.maps(options))
    segmenter = _load(options.model, options.device)
    if batch:
        reports = [_attempt(task, segmenter, options, console) for task in tasks]
    else:
        reports = [_segment(tasks[0], segmenter, options, console)]
    failed = sum("error" in report for report in reports)
    summary = {
        "model": describe_model(segmenter.bundle),
        "cases": reports,
        "succeeded": len(reports) - failed,
        "failed": failed,
    }
    console.result(summary, _as_text(reports, batch))
    return 1 if failed else 0


def describe_model(bundle: Bundle) -> dict[str, str]:
    """What identifies the model in reports and files."""
    return {"name": bundle.name, "version": bundle.version, "checksum": bundle.checksum}


def provenance(bundle: Bundle, device: str) -> dict[str, str]:
    """What made a label map, for its header."""
    return {
        "model": bundle.name,
        "model_version": bundle.version,
        "model_checksum": bundle.checksum,
        "program": f"APFormerSlicer {__version__}",
        "device": device,
        "date": datetime.now().astimezone().isoformat(timespec="milliseconds"),
    }


def _label_suffix(text: str) -> str:
    from ..files import LABEL_SUFFIXES

    suffix = "." + text.lower().lstrip(".")
    if suffix not in LABEL_SUFFIXES:
        raise UsageError(
            f"--format {text} is no format that can be written.",
            "Nothing was started.",
            f"Choose one of {', '.join(LABEL_SUFFIXES)}.",
        )
    return suffix


def _load(model: str, device: str) -> Segmenter:
    from ..bundles import ModelLibrary
    from ..inference import Segmenter, choose_device

    choose_device(device)  # an absent device is told before weights are read
    return Segmenter(ModelLibrary().find(model), device)


def _attempt(task: Task, segmenter: Segmenter, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The report of one case of a batch; a case that fails is reported and the batch goes on."""
    try:
        return _segment(task, segmenter, options, console)
    except Exception as error:  # noqa: BLE001  one bad case must not cost the others
        told = as_user_error(error)
        console.complain(told, error, about=str(task.case.source))
        return {"input": str(task.case.source), "error": told.as_dict()}


def _segment(task: Task, segmenter: Segmenter, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    from ..files import read_volume, write_labels, write_scalar
    from ..volume import Roi
    from .outputs import check_format

    source, bundle = task.case.source, segmenter.bundle
    console.say(f"segmenting {source}")
    series = options.series if source.is_dir() else None
    volume = read_volume(source, series_uid=series, skip=options.skip)
    check_format(task, volume)
    roi = None if options.roi is None else Roi.parse(options.roi, volume)
    with console.progress(task.case.stem) as report:
        wanted = {name: name in task.maps for name in option.MAPS}
        result = segmenter.segment(volume, roi=roi, progress=report, **wanted)
    warnings = list(dict.fromkeys([*volume.notes, *result.warnings]))
    for warning in warnings:
        named = warning.startswith((f"{source}: ", f"{source.name}: "))  # what readers note names its file
        console.warn(warning if named else f"{source}: {warning}")
    made_by = provenance(bundle, result.device)
    for name, path in task.maps.items():
        write_scalar(path, getattr(result, name))
    write_labels(task.labels, result.labels, bundle.labels, reference=volume, provenance=made_by)
    return {
        "input": str(source),
        "output": str(task.labels),
        **{name: str(task.maps[name]) if name in task.maps else None for name in option.MAPS},
        "device": result.device,
        "seconds": round(result.seconds, 3),
        "volumes_ml": result.volumes_ml,
        "dense_reruns": result.dense_reruns,
        "warnings": warnings,
    }


def _as_text(reports: Sequence[dict[str, Any]], batch: bool) -> str:
    lines: list[str] = []
    for report in reports:
        name = Path(report["input"])
        if "error" in report:
            lines.append(f"{name}: failed")
            continue
        lines.append(f"{name} -> {report['output']} ({report['seconds']:.1f} s on {report['device']})")
        lines += [f"  {label}: {volume:.2f} mL" for label, volume in report["volumes_ml"].items()]
    if batch:
        failed = sum("error" in report for report in reports)
        lines.append(f"{len(reports) - failed} of {len(reports)} segmented" + (f", {failed} failed" if failed else ""))
    return "\n".join(lines)

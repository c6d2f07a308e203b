"""`segment`: an image to a label map, and maps of uncertainty and of where the network looked.

Fields: image (file or DICOM folder; series) or array {file, ijk_to_ras, modality, picture}; model; device; roi;
outputs {labels, uncertainty, kept_tokens}, of which the last two may be left out; doubt (how unsure the model is of the
whole case is told with a map of uncertainty, and with this also without one).

Outputs that end in .npy are for hosts, which put them onto a scene without looking at a voxel: each is a plain array
(labels and kept_tokens uint8, uncertainty float32), cut to the box around what is not 0; "parts" tells where the boxes
lie, "structures" of each label its voxels and its box, "places" where the network was most unsure. Uncertainty below
`FAINTEST_SHOWN` is 0 there. A .json beside the labels tells the rest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...commands.options import MAPS
from ..image import Image
from ..messages import Fields, RequestError, plain

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from ...bundles import Bundle
    from ...inference import Result
    from ...part import Part
    from ...volume import Volume
    from ..job import Job

FAINTEST_SHOWN = 0.05  # half of what hosts show of a map of uncertainty; nearly every voxel has more than 0


@dataclass(frozen=True)
class Arguments:
    """A request to segment. `outputs`: "labels", and the maps that are wanted, to files."""

    image: Image
    model: str
    device: str
    roi: str | None
    outputs: dict[str, Path]
    doubt: bool


def parse(fields: Fields) -> Arguments:
    outputs = fields.section("outputs")
    paths = {"labels": outputs.path("labels")} | {name: outputs.path(name) for name in MAPS if outputs.has(name)}
    outputs.close()
    image = Image.parse(fields)
    places = [os.path.realpath(path).casefold() for path in (image.path, *paths.values())]
    if len(set(places)) < len(places):
        raise RequestError("Two of the image and the outputs are the same file.", "Choose another output.")
    named = fields.text("model"), fields.text("device", "auto"), fields.optional_text("roi")
    return Arguments(image, *named, paths, fields.flag("doubt"))


def run(job: Job) -> dict[str, Any]:
    from ...case_doubt import case_doubt
    from ...commands.cases import Case
    from ...commands.outputs import Task, check_format, check_writable
    from ...places import uncertain_places
    from ...volume import Roi

    asked: Arguments = job.arguments
    for path in asked.outputs.values():  # a place that cannot be written to is told before anything is computed
        check_writable(path)
    job.progress(0.0, "loading the model")
    segmenter = job.warm.segmenter(asked.model, asked.device)
    job.progress(0.0, "reading the image")
    volume = asked.image.read()
    maps = {name: asked.outputs[name] for name in MAPS if name in asked.outputs}
    check_format(Task(Case(asked.image.path, "image"), asked.outputs["labels"], maps), volume)
    roi = None if asked.roi is None else Roi.parse(asked.roi, volume)
    with checked_between_tiles(segmenter.network, job.check):
        wanted = dict.fromkeys([*maps, *(["uncertainty"] if asked.doubt else [])], True)
        result = segmenter.segment(volume, roi=roi, progress=job.progress, **wanted)
    report = describe(result, segmenter.bundle, volume, asked.outputs)
    parts = cut(asked.outputs, result)
    if "labels" in parts:
        report["structures"] = structures(parts["labels"], segmenter.bundle)
    if result.uncertainty is not None:
        report["doubt"] = round(case_doubt(result.labels.array, result.uncertainty.array), 4)
    if "uncertainty" in parts and result.uncertainty is not None:
        job.progress(1.0, "finding the places to check")
        found = uncertain_places(result.uncertainty.array, volume.ijk_to_ras)
        report["places"] = [place.as_dict() for place in found]
    job.progress(1.0, "writing")
    write(asked.outputs, parts, result, segmenter.bundle, volume, report)
    return report


@contextmanager
def checked_between_tiles(network: nn.Module, check: Callable[[], None]) -> Iterator[None]:
    """`check` is called before every run of the network: progress is told only once per batch, or per volume in 3D."""
    handle = network.register_forward_pre_hook(lambda *_: check())
    try:
        yield
    finally:
        handle.remove()


def describe(result: Result, bundle: Bundle, volume: Volume, paths: dict[str, Path]) -> dict[str, Any]:
    """The result's data."""
    from ...commands.segment import describe_model

    return {
        "model": describe_model(bundle),
        "labels": bundle.metadata["labels"],
        "device": result.device,
        "seconds": round(result.seconds, 3),
        "volumes_ml": result.volumes_ml,
        "warnings": list(dict.fromkeys([*volume.notes, *result.warnings])),
        "dense_reruns": result.dense_reruns,
        "paths": {name: str(path) for name, path in paths.items()},
    }


def cut(paths: dict[str, Path], result: Result) -> dict[str, Part]:
    """What goes to .npy files, by its output's name."""
    import numpy as np

    from ...part import Part

    parts = {}
    for name in ("labels", *MAPS):
        if name not in paths or paths[name].suffix != ".npy":
            continue
        array = getattr(result, name).array
        if name == "uncertainty":
            array = np.where(array >= FAINTEST_SHOWN, array, np.float32(0))
        parts[name] = Part.of(array.astype(np.uint8) if name == "kept_tokens" else array)
    return parts


def structures(labels: Part, bundle: Bundle) -> dict[str, dict[str, Any]]:
    """Label name -> its number of "voxels", and the "box" around them as [[i0, i1], [j0, j1], [k0, k1]], half open."""
    import numpy as np
    import SimpleITK as sitk

    shapes = sitk.LabelShapeStatisticsImageFilter()
    if labels.array.size:
        shapes.Execute(sitk.GetImageFromArray(np.ascontiguousarray(labels.array)))
    found: dict[str, dict[str, Any]] = {label.name: {"voxels": 0, "box": None} for label in bundle.labels}
    first = labels.start_kji[::-1]
    for label in bundle.labels:
        if shapes.HasLabel(label.value):
            box = shapes.GetBoundingBox(label.value)
            ends = zip(first, box[:3], box[3:], strict=True)
            sides = [[offset + start, offset + start + size] for offset, start, size in ends]
            found[label.name] = {"voxels": shapes.GetNumberOfPixels(label.value), "box": sides}
    return found


def write(
    paths: dict[str, Path],
    parts: dict[str, Part],
    result: Result,
    bundle: Bundle,
    volume: Volume,
    report: dict[str, Any],
    more: Mapping[str, str] | None = None,
) -> None:
    """Every file complete or not at all; the labels last, so that all is there when they are.

    Args:
        more: provenance besides the model's and the program's.
    """
    from ...commands.segment import provenance
    from ...files import write_labels, write_scalar

    made_by = provenance(bundle, result.device) | dict(more or {})
    report["parts"] = {name: part.place() for name, part in parts.items()}
    report["provenance"] = made_by
    for name in MAPS:
        if name in parts:
            write_array(paths[name], parts[name].array)
        elif name in paths:
            write_scalar(paths[name], getattr(result, name))
    labels = paths["labels"]
    if "labels" in parts:
        grid = {"shape_kji": volume.spatial_shape, "ijk_to_ras": volume.ijk_to_ras}
        _write_json(labels.with_suffix(".json"), {**report, **grid})
        write_array(labels, parts["labels"].array)
    else:
        write_labels(labels, result.labels, bundle.labels, reference=volume, provenance=made_by)


def write_array(path: Path, array: np.ndarray) -> None:
    """A plain .npy file, complete or not at all."""
    import numpy as np

    from ...files import atomic_path

    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)


def _write_json(path: Path, data: dict[str, Any]) -> None:
    from ...files import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(plain(data), indent=1, allow_nan=False), encoding="utf-8")

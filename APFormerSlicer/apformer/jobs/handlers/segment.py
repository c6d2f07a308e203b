"""`segment`: an image to a label map, and maps of uncertainty and of where the network looked.

Fields: image (file or DICOM folder; series) or array {file, ijk_to_ras, modality, picture}; model; device; roi;
outputs {labels, uncertainty, kept_tokens}, of which the last two may be left out. Outputs that end in .npy hold plain
arrays (uint8 labels, float32 maps; the image's grid), and a .json beside the labels tells the rest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...commands.options import MAPS
from ..image import Image
from ..messages import Fields, RequestError, plain

if TYPE_CHECKING:
    from torch import nn

    from ...bundles import Bundle
    from ...inference import Result
    from ...volume import Volume
    from ..job import Job


@dataclass(frozen=True)
class Arguments:
    """A request to segment. `outputs`: "labels", and the maps that are wanted, to files."""

    image: Image
    model: str
    device: str
    roi: str | None
    outputs: dict[str, Path]


def parse(fields: Fields) -> Arguments:
    outputs = fields.section("outputs")
    paths = {"labels": outputs.path("labels")} | {name: outputs.path(name) for name in MAPS if outputs.has(name)}
    outputs.close()
    image = Image.parse(fields)
    places = [os.path.realpath(path).casefold() for path in (image.path, *paths.values())]
    if len(set(places)) < len(places):
        raise RequestError("Two of the image and the outputs are the same file.", "Choose another output.")
    return Arguments(image, fields.text("model"), fields.text("device", "auto"), fields.optional_text("roi"), paths)


def run(job: Job) -> dict[str, Any]:
    from ...commands.cases import Case
    from ...commands.outputs import Task, check_format, check_writable
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
        result = segmenter.segment(volume, roi=roi, progress=job.progress, **dict.fromkeys(maps, True))
    job.progress(1.0, "writing")
    report = describe(result, segmenter.bundle, volume, asked.outputs)
    write(asked.outputs, result, segmenter.bundle, volume, report)
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


def write(paths: dict[str, Path], result: Result, bundle: Bundle, volume: Volume, report: dict[str, Any]) -> None:
    """Every file complete or not at all; the labels last, so that all is there when they are."""
    from ...commands.segment import provenance
    from ...files import write_labels, write_scalar

    made_by = provenance(bundle, result.device)
    for name in MAPS:
        if name not in paths:
            continue
        if paths[name].suffix == ".npy":
            _write_array(paths[name], getattr(result, name))
        else:
            write_scalar(paths[name], getattr(result, name))
    labels = paths["labels"]
    if labels.suffix == ".npy":
        grid = {"shape_kji": volume.spatial_shape, "ijk_to_ras": volume.ijk_to_ras}
        _write_json(labels.with_suffix(".json"), {**report, **grid, "provenance": made_by})
        _write_array(labels, result.labels)
    else:
        write_labels(labels, result.labels, bundle.labels, reference=volume, provenance=made_by)


def _write_array(path: Path, volume: Volume) -> None:
    import numpy as np

    from ...files import atomic_path

    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, volume.array, allow_pickle=False)


def _write_json(path: Path, data: dict[str, Any]) -> None:
    from ...files import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(plain(data), indent=1, allow_nan=False), encoding="utf-8")

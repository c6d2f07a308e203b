"""What the workflow tests work on: a worker that plays events, small models, and what a worker writes."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from apformer.bundles import ModelLibrary, Preprocessing
from apformer.errors import APFormerError
from apformer.jobs import Event, JobError
from apformer.jobs.messages import plain
from apformer.networks import build_network
from apformer.part import Part
from apformer.places import uncertain_places
from APFormerSlicerLib.scene import Frames
from bundle_samples import ARGUMENTS, LABELS, save_sample

SLICES = Preprocessing(
    spatial_dims=2,
    orientation="acquired",
    spacing_mm=None,
    patch_size=(16, 16),
    intensity={"kind": "percentile", "lower": 0.5, "upper": 99.5},
)


@dataclass
class Asked:
    """A request that a `PlayedWorker` was sent, and what a test lets happen to it."""

    id: str
    job: str
    fields: dict[str, Any]
    listener: Callable[[Event], None]

    def tell(self, kind: str, **data: Any) -> None:
        self.listener(Event(kind, self.id, data))

    def progress(self, fraction: float, message: str = "segmenting", eta_s: float | None = 3.0) -> None:
        self.tell("progress", fraction=fraction, message=message, eta_s=eta_s)

    def finish(self, array: np.ndarray, maps: Mapping[str, np.ndarray] | None = None, **data: Any) -> None:
        """Write the files of a result as the worker does, and tell it."""
        paths = {name: Path(path) for name, path in self.fields["outputs"].items()}
        parts = {"labels": Part.of(array.astype(np.uint8))}
        parts |= {name: Part.of(values.astype(np.float32)) for name, values in (maps or {}).items()}
        for name, part in parts.items():
            np.save(paths[name], part.array)
        if "uncertainty" in parts:
            matrix = np.array(self.fields["array"]["ijk_to_ras"] if "array" in self.fields else np.eye(4))
            data["places"] = [place.as_dict() for place in uncertain_places(parts["uncertainty"].whole(), matrix)]
        counts = {label.name: int(np.count_nonzero(array == label.value)) for label in LABELS}
        data["structures"] = {name: {"voxels": voxels, "box": None} for name, voxels in counts.items()}
        made_by = {"model": "slices", "model_version": "1.0.0", "model_checksum": "ab" * 32, "program": "test",
                   "device": "cpu", "date": "2026-01-02T03:04:05+01:00"}  # fmt: skip
        data["provenance"] = made_by | data.pop("made_by", {})
        told = {"parts": {name: part.place() for name, part in parts.items()},
                "labels": [label.as_dict() for label in LABELS], "device": "cpu", "seconds": 1.5, "warnings": [],
                "volumes_ml": {"anterior": 0.25}, "paths": {name: str(path) for name, path in paths.items()
                                                           if path.exists()}}  # fmt: skip
        self.tell("result", **{**told, **data})

    def fail(self, error: JobError) -> None:
        self.tell("error", **error.as_data())


@dataclass
class PlayedWorker:
    """A `Worker` without a process. `refuse`: what `submit` raises; `held`: work that waits for `let_go`, None where it
    is done at once."""

    root: Path
    asked: list[Asked] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    refuse: JobError | None = None
    held: list[Any] | None = None
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def submit(self, job: str, fields: Mapping[str, Any], listener: Callable[[Event], None]) -> str:
        if self.refuse is not None:
            raise self.refuse
        json.dumps(fields)  # it has to fit on a line
        self.asked.append(Asked(str(len(self.asked) + 1), job, dict(fields), listener))
        return self.asked[-1].id

    def cancel(self, job_id: str) -> None:
        self.cancelled.append(job_id)

    def forget(self, job_id: str) -> None:
        self.forgotten.append(job_id)

    def folder(self) -> Path:
        folder = self.root / f"job {next(self.numbers)}"
        folder.mkdir()
        return folder

    def discard(self, folder: Path) -> None:
        shutil.rmtree(folder)

    def aside(self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        """At once, unless `held`: then when `let_go` is called."""
        if self.held is not None:
            self.held.append((work, done))
            return
        try:
            outcome = work()
        except Exception as error:  # noqa: BLE001  as a thread would
            done(None, error)
        else:
            done(outcome, None)

    def let_go(self) -> None:
        """Do what was held."""
        held, self.held = self.held or [], None
        for work, done in held:
            self.aside(work, done)

    def answer(self) -> None:
        """Let the worker's own code do what was asked last, and tell of it."""
        from job_samples import run_here

        asked = self.last
        try:
            result = run_here(asked.job, **asked.fields)
        except APFormerError as error:
            asked.fail(JobError(error.what, error.meaning, error.remedy))
        else:
            asked.tell("result", **plain(result))

    @property
    def last(self) -> Asked:
        return self.asked[-1]

    @property
    def folders(self) -> list[Path]:
        """Of jobs, those that are still there."""
        return list(self.root.iterdir())


class AnEditor:
    """As the Segment Editor's logic: it keeps copies of the segments."""

    def __init__(self, node: Any) -> None:
        import slicer

        self.node, self.states, self._new = node, [], slicer.vtkSegmentation

    def GetSegmentationNode(self) -> Any:
        return self.node

    def SaveStateForUndo(self) -> bool:
        self.states.append(self._copy(self.node.GetSegmentation()))
        return True

    def undo(self) -> None:
        """Bring back the last state, and keep the present one for Redo."""
        wanted, present = self.states.pop(), self._copy(self.node.GetSegmentation())
        self.node.GetSegmentation().DeepCopy(wanted)
        self.states.append(present)

    def _copy(self, segmentation: Any) -> Any:
        copy = self._new()
        copy.DeepCopy(segmentation)
        return copy


def save_models(root: Path) -> None:
    """slices (2D, MR), volumes (3D, MR, crops), photos (2D, RGB) with two labels each; liver-ct (2D, CT)."""
    torch.manual_seed(1)  # by chance, some networks say nothing of an image
    flat = {**ARGUMENTS, "spatial_dims": 2, "image_size": [16, 16]}
    colour = {**flat, "in_channels": 3}
    measured = {"cases": 12, "labels": {"anterior": {"mean_dice": 0.9}, "posterior": {"mean_dice": 0.8}}}
    save_sample(root / "volumes", name="volumes")
    for name, arguments, modality in (("slices", flat, "MR"), ("photos", colour, "RGB"), ("liver-ct", flat, "CT")):
        save_sample(
            root / name,
            name=name,
            description=f"A model for {modality}",
            modality=modality,
            channels=arguments["in_channels"],
            preprocessing=SLICES,
            network_arguments=arguments,
            state_dict=build_network("apformer", arguments).state_dict(),
            metrics=measured,
        )


def add_version(library: ModelLibrary, name: str) -> str:
    """One more version of `name`, as a training adds it: not active."""
    source = library.find(name).directory

    def write(folder: Path) -> None:
        from version_samples import copy_as

        copy_as(source, folder, name, library.next_version(name))

    return library.add_version(write).version


def a_block(shape_kji: tuple[int, ...], value: int = 1) -> np.ndarray:
    """A label map with one block of 8 voxels."""
    array = np.zeros(shape_kji, np.uint8)
    array[1:3, 2:4, 2:4] = value
    return array


def make_sequence(scene: Any, logic: Any, volumes: list[np.ndarray]) -> Frames:
    """A browser over images (k, j, i), whose proxy is named Cine."""
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "Browser")
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "Cine")
    for number, array in enumerate(volumes):
        image = vtk.vtkImageData()
        image.SetDimensions(*reversed(array.shape))
        image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(array).ravel(), deep=True))
        node = scene.CreateNodeByClass("vtkMRMLScalarVolumeNode")
        node.UnRegister(None)
        node.SetAndObserveImageData(image)
        sequence.SetDataNodeAtValue(node, str(number))
    browser.AddSynchronizedSequenceNodeID(sequence.GetID())
    browser.SetSelectedItemNumber(0)
    logic.UpdateProxyNodesFromSequences(browser)
    return Frames(browser, sequence, browser.GetProxyNode(sequence))

"""What the worker found, onto the scene: segments, and on them what is told of the whole result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from apformer.bundles import Label
from apformer.bundles.fields import Fields
from apformer.jobs.arrays import IMAGE

from ..scene import Frames, Provenance, Result, Written, frames_of, write_result
from ..scene.edits import SegmentEditor
from ..scene.precious import precious
from .doubts import read_doubt, set_doubt
from .frames import showing
from .hosts import Worker
from .inputs import About, Choice
from .kept import Kept, KeptResults, read_part
from .places import set_places
from .tally import prime_counts

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Segmented:
    """What a finished job left on the scene.

    Attributes:
        volumes_ml: by label. boxes: of each label that occurs, the voxels it lies in, (i, j, k), half open.
        warnings: what the user must be told.
        doubt: how unsure the model was of the whole, 0 to 1, see `apformer.case_doubt`; None where it was not asked.
        lost: name -> "accepted" or "made by hand", of segments of a person that were replaced; Undo brings them back
            where `written.undoable`.
    """

    written: Written
    volumes_ml: Mapping[str, float]
    device: str
    seconds: float
    warnings: tuple[str, ...]
    boxes: Mapping[str, Box] = field(default_factory=dict)
    lost: Mapping[str, str] = field(default_factory=dict)
    doubt: float | None = None


class Placing:
    """Results onto one scene."""

    def __init__(self, scene: Any, worker: Worker, kept: KeptResults) -> None:
        self._scene, self._worker, self._kept = scene, worker, kept

    def put(
        self,
        choice: Choice,
        about: About,
        data: Mapping[str, Any],
        take_folder: Callable[[], Path | None],
        editor: SegmentEditor | None = None,
        agreed: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
    ) -> Segmented:
        """Write a result to where the choice says or, where that has gone or became a person's meanwhile, to a new
        segmentation.

        Args:
            data: of the worker's result, whose outputs are arrays.
            take_folder: gives the folder of the files, which are kept from then on; called when all is written.
            agreed: the segments of a person that may be replaced, and why they are precious.
            notes: what else the user must be told.

        Raises:
            InputError: the files cannot be read, or do not fit the volume.
        """
        result, kept = read_result(data, {"roi": about.roi} if about.roi else {})
        warnings = [*about.notes, *data.get("warnings", ()), *notes]
        choice, agreed = self._target(choice, result, agreed or {}, warnings)
        written = self._write(choice, about.frame, result, editor)
        node, doubt = written.segmentation_node, read_doubt(data.get("doubt"))
        set_places(node, data.get("places"))
        set_doubt(node, doubt)
        prime_counts(node, written.segment_ids, data.get("structures", {}))
        lost = {one: why for one, why in agreed.items() if one in written.replaced}
        if lost:
            warnings.append(_told_lost(lost, written.undoable))
        folder = take_folder()
        if folder is not None:
            self._kept.keep(node, choice.volume_node, replace(kept, folder=folder))
            self._worker.aside(lambda: (folder / IMAGE).unlink(missing_ok=True), lambda *_: None)
        return Segmented(
            written,
            data.get("volumes_ml", {}),
            str(data.get("device", "")),
            float(data.get("seconds") or 0.0),
            tuple(dict.fromkeys(warnings)),
            _boxes(data.get("structures", {})),
            lost,
            doubt,
        )

    def _target(
        self, choice: Choice, result: Result, agreed: Mapping[str, str], warnings: list[str]
    ) -> tuple[Choice, Mapping[str, str]]:
        """The choice as it can be followed now, and what of `agreed` still counts; adds to the warnings."""
        target = choice.segmentation_node
        if target is None:
            return choice, agreed
        if target.GetScene() is not self._scene:
            warnings.append(f"{target.GetName()} was removed meanwhile; the result is in a new segmentation.")
            return replace(choice, segmentation_node=None), agreed
        came = {one: why for one, why in precious(target, result.labels).items() if one not in agreed}
        if not came:
            return choice, agreed
        told = ", ".join(f"{one} was {why}" for one, why in came.items())
        warnings.append(f"In {target.GetName()} {told} meanwhile; the result is in a new segmentation.")
        return replace(choice, segmentation_node=None), {}

    @staticmethod
    def _write(choice: Choice, frame: int | None, result: Result, editor: SegmentEditor | None) -> Written:
        """Write it to the scene; that of a frame also to the sequence of segmentations."""
        frames: Frames | None = None if frame is None else frames_of(choice.volume_node)
        if frame is None or frames is None:
            return write_result(choice.volume_node, result, choice.segmentation_node, editor)
        with showing(frames, frame):
            written = write_result(choice.volume_node, result, choice.segmentation_node, editor)
            frames.keep(frame, written.segmentation_node)
        return written


def read_result(data: Mapping[str, Any], parameters: Mapping[str, Any]) -> tuple[Result, Kept]:
    """The worker's result for the scene, without its maps, and its files.

    Raises:
        InputError: they cannot be read.
    """
    paths = {name: Path(path) for name, path in data["paths"].items()}
    places = data.get("parts", {})
    labels = tuple(Label.from_fields(Fields(item, "the result's labels")) for item in data["labels"])
    provenance = Provenance.from_report(data.get("provenance", {}), parameters)
    part = read_part(paths["labels"], places.get("labels", {}), mapped=True)
    model = f"{provenance.model} {provenance.model_version}"
    return Result(part, labels, provenance), Kept(model, labels, paths["labels"].parent, paths, places)


def _boxes(structures: Mapping[str, Mapping[str, Any]]) -> dict[str, Box]:
    found = {}
    for name, told in structures.items():
        if told.get("box"):
            i, j, k = ((int(start), int(stop)) for start, stop in told["box"])
            found[name] = i, j, k
    return found


def _told_lost(lost: Mapping[str, str], undoable: bool) -> str:
    told = ", ".join(f"{name}, which was {why}" for name, why in lost.items())
    back = "Undo in the Segment Editor brings back what was there." if undoable else "It cannot be undone."
    return f"Replaced: {told}. {back}"

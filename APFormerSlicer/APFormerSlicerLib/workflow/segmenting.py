"""Segment: from a choice to segments on the scene, one job at a time per volume."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from apformer.bundles import Label
from apformer.bundles.fields import Fields
from apformer.errors import APFormerError, InputError, OutputError
from apformer.jobs import array_fields
from apformer.volume import Volume

from ..scene import Frames, Provenance, Result, Written, frames_of, write_result
from ..scene.edits import SegmentEditor
from .cards import Card
from .frames import showing
from .hosts import Worker
from .inputs import About, Choice, check_place, read_image
from .models import Models
from .proposals import Proposals
from .runs import Run
from .scene_watch import SceneWatch
from .signals import Signal
from .suggestion import check_fits
from .wording import Checked, checked, estimate_line

# Volume nodes that a job is at, of all instances: two panels on one scene must not write over each other.
_busy: dict[Any, Run] = {}


@dataclass(frozen=True)
class Segmented:
    """What a finished job left on the scene. `volumes_ml`: by label. `warnings`: what the user must be told."""

    written: Written
    volumes_ml: Mapping[str, float]
    device: str
    seconds: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Estimate:
    """What a preflight found. `line`: "CPU, about 20 s; needs 1.2 GB, 9 GB free", or why it cannot run."""

    ok: bool
    line: str
    warnings: tuple[str, ...]
    data: Mapping[str, Any] = field(repr=False)

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> Estimate:
        ok, line = estimate_line(data)
        return Estimate(ok, line, tuple(data.get("warnings", ())), data)


class Segmenting:
    """The jobs of one scene.

    Attributes:
        started: a job was sent. segmented: a result is on the scene. The run's own signals tell the rest.
    """

    def __init__(
        self,
        watch: SceneWatch,
        worker: Worker,
        models: Models,
        proposals: Proposals,
        editor: SegmentEditor | None = None,
    ) -> None:
        self.started: Signal[Run] = Signal()
        self.segmented: Signal[Choice, Segmented] = Signal()
        self.editor = editor
        self._watch, self._worker, self._models, self._proposals = watch, worker, models, proposals
        self._runs: dict[Any, Run] = {}  # by volume node
        watch.removed.connect(self._node_removed)
        watch.closing.connect(self._scene_closing)

    def check(self, choice: Choice) -> Checked:
        """Whether it can be segmented, as far as can be said without the worker."""
        return checked(lambda: self._prepare(choice))

    def run_of(self, volume_node: Any) -> Run | None:
        """The job that is at the volume, of whichever panel or script."""
        return _busy.get(volume_node)

    def estimate(self, choice: Choice) -> Run:
        """Ask the worker what it would take; the run's outcome is an `Estimate`, a refusal too.

        Raises:
            APFormerError: as `start`, but a job may be at the volume.
        """
        volume, about, card = self._prepare(choice, busy_is_fine=True)
        run = Run(self._worker, "preflight", f"estimate for {_title(choice, card)}", Estimate.from_data)
        self._send(run, {"for": "segment"}, choice, volume, about, card)
        return run

    def start(self, choice: Choice) -> Run:
        """Segment; the run's outcome is `Segmented`.

        Raises:
            APFormerError: it cannot be segmented, as `check` says.
            JobError: no worker can be started.
        """
        volume, about, card = self._prepare(choice)
        stamp = _stamp(choice, about)

        def finish(data: dict[str, Any]) -> Segmented:
            done = self._write(choice, about, data, changed=_stamp(choice, about) != stamp)
            self._models.timings.note(f"{card.name} {card.version}", done.seconds)
            self.segmented.emit(choice, done)
            return done

        run = Run(self._worker, "segment", _title(choice, card), finish)
        self._occupy(choice.volume_node, run)
        try:
            self._send(run, {}, choice, volume, about, card)
        except BaseException:
            self._release(choice.volume_node, run)
            raise
        self.started.emit(run)
        return run

    def start_file(self, source: Path, labels: Path, model: str, device: str = "auto") -> Run:
        """Segment an image file or DICOM folder; the run's outcome is what the worker tells of it. The file `labels`
        is written by the worker; nothing on the scene changes.

        Raises:
            BundleError: there is no such model. JobError: no worker can be started.
        """
        card = self._models.find(model)
        run = Run(self._worker, "segment", f"{source.name} with {card.name} {card.version}", dict)
        outputs = {"labels": str(labels)}
        run.start({"image": str(source), "outputs": outputs, "model": str(card.directory), "device": device})
        return run

    def cancel_all(self) -> None:
        for run in list(self._runs.values()):
            run.cancel()

    def stop(self) -> None:
        """Give up all jobs and listen no more."""
        self._watch.removed.disconnect(self._node_removed)
        self._watch.closing.disconnect(self._scene_closing)
        self._abandon_all("The program is being closed.")

    def _prepare(self, choice: Choice, busy_is_fine: bool = False) -> tuple[Volume, About, Card]:
        if self._watch.is_closing:
            raise InputError("The scene is being closed.", "Nothing new is begun.", "Load an image, then try again.")
        volume, about = read_image(choice, self._watch.scene)
        card = self._models.find(choice.model)
        check_fits(card, volume, choice.volume_node.GetName())
        check_place(choice)
        if choice.volume_node in _busy and not busy_is_fine:
            raise InputError(
                f"{choice.volume_node.GetName()} is being segmented already.",
                "Two jobs would write over each other's results.",
                "Wait for it, or cancel it.",
            )
        return volume, about, card

    def _send(
        self, run: Run, extra: Mapping[str, Any], choice: Choice, volume: Volume, about: About, card: Card
    ) -> None:
        folder = None
        try:
            folder = self._worker.folder()
            fields = array_fields(
                folder,
                volume.array,
                volume.ijk_to_ras,
                volume.modality,
                picture=volume.source.kind == "picture",
                maps=choice.maps,
            )
        except OSError as error:
            if folder is not None:
                self._worker.discard(folder)
            raise OutputError(
                f"The image could not be handed to the worker ({error.strerror}).",
                "The folder for temporary files is full or cannot be written.",
                "Free some disk space, then try again.",
            ) from error
        place = {} if about.roi is None else {"roi": about.roi}
        run.start({**extra, **fields, **place, "model": str(card.directory), "device": choice.device}, folder)

    def _write(self, choice: Choice, about: About, data: Mapping[str, Any], changed: bool) -> Segmented:
        result = read_result(data, {"roi": about.roi} if about.roi else {})
        warnings = [*about.notes, *data.get("warnings", ())]
        name = choice.volume_node.GetName()
        if changed:
            warnings.append(f"{name} was changed meanwhile; the result is that of the voxels as they were before.")
        target = choice.segmentation_node
        if target is not None and target.GetScene() is not self._watch.scene:
            warnings.append(f"{target.GetName()} was removed meanwhile; the result is in a new segmentation.")
            choice = replace(choice, segmentation_node=None)
        written = self._place(choice, about.frame, result)
        self._proposals.keep(written.segmentation_node, choice.volume_node, result)
        seconds = float(data.get("seconds") or 0.0)
        unique = tuple(dict.fromkeys(warnings))
        return Segmented(written, data.get("volumes_ml", {}), str(data.get("device", "")), seconds, unique)

    def _place(self, choice: Choice, frame: int | None, result: Result) -> Written:
        """Write it to the scene; that of a frame also to the sequence of segmentations."""
        frames: Frames | None = None if frame is None else frames_of(choice.volume_node)
        if frame is None or frames is None:
            return write_result(choice.volume_node, result, choice.segmentation_node, self.editor)
        with showing(frames, frame):
            written = write_result(choice.volume_node, result, choice.segmentation_node, self.editor)
            frames.keep(frame, written.segmentation_node)
        return written

    def _occupy(self, node: Any, run: Run) -> None:
        _busy[node] = self._runs[node] = run
        run.ended.connect(lambda run: self._release(node, run))

    def _release(self, node: Any, run: Run) -> None:
        for runs in (_busy, self._runs):
            if runs.get(node) is run:
                del runs[node]

    def _node_removed(self, node: Any) -> None:
        run = self._runs.get(node)
        if run is not None:
            run.abandon(
                InputError(
                    f"{node.GetName()} was removed while it was segmented.",
                    "The job was cancelled; there is nowhere to put a result.",
                    "Load the image again to segment it.",
                )
            )

    def _scene_closing(self) -> None:
        self._abandon_all("The scene was closed.")

    def _abandon_all(self, what: str) -> None:
        why = APFormerError(what, "The job was cancelled.", "Load the image again to segment it.")
        for run in list(self._runs.values()):
            run.abandon(why)


def read_result(data: Mapping[str, Any], parameters: Mapping[str, Any]) -> Result:
    """The worker's result for the scene.

    Raises:
        InputError: its files cannot be read.
    """
    paths = {name: Path(path) for name, path in data["paths"].items()}
    try:
        arrays = {name: np.load(path, allow_pickle=False) for name, path in paths.items()}
        report = json.loads(paths["labels"].with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"The result could not be read ({type(error).__name__}).",
            "Its files were removed or damaged before they could be shown.",
            "Segment again; if it happens again, check that the disk is not full.",
        ) from error
    labels = tuple(Label.from_fields(Fields(item, "the result's labels")) for item in data["labels"])
    provenance = Provenance.from_report(report.get("provenance", {}), parameters)
    return Result(arrays.pop("labels"), labels, provenance, arrays)


def _title(choice: Choice, card: Card) -> str:
    return f"{choice.volume_node.GetName()} with {card.name} {card.version}"


def _stamp(choice: Choice, about: About) -> int | None:
    """Changes whenever the voxels do; None for a frame, whose proxy changes by being played."""
    data = choice.volume_node.GetImageData() if about.frame is None else None
    return None if data is None else int(data.GetMTime())

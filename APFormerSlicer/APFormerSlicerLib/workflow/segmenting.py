"""Segment: from a choice to segments on the scene, one job at a time, others waiting for their turn.

The main thread neither writes nor scans a volume: an estimate needs a glimpse of it, a thread of its own hands it over,
and what the worker found comes cut to what is not 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from apformer.bundles import Label
from apformer.bundles.fields import Fields
from apformer.errors import APFormerError, InputError
from apformer.jobs import array_fields
from apformer.jobs.arrays import IMAGE
from apformer.jobs.glimpse import glimpse_fields
from apformer.volume import Volume

from ..scene import Frames, Provenance, Result, Written, frames_of, write_result
from ..scene.edits import SegmentEditor
from ..scene.precious import precious
from .cards import Card
from .frames import showing
from .hosts import Worker
from .inputs import About, Choice, PreciousError, check_place, read_image
from .jobs import Jobs
from .kept import Kept, KeptResults, read_part
from .line import Line
from .models import Models
from .parcel import not_handed_over
from .places import set_places
from .runs import Run
from .scene_watch import SceneWatch
from .signals import Signal
from .suggestion import check_fits
from .tally import prime_counts
from .wording import Checked, checked, estimate_line

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Segmented:
    """What a finished job left on the scene.

    Attributes:
        volumes_ml: by label. boxes: of each label that occurs, the voxels it lies in, (i, j, k), half open.
        warnings: what the user must be told.
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


@dataclass
class _Sent:
    """What was handed over: what goes with the voxels, and when they had changed last."""

    about: About = field(default_factory=lambda: About(None, (), None))
    stamp: int | None = None


class Segmenting:
    """The jobs of one scene, for one worker.

    Attributes:
        started: a job was asked for. segmented: a result is on the scene. The run's own signals tell the rest.
        jobs: those that wait or run, of all panels and scripts.
        line: those of this instance, in the order of their turns.
    """

    def __init__(
        self,
        watch: SceneWatch,
        worker: Worker,
        models: Models,
        kept: KeptResults,
        editor: SegmentEditor | None = None,
    ) -> None:
        self.started: Signal[Run] = Signal()
        self.segmented: Signal[Choice, Segmented] = Signal()
        self.editor = editor
        self.jobs, self.line = Jobs(watch.scene), Line()
        self._watch, self._worker, self._models, self._kept = watch, worker, models, kept
        self._runs: dict[Any, Run] = {}  # by volume node
        watch.removed.connect(self._node_removed)
        watch.closing.connect(self._scene_closing)

    def check(self, choice: Choice) -> Checked:
        """Whether it can be segmented, as far as can be said without the worker. Segments that would be replaced and
        are a person's are no hindrance here: `start` refuses, and the host asks."""
        return checked(lambda: self._prepare(choice))

    def run_of(self, volume_node: Any) -> Run | None:
        """The job that waits for the volume or is at it, of whichever panel or script."""
        return self.jobs.of(volume_node)

    def estimate(self, choice: Choice) -> Run:
        """Ask the worker what it would take; the run's outcome is an `Estimate`, a refusal too.

        Raises:
            APFormerError: as `start`, but a job may be at the volume.
        """
        volume, about, card = self._prepare(choice, busy_is_fine=True)
        run = Run(self._worker, "preflight", f"estimate for {_title(choice, card)}", Estimate.from_data)
        seen = glimpse_fields(volume.array, volume.ijk_to_ras, volume.modality, **_named(choice, volume))
        run.start({"for": "segment", "glimpse": seen, **_where(choice, about, card)})
        return run

    def start(self, choice: Choice) -> Run:
        """Segment, when its turn comes; the run's outcome is `Segmented`. Until then nothing is taken of the volume.

        Raises:
            PreciousError: segments that a person made or accepted would be replaced; ask, then choose `overwrite`.
            APFormerError: it cannot be segmented, as `check` says.
        """
        _, _, card = self._prepare(choice)
        lost = self._precious(choice, card)
        if lost and not choice.overwrite:
            raise PreciousError(choice.segmentation_node.GetName(), lost)
        sent = _Sent()

        def finish(data: dict[str, Any]) -> Segmented:
            done = self._write(run, choice, data, sent, lost)
            self._models.timings.note(f"{card.name} {card.version}", done.seconds)
            self._worker.aside(self._models.timings.keep, lambda *_: None)  # a file is written and flushed
            self.segmented.emit(choice, done)
            return done

        run = Run(self._worker, "segment", _title(choice, card), finish)
        self._occupy(choice.volume_node, run)
        self.line.add(run, lambda: self._begin(run, choice, sent))
        self.started.emit(run)
        return run

    def start_file(self, source: Path, labels: Path, model: str, device: str = "auto") -> Run:
        """Segment an image file or DICOM folder, when its turn comes; the run's outcome is what the worker tells of it.
        The file `labels` is written by the worker; nothing on the scene changes.

        Raises:
            BundleError: there is no such model.
        """
        card = self._models.find(model)
        run = Run(self._worker, "segment", f"{source.name} with {card.name} {card.version}", dict)
        fields = {"image": str(source), "outputs": {"labels": str(labels)}, "model": str(card.directory)}
        self.jobs.add(run)
        self.line.add(run, lambda: run.start({**fields, "device": device}))
        return run

    def cancel_all(self) -> None:
        for run in reversed(self.line.runs):  # those that wait first, or they would begin
            run.cancel()

    def stop(self) -> None:
        """Give up all jobs and listen no more."""
        self._watch.removed.disconnect(self._node_removed)
        self._watch.closing.disconnect(self._scene_closing)
        self._abandon_all("The program is being closed.")
        self.cancel_all()
        self.jobs.stop()

    def _prepare(self, choice: Choice, busy_is_fine: bool = False) -> tuple[Volume, About, Card]:
        if self._watch.is_closing:
            raise InputError("The scene is being closed.", "Nothing new is begun.", "Load an image, then try again.")
        volume, about = read_image(choice, self._watch.scene)
        card = self._models.find(choice.model)
        check_fits(card, volume, choice.volume_node.GetName())
        check_place(choice)
        if not busy_is_fine and self.jobs.of(choice.volume_node) is not None:
            raise InputError(
                f"{choice.volume_node.GetName()} is being segmented already.",
                "Two jobs would write over each other's results.",
                "Wait for it, or cancel it.",
            )
        return volume, about, card

    @staticmethod
    def _precious(choice: Choice, card: Card) -> dict[str, str]:
        target = choice.segmentation_node
        return {} if target is None else precious(target, card.labels)

    def _begin(self, run: Run, choice: Choice, sent: _Sent) -> None:
        """Its turn: hand the voxels over as they are now. Raises APFormerError for what became impossible meanwhile."""
        volume, about, card = self._prepare(choice, busy_is_fine=True)
        try:
            folder = self._worker.folder()
        except OSError as error:
            raise not_handed_over(error) from error

        def write() -> dict[str, Any]:
            try:
                fields = array_fields(
                    folder, volume.array, volume.ijk_to_ras, volume.modality, maps=choice.maps, **_named(choice, volume)
                )
            except OSError as error:
                raise not_handed_over(error) from error
            return {**fields, **_where(choice, about, card)}

        def stamp() -> int | None:
            sent.stamp = _stamp(choice, about)
            return sent.stamp

        sent.about = about
        run.hand_over(write, folder, stamp)

    def _write(
        self, run: Run, choice: Choice, data: Mapping[str, Any], sent: _Sent, agreed: Mapping[str, str]
    ) -> Segmented:
        about = sent.about
        result, kept = read_result(data, {"roi": about.roi} if about.roi else {})
        warnings = [*about.notes, *data.get("warnings", ())]
        name, target = choice.volume_node.GetName(), choice.segmentation_node
        if _stamp(choice, about) != sent.stamp:
            warnings.append(f"{name} was changed meanwhile; the result is that of the voxels as they were before.")
        if target is not None and target.GetScene() is not self._watch.scene:
            warnings.append(f"{target.GetName()} was removed meanwhile; the result is in a new segmentation.")
            choice = replace(choice, segmentation_node=None)
        elif target is not None:
            came = {one: why for one, why in precious(target, result.labels).items() if one not in agreed}
            if came:
                told = ", ".join(f"{one} was {why}" for one, why in came.items())
                warnings.append(f"In {target.GetName()} {told} meanwhile; the result is in a new segmentation.")
                choice, agreed = replace(choice, segmentation_node=None), {}
        written = self._place(choice, about.frame, result)
        set_places(written.segmentation_node, data.get("places"))
        prime_counts(written.segmentation_node, written.segment_ids, data.get("structures", {}))
        lost = {one: why for one, why in agreed.items() if one in written.replaced}
        if lost:
            warnings.append(_told_lost(lost, written.undoable))
        folder = run.keep_folder()
        if folder is not None and kept is not None:
            self._kept.keep(written.segmentation_node, choice.volume_node, replace(kept, folder=folder))
            self._worker.aside(lambda: (folder / IMAGE).unlink(missing_ok=True), lambda *_: None)
        return Segmented(
            written,
            data.get("volumes_ml", {}),
            str(data.get("device", "")),
            float(data.get("seconds") or 0.0),
            tuple(dict.fromkeys(warnings)),
            _boxes(data.get("structures", {})),
            lost,
        )

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
        self._runs[node] = run
        run.ended.connect(lambda run: self._release(node, run))
        self.jobs.add(run, node)

    def _release(self, node: Any, run: Run) -> None:
        if self._runs.get(node) is run:
            del self._runs[node]

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
        for run in [run for run in reversed(self.line.runs) if run in self._runs.values()]:
            run.abandon(why)


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


def _named(choice: Choice, volume: Volume) -> dict[str, Any]:
    return {"picture": volume.source.kind == "picture", "name": choice.volume_node.GetName() or ""}


def _where(choice: Choice, about: About, card: Card) -> dict[str, Any]:
    """The fields that say with what, where and on what."""
    place = {} if about.roi is None else {"roi": about.roi}
    return {**place, "model": str(card.directory), "device": choice.device}


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


def _title(choice: Choice, card: Card) -> str:
    return f"{choice.volume_node.GetName()} with {card.name} {card.version}"


def _stamp(choice: Choice, about: About) -> int | None:
    """Changes whenever the voxels do; None for a frame, whose proxy changes by being played."""
    data = choice.volume_node.GetImageData() if about.frame is None else None
    return None if data is None else int(data.GetMTime())

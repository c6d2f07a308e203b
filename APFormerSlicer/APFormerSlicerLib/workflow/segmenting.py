"""Segment: from a choice to segments on the scene, one job at a time, others waiting for their turn.

The main thread neither writes nor scans a volume: an estimate needs a glimpse of it, a thread of its own hands it over,
and what the worker found comes cut to what is not 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apformer.errors import APFormerError, InputError
from apformer.jobs import array_fields
from apformer.jobs.glimpse import glimpse_fields
from apformer.volume import Volume

from ..scene.edits import SegmentEditor
from ..scene.precious import precious
from .cards import Card
from .hosts import Worker
from .inputs import DEFAULT_MAPS, About, Choice, PreciousError, check_place, read_image
from .jobs import Jobs
from .kept import KeptResults
from .line import Line
from .models import Models
from .parcel import not_handed_over
from .placing import Placing, Segmented
from .runs import Run
from .scene_watch import SceneWatch
from .signals import Signal
from .suggestion import check_fits
from .wording import Checked, checked, estimate_line


@dataclass(frozen=True)
class Estimate:
    """What a preflight found. `line`: "CPU, about 20 s; needs 1.2 GB, 9 GB free", or why it cannot run."""

    ok: bool
    line: str
    warnings: tuple[str, ...]
    data: Mapping[str, Any] = field(repr=False)

    @staticmethod
    def from_data(data: Mapping[str, Any], notes: Sequence[str] = ()) -> Estimate:
        """`notes`: what the host knows of the image, which will be told with the result too."""
        ok, line = estimate_line(data)
        return Estimate(ok, line, tuple(dict.fromkeys([*notes, *data.get("warnings", ())])), data)


@dataclass(frozen=True)
class Ahead:
    """The result of an image file that is not on the scene yet. `folder` holds its arrays and is the owner's to
    discard, unless `Segmenting.place` took it over."""

    data: Mapping[str, Any] = field(repr=False)
    folder: Path
    model: str


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
        self._watch, self._worker, self._models = watch, worker, models
        self._placing = Placing(watch.scene, worker, kept)
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
        title = f"estimate for {_title(choice, card)}"
        run = Run(self._worker, "preflight", title, lambda data: Estimate.from_data(data, about.notes))
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
        self.line.add(run, lambda: run.start({**fields, "device": device, "doubt": True}))
        return run

    def start_ahead(self, source: Path, model: str, device: str = "auto", maps: Sequence[str] = DEFAULT_MAPS) -> Run:
        """Segment an image file or DICOM folder, when its turn comes, before it is loaded; the run's outcome is an
        `Ahead`, for `place`.

        Raises:
            BundleError: there is no such model.
        """
        card = self._models.find(model)

        def finish(data: dict[str, Any]) -> Ahead:
            folder = run.keep_folder()
            assert folder is not None  # it was started with one
            return Ahead(data, folder, model)

        def begin() -> None:
            try:
                folder = self._worker.folder()
            except OSError as error:
                raise not_handed_over(error) from error
            outputs = {name: str(folder / f"{name}.npy") for name in ("labels", *maps)}
            place = {"image": str(source), "outputs": outputs, "model": str(card.directory), "device": device}
            run.start({**place, "doubt": True}, folder)

        run = Run(self._worker, "segment", f"{source.name} with {card.name} {card.version}", finish)
        self.jobs.add(run)
        self.line.add(run, begin)
        return run

    def place(self, volume_node: Any, ahead: Ahead) -> Segmented:
        """Put a result onto the image that it was made of, in a segmentation of its own.

        Raises:
            InputError: its files cannot be read, or the image is not the one it was made of.
        """
        choice = Choice(volume_node, ahead.model)
        done = self._placing.put(choice, About(None, (), None), ahead.data, lambda: ahead.folder, self.editor)
        self.segmented.emit(choice, done)
        return done

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
        notes = []
        if _stamp(choice, sent.about) != sent.stamp:
            name = choice.volume_node.GetName()
            notes.append(f"{name} was changed meanwhile; the result is that of the voxels as they were before.")
        return self._placing.put(choice, sent.about, data, run.keep_folder, self.editor, agreed, notes)

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


def _named(choice: Choice, volume: Volume) -> dict[str, Any]:
    return {"picture": volume.source.kind == "picture", "name": choice.volume_node.GetName() or ""}


def _where(choice: Choice, about: About, card: Card) -> dict[str, Any]:
    """The fields that say with what, where and on what."""
    place = {} if about.roi is None else {"roi": about.roi}
    return {**place, "model": str(card.directory), "device": choice.device}


def _title(choice: Choice, card: Card) -> str:
    return f"{choice.volume_node.GetName()} with {card.name} {card.version}"


def _stamp(choice: Choice, about: About) -> int | None:
    """Changes whenever the voxels do; None for a frame, whose proxy changes by being played."""
    data = choice.volume_node.GetImageData() if about.frame is None else None
    return None if data is None else int(data.GetMTime())

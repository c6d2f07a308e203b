"""Apply to the rest: the network learns one patient's corrections and proposes what nobody has touched anew.

What was corrected is compared with the proposal in a thread of its own. The new proposal is one step that can be
undone, shown as a difference until it is kept; the next Apply goes on from there, with all corrections.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from apformer.errors import APFormerError, InputError
from apformer.following import Plane
from apformer.jobs.arrays import IMAGE, part_fields
from apformer.part import Part

from ..scene import Result, status_of, take_pieces, to_volume, write_result
from ..scene.label_maps import stamp
from ..scene.precious import ACCEPTED, precious
from ..scene.provenance import FOLLOWED, of_node
from ..scene.segments import segment_ids
from .cards import Card
from .corrected import Corrected
from .correcting import Correcting
from .doubts import read_doubt, set_doubt
from .hosts import Worker
from .kept import KeptResults
from .marks import marked, set_marked
from .models import Models
from .parcel import not_handed_over, volume_fields
from .places import set_places
from .placing import read_result
from .preview import Failed, Followed, Pending, Previews, explained
from .proposals import Proposal, Proposals, attributes
from .runs import Run
from .scene_watch import SceneWatch
from .segmenting import Segmenting
from .signals import Signal
from .tally import prime_counts
from .wording import Checked, checked

SECONDS = 8.0  # for all of it
_NOW, _MODEL = "now.npy", "model"
AXES = ("k", "j", "i")


@dataclass
class _Sent:
    """What was handed over, and when it had changed last."""

    proposal: Proposal
    right: frozenset[Plane]
    stamp: object = None
    before: tuple[Path, Mapping[str, Any]] | None = None


class Following:
    """The corrections of one scene's segmentations.

    Attributes:
        changed: what was corrected, marked or proposed of that segmentation is another now.
        followed: a job ended with that outcome.
        learned: a model that learned from this patient can be used for the next ones, until the program ends.
    """

    def __init__(
        self, watch: SceneWatch, worker: Worker, models: Models, kept: KeptResults, segmenting: Segmenting
    ) -> None:
        self.changed: Signal[Any] = Signal()
        self.followed: Signal[Any, Followed] = Signal()
        self.learned: Signal[Card] = Signal()
        self._watch, self._worker, self._models, self._segmenting = watch, worker, models, segmenting
        self._proposals = proposals = Proposals(watch, worker, kept)
        self._correcting = Correcting(watch.scene, worker, proposals, self.changed)
        self._previews = Previews(worker, proposals, lambda: segmenting.editor, self.changed)
        self._runs: dict[Any, tuple[Run, Any]] = {}  # by segmentation, with its volume
        watch.removed.connect(self._node_removed)
        watch.closing.connect(self._scene_closing)

    # ---------------------------------------------------------------- what was corrected

    def corrected(self, segmentation_node: Any) -> Corrected | None:
        """What counts now; None while it is compared, of which `changed` tells the end.

        Raises:
            InputError: there is no proposal to compare with, or it does not fit the volume.
        """
        return self._correcting.corrected(segmentation_node)

    def mark(self, segmentation_node: Any, plane: Plane, right: bool) -> None:
        """Mark a slice as right, or take the mark back.

        Args:
            plane: axis 0, 1, 2 for k, j, i of the volume's array.

        Raises:
            InputError: as `corrected`; the volume has no such slice.
        """
        self._correcting.mark(segmentation_node, plane, right)

    # ---------------------------------------------------------------- the job

    def check(self, segmentation_node: Any) -> Checked:
        """Whether the rest can be proposed anew, and why not."""
        return checked(lambda: self._prepare(segmentation_node))

    def run_of(self, segmentation_node: Any) -> Run | None:
        """The job that waits or runs for the segmentation."""
        found = self._runs.get(segmentation_node)
        return None if found is None else found[0]

    def start(self, segmentation_node: Any, device: str = "auto") -> Run:
        """Learn and propose the rest, when its turn comes; the run's outcome is `Followed`. A proposal that was neither
        kept nor undone is kept.

        Raises:
            APFormerError: it cannot be, as `check` says.
        """
        volume_node, proposal, card = self._prepare(segmentation_node)
        self.keep(segmentation_node)
        sent = _Sent(proposal, marked(segmentation_node))

        def finish(data: dict[str, Any]) -> Followed:
            done = self._write(run, segmentation_node, volume_node, data, sent)
            self.followed.emit(segmentation_node, done)
            return done

        run = Run(self._worker, "follow", f"{volume_node.GetName()} with {card.name} {card.version}", finish)
        self._runs[segmentation_node] = run, volume_node
        run.ended.connect(lambda run: self._release(segmentation_node, run))
        self._segmenting.jobs.add(run, volume_node)
        self._segmenting.line.add(run, lambda: self._begin(run, segmentation_node, volume_node, card, sent, device))
        self.changed.emit(segmentation_node)
        return run

    # ---------------------------------------------------------------- keep or undo

    def pending(self, segmentation_node: Any) -> Followed | None:
        """The new proposal that is neither kept nor undone; None when there is none."""
        pending = self._previews.of(segmentation_node)
        return None if pending is None else pending.followed

    def keep(self, segmentation_node: Any, today: bool = False, failed: Failed = lambda error: None) -> None:
        """Take the new proposal, which was on the scene already; its difference is shown no more.

        Args:
            today: have what was learned as a model for the next patients, of which `learned` tells; what could not be
                copied goes to `failed`.
        """
        pending = self._previews.of(segmentation_node)
        if pending is not None and today:
            self._keep_model(pending.proposal.kept.folder / _MODEL, failed)
        if self._previews.let_go(segmentation_node):
            self.changed.emit(segmentation_node)

    def undo(self, segmentation_node: Any, failed: Failed = lambda error: None) -> None:
        """Bring back what was there before, with what was drawn since; the Segment Editor can undo that too. It is done
        when `changed` tells of it; what could not be read goes to `failed`, and nothing is changed."""
        self._previews.undo(segmentation_node, failed)

    def stop(self) -> None:
        """Give up all jobs and listen no more."""
        self._watch.removed.disconnect(self._node_removed)
        self._watch.closing.disconnect(self._scene_closing)
        for run, _ in list(self._runs.values()):
            run.cancel()

    # ---------------------------------------------------------------- in detail

    def _prepare(self, node: Any) -> tuple[Any, Proposal, Card]:
        if self._watch.is_closing:
            raise InputError("The scene is being closed.", "Nothing new is begun.", "Load an image, then try again.")
        volume_node, proposal = self._correcting.of(node)
        if self._segmenting.jobs.of(volume_node) is not None:
            raise InputError(
                f"{volume_node.GetName()} is being worked on already.",
                "Two jobs would write over each other's results.",
                "Wait for it, or cancel it.",
            )
        corrected = self.corrected(node)
        if corrected is None:
            raise InputError(
                "What was corrected is still being compared.",
                "It is not known yet what can be learned.",
                "Wait a moment.",
            )
        if corrected.error is not None:
            raise corrected.error
        accepted = [name for name, why in precious(node, proposal.kept.labels).items() if why == ACCEPTED]
        if accepted:
            raise InputError(
                f"{' and '.join(accepted)} {'was' if len(accepted) == 1 else 'were'} accepted.",
                "What is accepted is not proposed anew.",
                "Flag what should be.",
            )
        return volume_node, proposal, self._model(proposal)

    def _model(self, proposal: Proposal) -> Card:
        """The version that made the proposal. Raises BundleError when it is not there any more."""
        name, _, version = proposal.kept.model.rpartition(" ")
        for card in (*self._models.versions(name), *self._models.todays()):
            if (card.name, card.version) == (name, version) and card.problem is None:
                return card
        return self._models.find(f"{name}@{version}")

    def _begin(self, run: Run, node: Any, volume_node: Any, card: Card, sent: _Sent, device: str) -> None:
        """Its turn: hand over the image and the segments as they are now."""
        _, present = self._correcting.of(node)
        if present is not sent.proposal:
            raise InputError(
                f"{node.GetName()} was segmented or undone meanwhile.",
                "The corrections were of another proposal; nothing was changed.",
                "Correct this one, then apply again.",
            )
        volume, name = to_volume(volume_node), volume_node.GetName()
        pieces = take_pieces(node, volume_node, present.kept.labels)
        sent.right = marked(node)
        seen = self.corrected(node)
        fixed = self._fixed_fields(card, device, sent, 0 if seen is None else seen.axis)
        try:
            folder = self._worker.folder()
        except OSError as error:
            raise not_handed_over(error) from error

        def write() -> dict[str, Any]:
            try:
                array = volume_fields(folder / IMAGE, volume, name)
                labels = part_fields(folder / _NOW, Part.of(pieces.compose()))
                fields = {**fixed, "array": array, "labels": labels}
                certain = present.settled(sent.right)
                if certain is not None:
                    fields["certain"] = part_fields(folder / "before.npy", Part.of(certain.astype(np.uint8)))
            except OSError as error:
                raise not_handed_over(error) from error
            sent.before = folder / _NOW, labels
            outputs = {output: str(folder / f"{output}.npy") for output in ("labels", "uncertainty", "certain")}
            outputs["model"] = str(folder / _MODEL)
            return {**fields, "outputs": outputs}

        def stamped() -> object:
            sent.stamp = _stamp(node, volume_node)
            return sent.stamp

        run.hand_over(write, folder, stamped)

    @staticmethod
    def _fixed_fields(card: Card, device: str, sent: _Sent, axis: int) -> dict[str, Any]:
        """The fields that need no voxels."""
        path, place = sent.proposal.kept.proposal
        right = {name: sorted(p.number for p in sent.right if AXES[p.axis] == name) for name in AXES}
        return {
            "model": str(card.directory),
            "device": device,
            "proposal": {"file": str(path), **place},
            "right": right,
            "plane": AXES[axis],
            "seconds": SECONDS,
        }

    def _write(self, run: Run, node: Any, volume_node: Any, data: Mapping[str, Any], sent: _Sent) -> Followed:
        """The result onto the scene, if it is still of what is there."""
        if _stamp(node, volume_node) != sent.stamp:
            raise InputError(
                f"{node.GetName()} or {volume_node.GetName()} was changed while the network learned.",
                "The new proposal does not know of it, and was not used; nothing was changed.",
                "Apply again: it learns from what was drawn meanwhile too.",
            )
        if not data.get("gained"):
            return Followed.from_data(data)
        folder = Path(data["paths"]["labels"]).parent
        text = str(data.get("followed", ""))
        result, kept = read_result(data, {FOLLOWED: text})
        notes, made_by, statuses = attributes(node), of_node(node), _statuses(node, result)
        written = write_result(volume_node, result, node, self._segmenting.editor)
        set_places(node, data.get("places"))
        set_doubt(node, read_doubt(data.get("doubt")))
        set_marked(node, sent.right)
        prime_counts(node, written.segment_ids, data.get("structures", {}))
        certain = Path(data["paths"].get("certain", folder / "certain.npy")), dict(data["certain"])
        shown = {name: path for name, path in kept.paths.items() if name in kept.places}  # without what was certain
        proposal = Proposal(replace(kept, paths=shown), result.provenance.date, certain, sent.right)
        run.keep_folder()
        self._proposals.add(node, proposal, notes)
        self._worker.aside(lambda: (folder / IMAGE).unlink(missing_ok=True), lambda *_: None)
        followed = Followed.from_data(data, written.undoable)
        assert sent.before is not None  # the job had it
        pending = Pending(followed, sent.proposal, proposal, sent.before, made_by, statuses, stamp(node))
        self._previews.add(node, pending)
        return followed

    def _keep_model(self, source: Path, failed: Failed) -> None:
        """Copy it out of the files of the proposal, which go with the segmentation."""

        def copied() -> Path:
            try:
                return Path(shutil.copytree(source, self._worker.folder() / _MODEL))
            except OSError as error:
                raise not_handed_over(error) from error

        def done(directory: Any, error: BaseException | None) -> None:
            try:
                if error is not None:
                    raise explained(error)
                self.learned.emit(self._models.add_today(directory))
            except APFormerError as told:
                failed(told)

        self._worker.aside(copied, done)

    def _release(self, node: Any, run: Run) -> None:
        if self.run_of(node) is run:
            del self._runs[node]
        if node.GetScene() is not None:
            self.changed.emit(node)

    def _node_removed(self, node: Any) -> None:
        for segmentation_node, (run, volume_node) in list(self._runs.items()):
            if node is segmentation_node or node is volume_node:
                run.abandon(
                    InputError(
                        f"{node.GetName()} was removed while the network learned.",
                        "The job was cancelled; there is nowhere to put a result.",
                        "Load it again.",
                    )
                )
        self._correcting.forget(node)
        self._previews.let_go(node)

    def _scene_closing(self) -> None:
        why = APFormerError("The scene was closed.", "The job was cancelled.", "Load the image again.")
        for run, _ in list(self._runs.values()):
            run.abandon(why)
        self._correcting.clear()
        self._previews.clear()


def _stamp(segmentation_node: Any, volume_node: Any) -> object:
    """Changes whenever voxels of the image or of a segment do."""
    image = volume_node.GetImageData()
    return None if image is None else int(image.GetMTime()), stamp(segmentation_node)


def _statuses(segmentation_node: Any, result: Result) -> dict[str, Any]:
    """Label name -> status of its segment."""
    segmentation = segmentation_node.GetSegmentation()
    return {
        name: status_of(segmentation.GetSegment(segment_id))
        for name, segment_id in segment_ids(segmentation_node, result.labels).items()
    }

"""Apply to the rest: the network learns one patient's corrections and proposes what nobody has touched anew.

What was corrected is compared with the proposal in a thread of its own. The new proposal is one step that can be
undone, shown as a difference until it is kept; the next Apply goes on from there, with all corrections.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from apformer.errors import APFormerError, InputError
from apformer.following import Plane
from apformer.jobs.arrays import IMAGE, image_fields, part_fields
from apformer.jobs.exits import explain_error
from apformer.part import Part

from ..scene import Result, frames_of, set_status, status_of, take_pieces, to_volume, write_result
from ..scene.difference import difference, remove_difference, write_difference
from ..scene.label_maps import stamp
from ..scene.precious import ACCEPTED, precious
from ..scene.provenance import FOLLOWED, of_node
from ..scene.segments import segment_ids
from .cards import Card
from .corrected import Corrected, compare
from .doubts import read_doubt, set_doubt
from .hosts import Worker
from .kept import KeptResults, read_part
from .marks import marked, set_marked
from .models import Models
from .parcel import not_handed_over
from .places import set_places
from .placing import read_result
from .proposals import Proposal, Proposals, attributes, volume_of
from .runs import Run
from .scene_watch import SceneWatch
from .segmenting import Segmenting
from .signals import Signal
from .tally import prime_counts
from .wording import Checked, checked

SECONDS = 8.0  # for all of it
_NOW, _MODEL = "now.npy", "model"
Failed = Callable[[APFormerError], None]
AXES = ("k", "j", "i")


@dataclass(frozen=True)
class Followed:
    """What a finished job left.

    Attributes:
        gained: whether there is a new proposal; if not, nothing was changed, and `warnings` say why.
        text: what was learned from, such as "2 corrected slices".
        added_ml, removed_ml: by label.
        warnings: what the user must be told.
        undoable: the Segment Editor's Undo takes it back too.
    """

    gained: bool
    text: str
    added_ml: Mapping[str, float]
    removed_ml: Mapping[str, float]
    seconds: float
    device: str
    warnings: tuple[str, ...]
    undoable: bool = False

    @staticmethod
    def from_data(data: Mapping[str, Any], undoable: bool = False) -> Followed:
        """From the worker's result."""
        return Followed(
            bool(data.get("gained")),
            str(data.get("followed", "")),
            dict(data.get("added_ml", {})),
            dict(data.get("removed_ml", {})),
            float(data.get("seconds") or 0.0),
            str(data.get("device", "")),
            tuple(dict.fromkeys(data.get("warnings", ()))),
            undoable,
        )


@dataclass(frozen=True, eq=False)
class _Pending:
    """A new proposal that is neither kept nor undone. `before`: the file with the segments as they were, and where it
    lies; `made_by`, `statuses`: what was told of them; `stamp`: of the segments since."""

    followed: Followed
    earlier: Proposal
    proposal: Proposal
    before: tuple[Path, Mapping[str, Any]]
    made_by: Any
    statuses: Mapping[str, Any]
    stamp: tuple[int, ...]


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
        self._proposals = Proposals(watch, worker, kept)
        self._seen: dict[Any, tuple[object, Corrected | None]] = {}  # None: it is being compared
        self._pending: dict[Any, _Pending] = {}
        self._runs: dict[Any, Run] = {}
        watch.removed.connect(self._node_removed)
        watch.closing.connect(self._scene_closing)

    # ---------------------------------------------------------------- what was corrected

    def corrected(self, segmentation_node: Any) -> Corrected | None:
        """What counts now; None while it is compared, of which `changed` tells the end.

        Raises:
            InputError: there is no proposal to compare with, or it does not fit the volume.
        """
        volume_node, proposal = self._of(segmentation_node)
        key = stamp(segmentation_node), marked(segmentation_node), proposal, _names(segmentation_node)
        seen = self._seen.get(segmentation_node)
        if seen is None or seen[0] != key:
            self._seen[segmentation_node] = key, None
            self._compare(segmentation_node, volume_node, proposal, key)
        return self._seen[segmentation_node][1]

    def mark(self, segmentation_node: Any, plane: Plane, right: bool) -> None:
        """Mark a slice as right, or take the mark back.

        Args:
            plane: axis 0, 1, 2 for k, j, i of the volume's array.

        Raises:
            InputError: as `corrected`; the volume has no such slice.
        """
        _, proposal = self._of(segmentation_node)
        shape = proposal.kept.shape_kji
        if plane.axis not in (0, 1, 2) or not 0 <= plane.number < shape[plane.axis]:
            raise InputError(
                f"The volume has no slice {plane.number + 1} there.",
                "Nothing was marked.",
                "Go to a slice of the volume, then mark it.",
            )
        present = marked(segmentation_node)
        set_marked(segmentation_node, present | {plane} if right else present - {plane})
        self.changed.emit(segmentation_node)

    # ---------------------------------------------------------------- the job

    def check(self, segmentation_node: Any) -> Checked:
        """Whether the rest can be proposed anew, and why not."""
        return checked(lambda: self._prepare(segmentation_node))

    def run_of(self, segmentation_node: Any) -> Run | None:
        """The job that waits or runs for the segmentation."""
        return self._runs.get(segmentation_node)

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
        self._runs[segmentation_node] = run
        run.ended.connect(lambda run: self._release(segmentation_node, run))
        self._segmenting.jobs.add(run, volume_node)
        self._segmenting.line.add(run, lambda: self._begin(run, segmentation_node, volume_node, card, sent, device))
        self.changed.emit(segmentation_node)
        return run

    # ---------------------------------------------------------------- keep or undo

    def pending(self, segmentation_node: Any) -> Followed | None:
        """The new proposal that is neither kept nor undone; None when there is none."""
        pending = self._pending.get(segmentation_node)
        if pending is None:
            return None
        try:
            present = self._proposals.of(segmentation_node)
        except InputError:  # segmented anew, or its volume was removed
            present = None
        if present is not pending.proposal:  # the Segment Editor's Undo was faster
            self._let_go(segmentation_node)
            return None
        return pending.followed

    def keep(self, segmentation_node: Any, today: bool = False, failed: Failed = lambda error: None) -> None:
        """Take the new proposal, which was on the scene already; its difference is shown no more.

        Args:
            today: have what was learned as a model for the next patients, of which `learned` tells; what could not be
                copied goes to `failed`.
        """
        pending = self._pending.get(segmentation_node)
        if pending is not None and today:
            self._keep_model(pending.proposal.kept.folder / _MODEL, failed)
        if self._let_go(segmentation_node):
            self.changed.emit(segmentation_node)

    def undo(self, segmentation_node: Any, failed: Failed = lambda error: None) -> None:
        """Bring back what was there before, with what was drawn since; the Segment Editor can undo that too. It is done
        when `changed` tells of it; what could not be read goes to `failed`, and nothing is changed."""
        if self.pending(segmentation_node) is None:
            return
        pending = self._pending[segmentation_node]
        volume_node, labels = volume_of(segmentation_node), pending.proposal.kept.labels
        pieces, drawn_at = take_pieces(segmentation_node, volume_node, labels), stamp(segmentation_node)

        def restored() -> Part:
            before = read_part(*pending.before)
            if drawn_at == pending.stamp:
                return before
            now, after = pieces.compose(), pending.proposal.labels()
            return Part.of(np.where(now == after, before.whole(), now).astype(np.uint8))

        def done(part: Any, error: BaseException | None) -> None:
            if self._pending.get(segmentation_node) is not pending:
                return
            if error is not None:
                failed(_explained(error))
            elif stamp(segmentation_node) != drawn_at:  # a stroke ended meanwhile
                self.undo(segmentation_node, failed)
            else:
                self._bring_back(segmentation_node, volume_node, pending, part)

        self._worker.aside(restored, done)

    def stop(self) -> None:
        """Give up all jobs and listen no more."""
        self._watch.removed.disconnect(self._node_removed)
        self._watch.closing.disconnect(self._scene_closing)
        for run in list(self._runs.values()):
            run.cancel()

    # ---------------------------------------------------------------- in detail

    def _of(self, segmentation_node: Any) -> tuple[Any, Proposal]:
        if segmentation_node is None or segmentation_node.GetScene() is not self._watch.scene:
            raise InputError("No segmentation is chosen.", "Nothing was corrected.", "Segment a volume first.")
        proposal = self._proposals.of(segmentation_node)
        volume_node = volume_of(segmentation_node)
        if frames_of(volume_node) is not None:
            raise InputError(
                f"{volume_node.GetName()} shows the frames of a sequence.",
                "Corrections of one frame are not told from those of another.",
                "Export the frame as a volume of its own (Sequences module), and segment that.",
            )
        if to_volume(volume_node).spatial_shape != proposal.kept.shape_kji:
            raise _changed(volume_node)
        made_by = of_node(segmentation_node)
        if made_by is not None and made_by.parameters.get("roi"):
            raise InputError(
                "The model was asked for a region of interest only.",
                "The rest of the volume has no proposal that corrections could be compared with.",
                "Segment the whole volume, then correct it.",
            )
        return volume_node, proposal

    def _compare(self, node: Any, volume_node: Any, proposal: Proposal, key: object) -> None:
        known, right = proposal.kept.labels, marked(node)
        lacking = [label.name for label in known if label.name not in segment_ids(node, known)]

        def look() -> Corrected:
            try:
                labels = pieces.compose()
                settled = proposal.settled(right)
                return compare(proposal.labels(), labels, known, right, settled, lacking, proposal.right)
            except APFormerError as error:
                return Corrected(shape, error=error)

        def done(found: Any, error: BaseException | None) -> None:
            if self._seen.get(node) != (key, None):
                return  # it was edited meanwhile, and is asked again
            if error is not None:
                found = Corrected(shape, error=explain_error(error, None))
            self._seen[node] = key, found
            if node.GetScene() is not None:
                self.changed.emit(node)

        k, j, i = proposal.kept.shape_kji
        shape = k, j, i
        pieces = take_pieces(node, volume_node, known)
        self._worker.aside(look, done)

    def _prepare(self, node: Any) -> tuple[Any, Proposal, Card]:
        if self._watch.is_closing:
            raise InputError("The scene is being closed.", "Nothing new is begun.", "Load an image, then try again.")
        volume_node, proposal = self._of(node)
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
        _, present = self._of(node)
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
                array = image_fields(
                    folder / IMAGE,
                    volume.array,
                    volume.ijk_to_ras,
                    volume.modality,
                    picture=volume.source.kind == "picture",
                    name=name,
                )
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
        right = {name: sorted(p.number for p in sent.right if p.axis == axis) for axis, name in enumerate(AXES)}
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
        pending = _Pending(followed, sent.proposal, proposal, sent.before, made_by, statuses, stamp(node))
        self._pending[node] = pending
        self._show(node, volume_node, pending)
        return followed

    def _show(self, node: Any, volume_node: Any, pending: _Pending) -> None:
        """Find the difference aside, and lay it over the image."""

        def done(part: Any, error: BaseException | None) -> None:
            if error is None and self._pending.get(node) is pending:
                write_difference(node, volume_node, part)
                self.changed.emit(node)

        self._worker.aside(lambda: difference(read_part(*pending.before), pending.proposal.kept.read("labels")), done)

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
                    raise _explained(error)
                self.learned.emit(self._models.add_today(directory))
            except APFormerError as told:
                failed(told)

        self._worker.aside(copied, done)

    def _bring_back(self, node: Any, volume_node: Any, pending: _Pending, part: Part) -> None:
        result = Result(part, pending.earlier.kept.labels, pending.made_by)
        written = write_result(volume_node, result, node, self._segmenting.editor)
        for name, status in pending.statuses.items():
            set_status(node.GetSegmentation().GetSegment(written.segment_ids[name]), status)
        self._let_go(node)
        self._proposals.of(node)  # the segments are of the earlier one: what is told of it comes back too
        self.changed.emit(node)

    def _let_go(self, node: Any) -> bool:
        found = self._pending.pop(node, None) is not None
        if found and node.GetScene() is not None:
            remove_difference(node)
        return found

    def _release(self, node: Any, run: Run) -> None:
        if self._runs.get(node) is run:
            del self._runs[node]
        if node.GetScene() is not None:
            self.changed.emit(node)

    def _node_removed(self, node: Any) -> None:
        for segmentation_node, run in list(self._runs.items()):
            if node is segmentation_node or node is volume_of(segmentation_node):
                run.abandon(
                    InputError(
                        f"{node.GetName()} was removed while the network learned.",
                        "The job was cancelled; there is nowhere to put a result.",
                        "Load it again.",
                    )
                )
        self._seen.pop(node, None)
        self._let_go(node)

    def _scene_closing(self) -> None:
        why = APFormerError("The scene was closed.", "The job was cancelled.", "Load the image again.")
        for run in list(self._runs.values()):
            run.abandon(why)
        self._seen.clear()
        self._pending.clear()


def _changed(volume_node: Any) -> InputError:
    return InputError(
        f"{volume_node.GetName()} has another size than when it was segmented.",
        "What the model had proposed does not fit it.",
        "Segment it again, then correct it; what was drawn stays as it is.",
    )


def _explained(error: BaseException) -> APFormerError:
    return error if isinstance(error, APFormerError) else explain_error(error, None)


def _stamp(segmentation_node: Any, volume_node: Any) -> object:
    """Changes whenever voxels of the image or of a segment do."""
    image = volume_node.GetImageData()
    return None if image is None else int(image.GetMTime()), stamp(segmentation_node)


def _names(segmentation_node: Any) -> tuple[str, ...]:
    segmentation = segmentation_node.GetSegmentation()
    return tuple(segmentation.GetNthSegment(number).GetName() for number in range(segmentation.GetNumberOfSegments()))


def _statuses(segmentation_node: Any, result: Result) -> dict[str, Any]:
    """Label name -> status of its segment."""
    segmentation = segmentation_node.GetSegmentation()
    return {
        name: status_of(segmentation.GetSegment(segment_id))
        for name, segment_id in segment_ids(segmentation_node, result.labels).items()
    }

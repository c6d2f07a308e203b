"""Apply to the rest: what was corrected or outlined on some slices of one patient is followed on the others.

What counts is found in a thread of its own. The new proposal is one step that can be undone, shown as a difference
until it is kept; the next Apply goes on from there, with all corrections and outlines.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from apformer.errors import APFormerError, InputError
from apformer.following import Plane

from .applying import MODEL, Applying, Press
from .aside import Work
from .cards import Card
from .corrected import Corrected
from .correcting import Correcting
from .hosts import Worker
from .kept import KeptResults
from .models import Models
from .outlining import Outlining
from .parcel import not_handed_over
from .preview import Failed, Followed, Previews, explained
from .proposals import Proposal, Proposals
from .runs import Run
from .scene_watch import SceneWatch
from .segmenting import Segmenting
from .signals import Signal
from .wording import Checked, checked


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
        proposals, outlining = Proposals(watch, worker, kept), Outlining(watch)
        self._correcting = Correcting(watch.scene, worker, proposals, outlining, self.changed)
        self._previews = Previews(worker, lambda: segmenting.editor, self.changed)
        self._applying = Applying(worker, self._correcting, proposals, outlining, lambda: segmenting.editor)
        self._runs: dict[Any, tuple[Run, Any]] = {}  # by segmentation, with its volume
        watch.removed.connect(self._node_removed)
        watch.closing.connect(self._scene_closing)

    # ---------------------------------------------------------------- what was corrected

    def corrected(self, segmentation_node: Any) -> Corrected | None:
        """What counts now; None while it is compared, of which `changed` tells the end.

        Raises:
            InputError: there is no segmentation, or nothing can follow on its volume.
        """
        return self._correcting.corrected(segmentation_node)

    def mark(self, segmentation_node: Any, plane: Plane, right: bool) -> None:
        """Mark a slice as right, or take the mark back.

        Args:
            plane: axis 0, 1, 2 for k, j, i of the volume's array.

        Raises:
            InputError: as `corrected`; no model proposed anything; the volume has no such slice.
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
        """Propose the rest, when its turn comes, of what was corrected and between what was outlined, both at once; the
        run's outcome is `Followed`. A proposal that was neither kept nor undone is kept.

        Raises:
            APFormerError: it cannot be, as `check` says.
        """
        press = self._prepare(segmentation_node, device)
        self.keep(segmentation_node)

        def finish(data: dict[str, Any]) -> Followed:
            done, pending = self._applying.finish(run, press, data)
            if pending is not None:
                self._previews.add(segmentation_node, pending)
            self.followed.emit(segmentation_node, done)
            return done

        def prepare(data: dict[str, Any]) -> Work | None:
            return self._applying.prepare(press, data)

        name, card = press.volume_node.GetName(), press.card
        title = f"{name} between outlines" if card is None else f"{name} with {card.name} {card.version}"
        run = Run(self._worker, "follow", title, finish, prepare)
        self._runs[segmentation_node] = run, press.volume_node
        run.ended.connect(lambda run: self._release(segmentation_node, run))
        self._segmenting.jobs.add(run, press.volume_node)
        self._segmenting.line.add(run, lambda: self._applying.begin(run, press))
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
            today: have what a model learned as one for the next patients, of which `learned` tells; what could not be
                copied goes to `failed`.
        """
        pending = self._previews.of(segmentation_node)
        if pending is not None and pending.model is not None and today:
            self._keep_model(pending.model, failed)
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

    def _prepare(self, node: Any, device: str = "auto") -> Press:
        """What pressing the button now asks for."""
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
        if corrected.refusal is not None:
            raise corrected.refusal
        if corrected.error is not None or not isinstance(proposal, Proposal):  # outlines alone
            return Press(node, volume_node, None, None, device)
        return Press(node, volume_node, proposal, self._model(proposal), device)

    def _model(self, proposal: Proposal) -> Card:
        """The version that made the proposal. Raises BundleError when it is not there any more."""
        name, _, version = proposal.kept.model.rpartition(" ")
        for card in (*self._models.versions(name), *self._models.todays()):
            if (card.name, card.version) == (name, version) and card.problem is None:
                return card
        return self._models.find(f"{name}@{version}")

    def _keep_model(self, source: Path, failed: Failed) -> None:
        """Copy it out of the files of the proposal, which go with the segmentation."""

        def copied() -> Path:
            try:
                return Path(shutil.copytree(source, self._worker.folder() / MODEL))
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

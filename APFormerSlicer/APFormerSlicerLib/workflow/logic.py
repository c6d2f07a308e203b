"""All of the workflow on one scene, for a host's panels and for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apformer.bundles import ModelLibrary
from apformer.bundles.labels import LONGEST_NAME
from apformer.errors import InputError

from ..scene import new_segmentation, to_volume
from ..scene.edits import SegmentEditor, save_for_undo
from ..scene.segments import add_segment
from .aside import Done, Work
from .batch import Batch
from .cards import Card
from .changes import Changes
from .collecting import Collecting
from .folder import FolderBatch
from .following import Following
from .hosts import Worker
from .inputs import Choice, segmentable
from .kept import KeptResults
from .models import Models
from .placing import Segmented
from .region import RegionWatch
from .reviewing import Reviewing
from .runs import Run
from .scene_watch import SceneWatch
from .segmenting import Segmenting
from .state import State, region_of
from .suggestion import Suggestion, suggest
from .tuning import Tuning
from .versions import Versions
from .windows import Windows
from .worklist import WorkList


class Workflow:
    """What a user does, step by step; each attribute is one step. Everything is called on the main thread.

        workflow = Workflow(scene, worker)
        workflow.state.volume, workflow.state.model = node, "liver-ct"
        run = workflow.segment()

    Args:
        scene: vtkMRMLScene. Its state node is shared with every other `Workflow` on it.
        worker: segments, and changes which models there are; see `hosts.Worker`.
        library: the models; by default the user's and those that come with the program.
        trainer: a worker for fine-tuning, so that one can segment meanwhile; by default `worker`.
        editor: what makes results undoable; see `scene.edits`.
    """

    def __init__(
        self,
        scene: Any,
        worker: Worker,
        library: ModelLibrary | None = None,
        trainer: Worker | None = None,
        editor: SegmentEditor | None = None,
    ) -> None:
        self.scene = scene
        self.library = library or ModelLibrary()
        self.watch = SceneWatch(scene)
        self.state = State(self.watch)
        self.region = RegionWatch(self.watch, self.state)
        self.models = Models(self.library)
        kept = KeptResults(self.watch, worker)
        self.segmenting = Segmenting(self.watch, worker, self.models, kept, editor)
        self.following = Following(self.watch, worker, self.models, kept, self.segmenting)
        self.reviewing = Reviewing(scene, worker, kept)
        self.collecting = Collecting(scene, self.state, worker, kept)
        self.versions = Versions(self.library, self.models)
        self.changes = Changes(worker, self.library, self.versions)
        self._worker = worker
        self.tuning = Tuning(trainer or worker, self.state, self.collecting, self.models, self.versions)
        self.segmenting.segmented.connect(self._choose_result)
        self.following.learned.connect(self._choose_learned)
        self.windows = Windows(self.watch, self.state, self.models)
        self.worklist = WorkList(
            self.watch, worker, self.state, self.models, self.segmenting, self.reviewing, self.collecting
        )

    def volumes(self) -> list[Any]:
        """The volume nodes that can be chosen."""
        return segmentable(self.scene)

    def choose_only_volume(self) -> None:
        """Choose the one volume there is, where none is chosen; among several it is the user who chooses."""
        volumes = self.volumes()
        if self.state.volume is None and len(volumes) == 1:
            self.state.volume = volumes[0]

    def suggestions(self) -> list[Suggestion]:
        """The models that can segment the chosen volume, best first; none where nothing can.

        Raises:
            InputError: no volume is chosen, or it cannot be read.
        """
        node = self.state.volume
        return suggest(self.models.cards(), to_volume(node), node.GetName())

    def choice(self, volume_node: Any = None, **changes: Any) -> Choice:
        """What the state says is to be segmented; of another volume, into a segmentation of its own."""
        state = self.state
        chosen = volume_node is None or volume_node is state.volume
        settings: dict[str, Any] = {
            "volume_node": state.volume if chosen else volume_node,
            "model": state.model,
            "roi_node": state.roi if chosen else region_of(volume_node),
            "segmentation_node": self._segmentation_of(state.volume) if chosen else None,
            "device": state.device,
            "maps": tuple(state.maps),
        }
        return Choice(**{**settings, **changes})

    def segment(self, volume_node: Any = None, **changes: Any) -> Run:
        """Segment what is chosen, or another volume likewise; the run, whose outcome is `Segmented`.

        Raises:
            APFormerError: it cannot be; see `Segmenting.start`.
        """
        return self.segmenting.start(self.choice(volume_node, **changes))

    def new_structure(self, name: str) -> str:
        """An empty segment for a structure that a person will outline on the chosen volume, in the chosen segmentation
        or, where none is, in a new one, which is chosen then; its ID.

        Raises:
            InputError: no volume is chosen, the name is empty, too long or taken.
        """
        name, volume_node = " ".join(name.split()), self.state.volume
        if volume_node is None:
            raise InputError("No volume is chosen.", "There is nothing to draw on.", "Load an image first.")
        if not 0 < len(name) <= LONGEST_NAME:
            raise InputError(
                f"A structure's name has 1 to {LONGEST_NAME} characters.",
                "What is drawn is found again by its name.",
                "Give it a short name, such as Tumour.",
            )
        node = self._segmentation_of(volume_node) or new_segmentation(volume_node)
        save_for_undo(self.segmenting.editor, node)
        segment_id = add_segment(node, name)
        self.state.segmentation = node
        return segment_id

    def batch(self, volume_nodes: Sequence[Any], **changes: Any) -> Batch:
        """A batch of volumes with the chosen model, each within its own region; not started yet.

        Raises:
            InputError: there is no volume.
        """
        if not volume_nodes:
            raise InputError("No volume is chosen.", "There is nothing to segment.", "Choose one volume or more.")
        return Batch(self.segmenting, [self.choice(node, **changes) for node in volume_nodes])

    def folder(self, folder: Path, output: Path) -> FolderBatch:
        """A batch of the images in a folder with the chosen model, to files in `output`; not started yet.

        Raises:
            APFormerError: no such model; no images; nowhere to write.
        """
        self.models.find(self.state.model)
        return FolderBatch(self.segmenting, folder, output, self.choice(None, roi_node=None, segmentation_node=None))

    def check_site(self) -> Run:
        """Have the worker read every file of the site's data set; the run's outcome is a list of sentences, one for
        each thing that would spoil a training, what blocks one first.

        Raises:
            ConfigError: there is no data set. JobError: no worker can be started.
        """
        root = self.collecting.dataset.root
        run = Run(self._worker, "check", f"check of {root.name}", _problem_lines)
        run.start({"dataset": str(root)})
        return run

    def aside(self, work: Work, done: Done) -> None:
        """Do `work`, which touches no node, in a thread of its own; then tell `done` on the main thread."""
        self._worker.aside(work, done)

    def close(self) -> None:
        """Give up what is running and listen to the scene no more. The workers are the host's to end."""
        self.worklist.stop()
        self.windows.stop()
        self.following.stop()
        self.segmenting.stop()
        self.collecting.stop()
        self.tuning.stop()
        self.changes.stop()
        self.region.stop()
        self.state.stop()
        self.watch.stop()

    def _segmentation_of(self, volume_node: Any) -> Any:
        """The chosen segmentation, unless it was drawn on another volume."""
        node = self.state.segmentation
        if node is None or volume_node is None:
            return None
        drawn_on = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
        return node if drawn_on in (None, volume_node) else None

    def _choose_result(self, choice: Choice, done: Segmented) -> None:
        if choice.volume_node is self.state.volume:
            self.state.segmentation = done.written.segmentation_node

    def _choose_learned(self, card: Card) -> None:
        """For the next patients."""
        self.versions.changed.emit(card.name)
        self.state.model = card.reference


def _problem_lines(data: dict[str, Any]) -> list[str]:
    return [f"{problem['severity']}: {problem['what']} {problem['remedy']}" for problem in data["problems"]]

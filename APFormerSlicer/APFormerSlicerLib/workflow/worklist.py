"""An annotator's day: a list of images, segmented in the background, reviewed one after the other and stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from apformer.errors import APFormerError, InputError
from apformer.jobs.exits import explain_error

from ..scene import check_labels
from ..scene.label_maps import stamp
from ..scene.loading import new_volume_node, unload
from ..scene.overlays import LOOKS, overlay
from .background import Background
from .collecting import Collecting
from .hosts import Worker
from .image_files import ImageRead, images_in, read_image_file
from .models import Models
from .reviewing import Reviewing
from .runs import DONE, Run
from .scene_watch import SceneWatch
from .segmenting import Segmenting
from .signals import Signal
from .state import State
from .wording import Checked, checked
from .work_item import FAILED, STATUSES, STORED, TO_REVIEW, WAITING, WorkItem
from .work_items import WorkItems

Told = Callable[[str, APFormerError | None], object]


class WorkList:
    """Volumes of the scene and image files, each waiting, segmented, reviewed, stored: `WorkItem.status` tells.

    What an item's status follows from lies on the scene, so a segment that is accepted, flagged or segmented elsewhere
    changes it too. Items that are volumes are saved with the scene; files that are not loaded are forgotten with the
    program, as their results are. The image of a file is loaded when its turn comes, read aside, and leaves the scene
    when it is stored.

    Attributes:
        changed: an item came, went, or is further than it was.
        opened: an item is on the scene and chosen in the state.
        opening: the item whose image is being read; None when none is.
    """

    def __init__(
        self,
        watch: SceneWatch,
        worker: Worker,
        state: State,
        models: Models,
        segmenting: Segmenting,
        reviewing: Reviewing,
        collecting: Collecting,
    ) -> None:
        self.changed: Signal[()] = Signal()
        self.opened: Signal[WorkItem] = Signal()
        self.opening: WorkItem | None = None
        self._watch, self._worker, self._state, self._models = watch, worker, state, models
        self._segmenting, self._reviewing, self._collecting = segmenting, reviewing, collecting
        self._items = WorkItems(watch)
        self._background = Background(worker, state, segmenting, self._items)
        self._skipped: set[WorkItem] = set()
        self._wanted_beside: tuple[Any] | None = None  # the volume that was chosen when a next one was not ready yet
        self._background.ended.connect(lambda _: self._open_wanted())
        for signal in (self._items.changed, self._background.changed):
            signal.connect(self.changed.emit)
        self._items.dropped.connect(self._dropped)
        segmenting.segmented.connect(self._tell)
        reviewing.changed.connect(self._tell)

    # ---------------------------------------------------------------- the list

    @property
    def items(self) -> list[WorkItem]:
        """In the order that the state says: "given", or "unsure" for the most unsure first."""
        return self._items.ordered(self._state.order)

    @property
    def current(self) -> WorkItem | None:
        """The item of the chosen volume; None where that is not on the list."""
        return self._items.of(self._state.volume)

    @property
    def summary(self) -> str:
        """ "2 of 12 stored, 3 to review, 1 failed" """
        counts = Counter(item.status for item in self._items)
        rest = [f"{counts[name]} {name}" for name in STATUSES if name != STORED and counts[name]]
        return ", ".join([f"{counts[STORED]} of {len(self._items)} stored", *rest])

    def asked_for(self, run: Run) -> bool:
        """Whether a segmentation is one of an item, in the background."""
        return any(item.run is run for item in self._items)

    def add(self, volume_nodes: Iterable[Any]) -> None:
        """Volumes of the scene; those that are listed already stay where they are."""
        self._items.add_volumes(volume_nodes)

    def add_folder(self, folder: Path, told: Told) -> None:
        """The images in a folder, which is looked through aside; then `told` is called with what the user should know
        of it, such as which files were taken as one patient's, and why it could not be read, or None."""

        def found(images: Any, error: BaseException | None) -> None:
            if error is None:
                self._items.add_images(images.images)
            told("" if error is not None else images.note or "", None if error is None else _explained(error))

        self._worker.aside(lambda: images_in(folder), found)

    def remove(self, item: WorkItem) -> None:
        """Take an item off the list; what is on the scene of it stays there."""
        self._items.remove(item)

    def clear(self) -> None:
        self.cancel()
        for item in self._items:
            self._items.remove(item)

    # ---------------------------------------------------------------- segmenting

    @property
    def busy(self) -> bool:
        """Whether it segments."""
        return self._background.busy

    def segment_all(self) -> None:
        """Segment what waits, and once more what failed, in the background and in the order of the list.

        Raises:
            BundleError: no model is chosen, or it is gone. InputError: nothing waits.
        """
        self._models.find(self._state.model)
        ahead = [item for item in self.items if item.status in (WAITING, FAILED)]
        if not ahead:
            raise InputError(
                "No image of the work list waits to be segmented.",
                "There is nothing to begin.",
                "Add volumes or a folder, or go on to the next one to review.",
            )
        self._background.start(ahead)

    def cancel(self) -> None:
        """Segment no more; what is there stays."""
        self._wanted_beside = None
        self._background.cancel()

    # ---------------------------------------------------------------- one after the other

    def next(self) -> WorkItem | None:
        """Open the next item to review, in the order of the list; those that were left undecided come again at the end.

        None when none is ready. While the list is being segmented, the next that becomes ready is then opened, unless
        another volume has been chosen by then.
        """
        present = self.current
        if present is not None and present.status == TO_REVIEW:
            self._skipped.add(present)
        ready = [item for item in self.items if item.status == TO_REVIEW and item is not present]
        if not ready:
            self._wanted_beside = (self._state.volume,) if self.busy else None
            return None
        fresh = [item for item in ready if item not in self._skipped]
        if not fresh:
            self._skipped.clear()
        item = (fresh or ready)[0]
        self.open(item)
        return item

    def open(self, item: WorkItem) -> None:
        """Choose its image and its segmentation; an image that is not on the scene is read aside first. `opened` tells
        when it is there; where it cannot be, the item has failed and says why."""
        self._wanted_beside = None
        if item.volume_node is not None:
            self._show(item)
            return
        image = item.image
        assert image is not None  # one of both
        self.opening = item
        self.changed.emit()
        self._worker.aside(lambda: read_image_file(image), lambda read, error: self._loaded(item, read, error))

    def _loaded(self, item: WorkItem, read: ImageRead | None, error: BaseException | None) -> None:
        if self.opening is not item or item not in self._items or self._watch.is_closing:
            return  # another one was opened meanwhile
        try:
            if read is None:
                raise _explained(error)
            self._put_on_scene(item, read)
        except APFormerError as why:
            self._background.discard(item)
            item.error, self.opening = why, None
            self.changed.emit()
        else:
            self._show(item)

    def _put_on_scene(self, item: WorkItem, read: ImageRead) -> None:
        """Raises InputError when its result is not of this image; then nothing of it is on the scene."""
        if item.ahead is not None and read.stamp != item.ahead_stamp:
            raise InputError(
                f"{item.title} was changed after it was segmented.",
                "The result is that of another image, and was discarded.",
                "Segment all once more.",
            )
        node = new_volume_node(self._watch.scene, read.volume, item.title)
        item.volume_node, item.patient = node, read.patient
        if item.ahead is not None:
            try:
                self._segmenting.place(node, item.ahead)
            except APFormerError:
                item.volume_node = None
                unload([node])
                raise
            item.ahead = None  # its files are kept with the segmentation from now on
        item.mark()

    def _show(self, item: WorkItem) -> None:
        self.opening = None
        self._state.volume, self._state.segmentation = item.volume_node, item.segmentation_node
        self.opened.emit(item)
        self.changed.emit()

    def _open_wanted(self) -> None:
        if self._wanted_beside == (self._state.volume,):
            self.next()

    # ---------------------------------------------------------------- accept, store, next

    def accept_store_next(self, patient: str | None = None, *, correct: bool = False) -> Run:
        """Accept all that the model proposed for the chosen volume, store the case in the site's data set and, once it
        is stored, open the next item to review.

        The run is that of `Collecting.add`. Where its outcome is `known`, nothing was stored and nothing opened: ask,
        then call this again with `correct`. Where it fails or is cancelled, the item stays accepted and open.

        Args:
            patient: any identity, kept as a pseudonym; left out, that of the DICOM header or of the file's name.
            correct: the image is known, and its labels are to be replaced.

        Raises:
            APFormerError: the chosen volume is not on the list or has no segments; it cannot be stored, as
                `Collecting.add` says. Nothing was accepted then.
        """
        item, segmentation, identity = self._storable(patient)
        self._reviewing.accept(segmentation)
        before, whole = stamp(segmentation), self._holds_all(item)
        run = self._collecting.add(item.volume_node, segmentation, patient=identity, correct=correct)

        def over(run: Run) -> None:
            if run.status == DONE and not run.outcome.known:
                self._stored(item, run.outcome.case.name, whole=whole and stamp(segmentation) == before)
            self.changed.emit()

        if run.over:
            over(run)
        else:
            run.ended.connect(over)
        return run

    def check(self, patient: str | None = None) -> Checked:
        """Whether `accept_store_next` can be tried; voxels are not looked at."""
        return checked(lambda: self._storable(patient))

    def _storable(self, patient: str | None) -> tuple[WorkItem, Any, str | None]:
        """The chosen item, its segmentation and its patient; raises what `accept_store_next` does."""
        item = self.current
        segmentation = None if item is None else item.segmentation_node
        if item is None or segmentation is None:
            raise InputError(
                "The chosen volume is not a segmented one of the work list.",
                "There is nothing to accept.",
                "Go on to the next one to review, or add the volume to the list and segment it.",
            )
        identity = (patient or "").strip() or item.patient
        self._collecting.require(item.volume_node, segmentation, identity)
        return item, segmentation, identity

    def _stored(self, item: WorkItem, case: str, whole: bool) -> None:
        """Take it off the scene, if the list loaded it and the whole of what is drawn on it was stored; then go on."""
        here = self.current is item
        item.last_doubt, item.stored = item.doubt, case
        item.mark()
        segmentation, volume_node = item.segmentation_node, item.volume_node
        if item.image is not None and segmentation is not None and whole:
            maps = [overlay(segmentation, name) for name in LOOKS]
            unload([*filter(None, maps), segmentation, volume_node])
        if here:
            self.next()

    def _holds_all(self, item: WorkItem) -> bool:
        """Whether the data set has a label for every segment that is drawn on the image."""
        (segmentation, *others) = item.segmentation_nodes
        held = check_labels(segmentation, item.volume_node, self._collecting.dataset.labels)
        return not others and len(held) == segmentation.GetSegmentation().GetNumberOfSegments()

    # ---------------------------------------------------------------- the end

    def stop(self) -> None:
        """The program is being closed: what was segmented ahead is discarded."""
        self.cancel()
        self._items.stop()
        self._segmenting.segmented.disconnect(self._tell)
        self._reviewing.changed.disconnect(self._tell)

    def _tell(self, *_: Any) -> None:
        self.changed.emit()

    def _dropped(self, item: WorkItem) -> None:
        self._skipped.discard(item)
        if self.opening is item:
            self.opening = None


def _explained(error: BaseException | None) -> APFormerError:
    if isinstance(error, APFormerError):
        return error
    return explain_error(error or RuntimeError("the image was not read"), None)

"""No step of a user's journey looks at a whole volume on the main thread: counted in voxels, not in seconds."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from apformer import files
from apformer.datasets import SiteDataset, identity
from apformer.errors import ConfigError, InputError
from apformer.files import write_scalar
from apformer.jobs.messages import LONGEST_LINE, Request
from apformer.part import Part
from apformer.volume import Volume
from APFormerSlicerLib.scene import label_maps, new_segmentation, to_label_map, to_volume
from APFormerSlicerLib.workflow import Choice, Workflow
from APFormerSlicerLib.workflow.aside import start_aside
from APFormerSlicerLib.workflow.tally import AT_ONCE
from headless import redraw
from passes import Passes, watching
from workflow_samples import PlayedWorker

SHAPE = (160, 200, 200)  # 6.4 million voxels: more than is counted while a user waits
WHOLE = int(np.prod(SHAPE))
BOX = (slice(20, 60), slice(50, 120), slice(60, 130))  # of the result
identity._SCRYPT["n"] = 2  # slow by design, and needless for made-up patients


@dataclass
class Threaded(PlayedWorker):
    """A `PlayedWorker` that does work aside in threads, as hosts do, and tells of it when it is asked."""

    calls: queue.SimpleQueue[Callable[[], None]] = field(default_factory=queue.SimpleQueue)

    def aside(self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        start_aside(work, done, self.calls.put)

    def deliver(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < end
            try:
                self.calls.get(timeout=0.1)()
            except queue.Empty:
                continue


@pytest.fixture
def a_worker(tmp_path: Path) -> Threaded:
    (tmp_path / "jobs").mkdir()
    return Threaded(tmp_path / "jobs")


@pytest.fixture
def a_ct(make_volume_node: Callable[..., Any]) -> Any:
    return make_volume_node(np.random.default_rng(0).integers(-1000, 1000, SHAPE, dtype=np.int16), "CT")


@pytest.fixture
def passes() -> Iterator[Passes]:
    with watching(least=WHOLE // 4) as found:
        yield found


def a_result() -> tuple[np.ndarray, np.ndarray]:
    labels, doubt = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.float32)
    labels[BOX] = 1
    labels[30:40, 60:80, 70:90] = 2
    doubt[BOX] = 0.3
    doubt[25:45, 60:80, 70:100] = 0.9
    return labels, doubt


def segmented(workflow: Workflow, worker: Threaded, node: Any) -> Any:
    run = workflow.segmenting.start(Choice(node, "slices", maps=("uncertainty",)))
    worker.deliver(lambda: bool(worker.asked))
    labels, doubt = a_result()
    worker.last.finish(labels, {"uncertainty": doubt})
    assert run.status == "done", run.error
    return run.outcome.written.segmentation_node


def test_the_watch_sees_what_it_should(a_ct: Any, passes: Passes) -> None:
    from APFormerSlicerLib.scene import to_volume

    array = to_volume(a_ct).array
    for look in (lambda: array.min(), lambda: array == 1, lambda: np.isin(array, [1]), lambda: array.astype(np.uint8)):
        before = len(passes.on_main)
        look()
        assert len(passes.on_main) > before
    before = len(passes.on_main)
    assert array[::8, ::8, ::8].max() and array[3].max() and len(passes.on_main) == before


def test_choosing_checking_and_estimating_look_at_no_voxels_and_write_nothing(
    a_workflow: Workflow, a_worker: Threaded, a_ct: Any, passes: Passes
) -> None:
    state = a_workflow.state
    state.volume, state.model = a_ct, "slices"
    a_workflow.volumes()
    a_workflow.suggestions()
    assert a_workflow.segmenting.check(a_workflow.choice())[0]
    a_workflow.segmenting.estimate(a_workflow.choice())
    assert a_worker.last.job == "preflight" and a_worker.folders == []
    assert len(Request("1", "preflight", a_worker.last.fields).encode()) < LONGEST_LINE / 4
    assert passes.seen == []


def test_a_volume_is_handed_over_once_and_not_on_the_main_thread(
    a_workflow: Workflow, a_worker: Threaded, a_ct: Any, passes: Passes
) -> None:
    a_workflow.segmenting.start(Choice(a_ct, "slices"))
    assert passes.on_main == []
    a_worker.deliver(lambda: bool(a_worker.asked))
    assert passes.on_main == [] and passes.aside == ["written to a file"]
    sent = np.load(a_worker.last.fields["array"]["file"], mmap_mode="r")
    assert sent.shape == SHAPE and sent.dtype == np.int16


def test_a_result_is_copied_once_as_large_as_its_box(
    a_workflow: Workflow, a_worker: Threaded, a_ct: Any, passes: Passes
) -> None:
    passes.least = 1000
    run = a_workflow.segmenting.start(Choice(a_ct, "slices", maps=("uncertainty",)))
    a_worker.deliver(lambda: bool(a_worker.asked))
    labels, doubt = a_result()
    size = Part.of(labels).array.size
    files = a_worker.last
    passes.seen.clear()
    finish_quietly(files, labels, doubt, passes)
    assert run.status == "done", run.error
    assert passes.on_main == [f"copied into a node of {size}"]  # labels; maps when they are looked at


def finish_quietly(asked: Any, labels: np.ndarray, doubt: np.ndarray, passes: Passes) -> None:
    """The files of the worker are written by this process here; that is not counted."""
    tell, told = asked.tell, []
    asked.tell = lambda kind, **data: told.append((kind, data))
    asked.finish(labels, {"uncertainty": doubt})
    passes.seen.clear()
    (kind, data) = told[0]
    tell(kind, **data)


def test_reviewing_looks_at_no_voxels_and_a_map_is_not_copied(
    a_workflow: Workflow, a_worker: Threaded, a_ct: Any, passes: Passes
) -> None:
    node = segmented(a_workflow, a_worker, a_ct)
    passes.least = 1000
    passes.seen.clear()
    review = a_workflow.reviewing
    rows = review.rows(node)
    labels, _ = a_result()
    for row, value in zip(rows, (1, 2), strict=True):
        assert row.volume_ml == pytest.approx(np.count_nonzero(labels == value) * 2 / 1000)
    assert len(review.places(node)) == 1 and review.next_place(node) is not None
    review.accept(node)
    review.show_map(node, "uncertainty")
    assert passes.on_main == []
    shown = review.map_node(node, "uncertainty")
    assert shown.GetImageData().GetScalarRange()[1] == pytest.approx(0.9)


def test_a_large_segment_that_was_edited_is_counted_aside_and_told(
    a_workflow: Workflow, a_worker: Threaded, a_ct: Any, passes: Passes
) -> None:
    from headless import matrix_of

    node = segmented(a_workflow, a_worker, a_ct)
    mask = np.ones(SHAPE, np.uint8)
    assert mask.size > AT_ONCE
    segment_id = node.GetSegmentation().GetSegmentIdBySegmentName("anterior")
    redraw(node, segment_id, mask, matrix_of(a_ct))
    passes.least = 30_000  # less than a slice
    passes.seen.clear()
    told: list[Any] = []
    a_workflow.reviewing.changed.connect(told.append)
    assert a_workflow.reviewing.rows(node)[0].volume_ml is None and passes.on_main == []
    a_worker.deliver(lambda: bool(told))
    assert a_workflow.reviewing.rows(node)[0].volume_ml == pytest.approx(WHOLE * 2 / 1000)
    assert passes.on_main == []


def test_adding_a_case_looks_at_no_voxels_and_packs_none_on_the_main_thread(
    a_workflow: Workflow, a_worker: Threaded, a_ct: Any, passes: Passes, tmp_path: Path
) -> None:
    node = segmented(a_workflow, a_worker, a_ct)
    a_workflow.collecting.create(tmp_path / "site", a_workflow.models.find("slices"))
    passes.least = 30_000
    passes.seen.clear()
    assert a_workflow.collecting.check(a_ct, node, "P 1") == (True, "")
    run = a_workflow.collecting.add(a_ct, node, patient="P 1")
    asked = len(a_worker.asked)
    a_worker.deliver(lambda: len(a_worker.asked) > asked)
    assert passes.on_main == [] and "written to a file" in passes.aside
    assert a_worker.last.job == "store"
    a_worker.answer()  # the worker's own code
    assert run.status == "done", run.error
    (case,) = SiteDataset.open(tmp_path / "site").cases()
    labels, _ = a_result()
    assert case.revision is not None and case.revision.counts == {
        1: int(np.count_nonzero(labels == 1)),
        2: int(np.count_nonzero(labels == 2)),
    }


def test_an_image_of_a_work_list_is_read_aside_and_not_copied(
    a_workflow: Workflow, a_worker: Threaded, passes: Passes, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    voxels = np.random.default_rng(0).integers(-1000, 1000, SHAPE, dtype=np.int16)
    write_scalar(folder / "a.nii", Volume(voxels, np.diag([-1.0, -1.0, 2.0, 1.0]), "CT"))
    a_workflow.state.model = "slices"
    worklist, found = a_workflow.worklist, []
    worklist.add_folder(folder, lambda *told: found.append(told))
    a_worker.deliver(lambda: bool(found))
    worklist.segment_all()
    finish_quietly(a_worker.last, *a_result(), passes)
    opened: list[Any] = []
    worklist.opened.connect(opened.append)
    worklist.next()
    assert opened == []
    a_worker.deliver(lambda: bool(opened))
    assert passes.on_main == []
    assert np.array_equal(to_volume(a_workflow.state.volume).array.view(np.ndarray), voxels)


def test_segments_on_another_grid_are_resampled_aside_when_a_case_is_added(
    a_workflow: Workflow, a_worker: Threaded, a_ct: Any, passes: Passes, tmp_path: Path
) -> None:
    from headless import draw, matrix_of

    node = new_segmentation(a_ct)
    twice = matrix_of(a_ct)
    for axis in range(3):
        twice.SetElement(axis, axis, 2 * twice.GetElement(axis, axis))
    draw(node, "anterior", np.ones((70, 90, 80), np.uint8), twice)
    a_workflow.collecting.create(tmp_path / "site", a_workflow.models.find("slices"))
    passes.least = 30_000
    passes.seen.clear()
    where: list[bool] = []

    def nearest(*what: Any) -> Any:
        where.append(threading.current_thread() is threading.main_thread())
        return real(*what)

    real = label_maps.nearest
    with mock.patch.object(label_maps, "nearest", nearest):
        run = a_workflow.collecting.add(a_ct, node, patient="P 1")
        asked = len(a_worker.asked)
        a_worker.deliver(lambda: len(a_worker.asked) > asked)
    assert where == [False] and passes.on_main == []
    a_worker.answer()
    assert run.status == "done", run.error
    (case,) = SiteDataset.open(tmp_path / "site").cases()
    assert case.revision is not None and case.revision.counts[1] == pytest.approx(8 * 70 * 90 * 80, rel=0.1)


def test_opening_a_stored_case_reads_and_unpacks_nothing_on_the_main_thread(
    a_workflow: Workflow, a_worker: Threaded, a_ct: Any, passes: Passes, tmp_path: Path
) -> None:
    node = segmented(a_workflow, a_worker, a_ct)
    a_workflow.collecting.create(tmp_path / "site", a_workflow.models.find("slices"))
    a_workflow.collecting.add(a_ct, node, patient="P 1")
    asked = len(a_worker.asked)
    a_worker.deliver(lambda: len(a_worker.asked) > asked)
    a_worker.answer()
    a_workflow.scene.Clear(False)
    passes.least = 1000
    passes.seen.clear()
    told: list[Any] = []
    with reading(passes):
        a_workflow.collecting.open_aside("case-0001", lambda *what: told.append(what))
        assert told == [] and passes.on_main == []
        a_worker.deliver(lambda: bool(told))
    labels, _ = a_result()
    assert passes.on_main == [f"copied into a node of {Part.of(labels).array.size}"]
    assert passes.aside.count("read as a file") == 2
    ((nodes, error),) = told
    assert error is None and nodes == (a_workflow.state.volume, a_workflow.state.segmentation)
    assert np.array_equal(to_label_map(nodes[1], nodes[0], a_workflow.collecting.dataset.labels).array, labels)


def test_of_two_cases_that_are_asked_for_the_last_one_is_opened(
    a_workflow: Workflow, a_worker: Threaded, a_ct: Any, tmp_path: Path
) -> None:
    dataset = a_workflow.collecting.create(tmp_path / "site", a_workflow.models.find("slices"))
    for value in (1, 2):
        image = Volume(np.random.default_rng(value).integers(0, 900, (4, 30, 30)).astype(np.int16), np.eye(4), "MR")
        dataset.add(image, image.with_array(np.full((4, 30, 30), value, np.uint8)), patient=f"P {value}")
    told: list[Any] = []
    for name in ("case-0001", "case-0002"):
        a_workflow.collecting.open_aside(name, lambda *what: told.append(what))
    a_worker.deliver(lambda: len(told) == 2)
    assert sorted(nodes is None for nodes, _ in told) == [False, True] and [error for _, error in told] == [None] * 2
    assert a_workflow.state.volume.GetName() == "case-0002"
    assert a_workflow.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1
    with pytest.raises(ConfigError):
        a_workflow.collecting.open_aside("case-0003", lambda *what: told.append(what))
    dataset.case("case-0001").image_path.write_bytes(b"damaged")
    a_workflow.collecting.open_aside("case-0001", lambda *what: told.append(what))
    a_worker.deliver(lambda: len(told) == 3)
    assert isinstance(told[-1][1], InputError)


def test_a_data_set_is_made_and_changed_without_a_flush_on_the_main_thread(
    a_workflow: Workflow, a_worker: Threaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush takes seconds on a network drive; so may the turn of another program that writes."""
    flushed: list[bool] = []
    real = os.fsync

    def fsync(file: Any) -> None:
        flushed.append(threading.current_thread() is threading.main_thread())
        real(file)

    image = Volume(np.random.default_rng(1).integers(0, 900, (4, 30, 30)).astype(np.int16), np.eye(4), "MR")
    collecting, told = a_workflow.collecting, []
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        collecting.create_aside(tmp_path / "site", a_workflow.models.find("slices"), told.append)
        a_worker.deliver(lambda: len(told) == 1)
        SiteDataset.open(tmp_path / "site").add(image, image.with_array(np.ones((4, 30, 30), np.uint8)), patient="P")
        flushed.clear()
        collecting.set_status_aside("case-0001", "completed", told.append, comment="looked at")
        collecting.change_aside(lambda dataset: dataset.add_label("Cyst"), told.append)
        a_worker.deliver(lambda: len(told) == 3)
    assert told == [None] * 3 and flushed and not any(flushed)
    assert [(row.status, row.comment) for row in collecting.rows()] == [("completed", "looked at")]
    assert [label.name for label in collecting.dataset.labels] == ["anterior", "posterior", "Cyst"]
    collecting.set_status_aside("case-0002", "completed", told.append)
    a_worker.deliver(lambda: len(told) == 4)
    assert isinstance(told[-1], ConfigError)


@contextmanager
def reading(passes: Passes) -> Iterator[None]:
    """Files that the engine reads are noted."""
    real = files.read_volume

    def read(path: Any, *args: Any, **settings: Any) -> Any:
        volume = real(path, *args, **settings)
        passes.note("read as a file", volume.array.size)
        return volume

    with mock.patch.object(files, "read_volume", read):
        yield


def test_outlines_are_looked_at_handed_over_and_undone_aside(
    a_workflow: Workflow, a_worker: Threaded, a_ct: Any, passes: Passes
) -> None:
    from APFormerSlicerLib.scene.difference import difference_of
    from headless import draw, matrix_of

    node, mask = new_segmentation(a_ct), np.zeros(SHAPE, np.uint8)
    mask[[20, 60], 50:120, 60:130] = 1
    draw(node, "Tumour", mask, matrix_of(a_ct))
    passes.least = 40 * 70 * 70 // 2  # less than the box of the proposal
    passes.seen.clear()
    following, told = a_workflow.following, []
    following.changed.connect(told.append)
    assert following.corrected(node) is None
    a_worker.deliver(lambda: bool(told))
    run = following.start(node)
    a_worker.deliver(lambda: bool(a_worker.asked))
    assert passes.on_main == [] and passes.aside
    fields, result = a_worker.last.fields, np.zeros(SHAPE, np.uint8)
    result[20:61, 50:120, 60:130] = 1
    part = Part.of(result)
    np.save(fields["outputs"]["outlined"], part.array)
    passes.seen.clear()
    outlined = {"gained": True, "part": part.place(), "followed": "2 outlined slices of Tumour"}
    a_worker.last.tell("result", paths=fields["outputs"], outlined=outlined)
    assert run.status == "done", run.error
    assert passes.on_main == [f"copied into a node of {part.array.size}"]
    a_worker.deliver(lambda: difference_of(node) is not None)
    passes.seen.clear()
    following.undo(node)
    a_worker.deliver(lambda: following.pending(node) is None)
    assert passes.on_main == [f"copied into a node of {part.array.size}"]  # the box of both outlines

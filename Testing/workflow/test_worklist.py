"""An annotator's day: images are segmented ahead, reviewed one after the other, stored, and leave the scene again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.case_doubt import case_doubt
from apformer.datasets import COMPLETED, SiteDataset, identity
from apformer.errors import APFormerError, BundleError, ConfigError, InputError
from apformer.files import read_volume, write_scalar
from apformer.inference import Segmenter
from apformer.jobs import JobError
from apformer.volume import Volume
from APFormerSlicerLib.scene import Status, segment_ids, set_status, to_label_map, to_volume
from APFormerSlicerLib.workflow import Choice, Run, Workflow, WorkItem, WorkList, collect_volumes
from bundle_samples import LABELS
from headless import draw, matrix_of
from PIL import Image
from workflow_samples import PlayedWorker, a_block

SHAPE = (5, 6, 7)
DIED = JobError("The program that does the work was ended by SIGKILL.", "Memory ran out.", "Close others.", "/log")
identity._SCRYPT["n"] = 2  # slow by design, and needless for made-up patients


@pytest.fixture
def a_list(a_workflow: Workflow) -> WorkList:
    a_workflow.state.model = "slices"
    return a_workflow.worklist


@pytest.fixture
def a_site(a_workflow: Workflow, tmp_path: Path) -> SiteDataset:
    return a_workflow.collecting.create(tmp_path / "site", a_workflow.models.find("slices"))


@pytest.fixture
def three_nodes(make_volume_node: Callable[..., Any]) -> list[Any]:
    return [make_volume_node(an_array(seed), name) for seed, name in enumerate(("one", "two", "three"))]


@pytest.fixture
def a_folder(tmp_path: Path) -> Path:
    """Three MR images of three patients."""
    folder = tmp_path / "Bilder 脳"
    folder.mkdir()
    for seed, name in enumerate(("Anna", "Bert", "Carl")):
        write_scalar(folder / f"{name}.nii.gz", Volume(an_array(seed), np.diag([-1.0, -1.0, 2.0, 1.0])))
    return folder


def an_array(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, SHAPE).astype(np.int16)


def add_folder(worklist: WorkList, folder: Path) -> str:
    """The note; raises why it could not be read."""
    told: list[Any] = []
    worklist.add_folder(folder, lambda *what: told.append(what))
    ((note, error),) = told
    if error is not None:
        raise error
    return note


def segmented(worklist: WorkList, worker: PlayedWorker, *doubts: float) -> None:
    """The worker segments as many items as there are doubts, one after the other."""
    worklist.segment_all()
    for doubt in doubts:
        worker.last.progress(0.5)
        worker.last.finish(a_block(SHAPE), {"uncertainty": np.full(SHAPE, 0.3)}, doubt=doubt)


def statuses(worklist: WorkList) -> dict[str, str]:
    return {item.title: item.status for item in worklist.items}


def store(worklist: WorkList, worker: PlayedWorker, **settings: Any) -> Run:
    """Accept, store and next, with the worker's own code."""
    run = worklist.accept_store_next(**settings)
    worker.answer()
    return run


def volumes_on(scene: Any) -> list[str]:
    count = scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    return [scene.GetNthNodeByClass(number, "vtkMRMLScalarVolumeNode").GetName() for number in range(count)]


# ------------------------------------------------------------------ segmenting in the background


def test_volumes_are_segmented_one_at_a_time_and_a_failure_stops_no_other(
    a_list: WorkList, a_worker: PlayedWorker, three_nodes: list[Any]
) -> None:
    a_list.add(three_nodes)
    a_list.segment_all()
    assert statuses(a_list) == {"one": "waiting", "two": "waiting", "three": "waiting"} and len(a_worker.asked) == 1
    a_worker.last.progress(0.2)
    assert statuses(a_list)["one"] == "segmenting"
    a_worker.last.finish(a_block(SHAPE), doubt=0.2)
    a_worker.last.fail(DIED)
    a_worker.last.finish(a_block(SHAPE), doubt=0.7)
    assert statuses(a_list) == {"one": "to review", "two": "failed", "three": "to review"} and not a_list.busy
    assert "SIGKILL" in a_list.items[1].reason
    assert [item.doubt for item in a_list.items] == [0.2, None, 0.7]
    assert a_list.summary == "0 of 3 stored, 2 to review, 1 failed"
    segmented(a_list, a_worker, 0.4)  # what failed is tried once more
    assert statuses(a_list)["two"] == "to review" and a_list.items[1].doubt == 0.4


def test_what_a_user_asks_for_meanwhile_comes_before_the_rest_of_the_list(
    a_workflow: Workflow, a_list: WorkList, a_worker: PlayedWorker, three_nodes: list[Any], a_volume_node: Any
) -> None:
    a_list.add(three_nodes)
    a_list.segment_all()
    a_workflow.segmenting.start(Choice(a_volume_node, "slices"))
    a_worker.last.finish(a_block(SHAPE))
    assert a_worker.last.fields["array"]["name"] == "MR"


def test_a_cancelled_list_begins_no_other_and_keeps_what_is_there(
    a_list: WorkList, a_worker: PlayedWorker, three_nodes: list[Any]
) -> None:
    a_list.add(three_nodes)
    segmented(a_list, a_worker, 0.5)
    a_list.cancel()
    a_worker.last.tell("cancelled")
    assert len(a_worker.asked) == 2 and not a_list.busy
    assert statuses(a_list) == {"one": "to review", "two": "waiting", "three": "waiting"}


def test_without_a_model_or_anything_that_waits_nothing_is_begun(a_workflow: Workflow, a_list: WorkList) -> None:
    with pytest.raises(InputError, match="No image of the work list waits"):
        a_list.segment_all()
    a_workflow.state.model = ""
    with pytest.raises(BundleError, match="No model"):
        a_list.segment_all()


def test_the_most_unsure_come_first_and_those_not_segmented_last(
    a_workflow: Workflow, a_list: WorkList, a_worker: PlayedWorker, three_nodes: list[Any]
) -> None:
    a_list.add(three_nodes)
    segmented(a_list, a_worker, 0.2, 0.8)
    a_workflow.state.order = "unsure"
    assert [item.title for item in a_list.items] == ["two", "one", "three"]
    a_workflow.state.order = "given"
    assert [item.title for item in a_list.items] == ["one", "two", "three"]


def test_a_status_follows_what_is_done_with_the_segments_elsewhere(
    a_workflow: Workflow, a_list: WorkList, a_worker: PlayedWorker, three_nodes: list[Any]
) -> None:
    a_list.add(three_nodes)
    segmented(a_list, a_worker, 0.1, 0.1, 0.1)
    first, second, _ = a_list.items
    heard: list[str] = []
    a_list.changed.connect(lambda: heard.append(first.status))
    a_workflow.reviewing.accept(first.segmentation_node)
    a_workflow.reviewing.flag(second.segmentation_node, "motion")
    assert statuses(a_list) == {"one": "accepted", "two": "flagged", "three": "to review"} and "accepted" in heard


# ------------------------------------------------------------------ files of a folder


def test_the_images_of_a_folder_are_segmented_before_they_are_loaded(
    a_workflow: Workflow, a_list: WorkList, a_worker: PlayedWorker, a_folder: Path
) -> None:
    add_folder(a_list, a_folder)
    segmented(a_list, a_worker, 0.3, 0.6, 0.1)
    assert a_worker.asked[0].fields["image"] == str(a_folder / "Anna.nii.gz") and a_worker.asked[0].fields["doubt"]
    assert volumes_on(a_workflow.scene) == [] and [item.doubt for item in a_list.items] == [0.3, 0.6, 0.1]
    opened: list[WorkItem] = []
    a_list.opened.connect(opened.append)
    item = a_list.next()
    assert item is not None and item.title == "Anna" and opened == [item] and a_list.current is item
    node = a_workflow.state.volume
    assert np.array_equal(to_volume(node).array, an_array(0)) and node.GetName() == "Anna"
    assert np.array_equal(to_label_map(a_workflow.state.segmentation, node, LABELS).array, a_block(SHAPE))
    assert item.doubt == 0.3 and a_workflow.reviewing.maps(a_workflow.state.segmentation) == ["uncertainty"]


def test_a_result_of_the_worker_lies_on_the_image_that_is_loaded_later(
    a_workflow: Workflow, a_list: WorkList, a_worker: PlayedWorker, tmp_path: Path, an_image: Volume
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    write_scalar(folder / "oblique.nrrd", an_image)
    Image.fromarray(an_array(0)[0].astype(np.uint8)).save(folder / "slice.png")
    add_folder(a_list, folder)
    a_list.segment_all()
    for _ in range(2):
        a_worker.answer()  # the worker's own code
    for item in a_list.items:
        a_list.open(item)
        assert item.status == "to review", item.reason
        labels = to_label_map(a_workflow.state.segmentation, item.volume_node, LABELS)
        read = read_volume(item.image.path)
        direct = Segmenter(a_workflow.library.find("slices"), "cpu").segment(read, uncertainty=True)
        assert np.array_equal(labels.array, direct.labels.array) and labels.array.any()
        assert np.allclose(labels.ijk_to_ras, read.ijk_to_ras)
        assert item.doubt == pytest.approx(case_doubt(direct.labels.array, direct.uncertainty.array), abs=1e-4)


def test_accept_store_and_next_is_one_call_and_the_image_leaves_the_scene(
    a_workflow: Workflow, a_list: WorkList, a_worker: PlayedWorker, a_site: SiteDataset, a_folder: Path
) -> None:
    add_folder(a_list, a_folder)
    segmented(a_list, a_worker, 0.3, 0.6, 0.1)
    before = a_workflow.scene.GetNumberOfNodes()
    a_list.next()
    a_workflow.reviewing.show_map(a_workflow.state.segmentation, "uncertainty")
    assert store(a_list, a_worker).status == "done"
    assert volumes_on(a_workflow.scene) == ["Bert"] and a_workflow.state.volume.GetName() == "Bert"
    assert statuses(a_list) == {"Anna": "stored", "Bert": "to review", "Carl": "to review"}
    store(a_list, a_worker)
    store(a_list, a_worker)
    assert a_list.summary == "3 of 3 stored" and a_list.current is None
    cases = a_workflow.collecting.dataset.cases()
    assert [case.status for case in cases] == [COMPLETED] * 3 and len({case.patient for case in cases}) == 3
    assert np.array_equal(read_volume(cases[1].labels_path).array, a_block(SHAPE))
    assert np.array_equal(read_volume(cases[1].image_path).array, an_array(1))
    assert a_workflow.scene.GetNumberOfNodes() == before and a_worker.folders == []
    assert [item.doubt for item in a_list.items] == [0.3, 0.6, 0.1]


def test_the_next_one_opens_as_soon_as_it_is_segmented(
    a_workflow: Workflow, a_list: WorkList, a_worker: PlayedWorker, a_site: SiteDataset, a_folder: Path
) -> None:
    add_folder(a_list, a_folder)
    segmented(a_list, a_worker, 0.3)
    ahead = a_worker.last
    a_list.next()
    store(a_list, a_worker)
    assert a_list.current is None and statuses(a_list)["Bert"] == "waiting"
    ahead.finish(a_block(SHAPE), doubt=0.5)
    assert a_list.current is not None and a_list.current.title == "Bert"


def test_files_of_one_patient_are_one_pseudonym_and_a_dicom_id_counts_more_than_a_name(
    a_workflow: Workflow,
    a_list: WorkList,
    a_worker: PlayedWorker,
    a_site: SiteDataset,
    tmp_path: Path,
    write_dicom: Callable[..., list[Path]],
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for seed, name in enumerate(("p1_ed", "p1_es", "p2_ed", "p2_es", "p3_ed", "p3_es")):
        write_scalar(folder / f"{name}.nii.gz", Volume(an_array(seed), np.diag([-1.0, -1.0, 2.0, 1.0])))
    assert "3 patients" in add_folder(a_list, folder)
    assert [item.patient for item in a_list.items] == ["p1", "p1", "p2", "p2", "p3", "p3"]
    a_list.clear()
    (tmp_path / "scans").mkdir()
    write_dicom("scans/series", positions=[(0.0, 0.0, float(z)) for z in range(4)])
    add_folder(a_list, tmp_path / "scans")
    (item,) = a_list.items
    a_list.open(item)
    assert item.patient == "1" and item.volume_node is not None


def test_an_image_that_cannot_be_read_fails_with_its_reason_and_the_others_go_on(
    a_workflow: Workflow, a_list: WorkList, a_worker: PlayedWorker, a_folder: Path
) -> None:
    add_folder(a_list, a_folder)
    segmented(a_list, a_worker, 0.3, 0.6, 0.1)
    first = a_list.items[0]
    assert first.ahead is not None
    kept = first.ahead.folder
    (a_folder / "Anna.nii.gz").unlink()
    a_list.next()
    assert first.status == "failed" and "Anna.nii.gz" in first.reason and not kept.exists()
    assert volumes_on(a_workflow.scene) == [] and a_workflow.state.volume is None
    assert a_list.next() is a_list.items[1] and volumes_on(a_workflow.scene) == ["Bert"]


@pytest.mark.parametrize("shape", [SHAPE, (4, 6, 7)])
def test_a_file_that_was_changed_after_it_was_segmented_gets_no_old_result(
    a_workflow: Workflow, a_list: WorkList, a_worker: PlayedWorker, a_folder: Path, shape: tuple[int, int, int]
) -> None:
    add_folder(a_list, a_folder)
    segmented(a_list, a_worker, 0.3, 0.6, 0.1)
    write_scalar(a_folder / "Anna.nii.gz", Volume(np.zeros(shape, np.float32), np.diag([-1.0, -1.0, 2.0, 1.0])))
    a_list.next()
    first = a_list.items[0]
    assert first.status == "failed" and "was changed after it was segmented" in first.reason
    assert volumes_on(a_workflow.scene) == []
    segmented(a_list, a_worker, 0.2)
    assert first.status == "to review"


def test_a_folder_without_images_is_told_and_adds_nothing(a_list: WorkList, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(APFormerError, match="holds no image"):
        add_folder(a_list, tmp_path / "empty")
    assert a_list.items == []


def test_a_folder_that_is_added_again_brings_only_what_is_new(a_list: WorkList, a_folder: Path) -> None:
    add_folder(a_list, a_folder)
    shutil.copy(a_folder / "Anna.nii.gz", a_folder / "Dora.nii.gz")
    add_folder(a_list, a_folder)
    assert [item.title for item in a_list.items] == ["Anna", "Bert", "Carl", "Dora"]


# ------------------------------------------------------------------ accept, store, next: what goes wrong


def test_what_was_left_undecided_comes_again_at_the_end(
    a_list: WorkList, a_worker: PlayedWorker, three_nodes: list[Any]
) -> None:
    a_list.add(three_nodes)
    segmented(a_list, a_worker, 0.1, 0.2, 0.3)
    assert [item.title for _ in range(4) if (item := a_list.next()) is not None] == ["one", "two", "three", "one"]


def test_without_a_data_set_nothing_is_accepted(a_list: WorkList, a_worker: PlayedWorker, a_folder: Path) -> None:
    add_folder(a_list, a_folder)
    segmented(a_list, a_worker, 0.3, 0.6, 0.1)
    with pytest.raises(InputError, match="not a segmented one of the work list"):
        a_list.accept_store_next()
    a_list.next()
    with pytest.raises(ConfigError, match="No folder for the site's cases"):
        a_list.accept_store_next()
    assert statuses(a_list)["Anna"] == "to review"


def test_a_loaded_volume_needs_a_patient(
    a_list: WorkList, a_worker: PlayedWorker, a_site: SiteDataset, three_nodes: list[Any]
) -> None:
    a_list.add(three_nodes)
    segmented(a_list, a_worker, 0.1, 0.2, 0.3)
    a_list.next()
    with pytest.raises(InputError, match="not known of which patient"):
        a_list.accept_store_next()
    assert statuses(a_list)["one"] == "to review"
    store(a_list, a_worker, patient="0815")
    assert statuses(a_list)["one"] == "stored" and three_nodes[0].GetScene() is not None  # a user loaded it
    assert a_list.current is not None and a_list.current.title == "two"


def test_a_case_that_could_not_be_stored_stays_open_and_accepted(
    a_workflow: Workflow, a_list: WorkList, a_worker: PlayedWorker, a_site: SiteDataset, a_folder: Path
) -> None:
    add_folder(a_list, a_folder)
    segmented(a_list, a_worker, 0.3, 0.6, 0.1)
    a_list.next()
    run = a_list.accept_store_next()
    with pytest.raises(InputError, match="Another case is being stored"):
        a_list.accept_store_next()
    a_worker.last.fail(DIED)
    assert run.error is not None and a_list.current is a_list.items[0]
    assert statuses(a_list)["Anna"] == "accepted" and volumes_on(a_workflow.scene) == ["Anna"]
    store(a_list, a_worker)
    assert statuses(a_list)["Anna"] == "stored"


@pytest.mark.parametrize("gone", ["volume", "segmentation", "scene"])
def test_what_is_removed_while_it_is_stored_is_stored_all_the_same(
    a_workflow: Workflow, a_list: WorkList, a_worker: PlayedWorker, a_site: SiteDataset, a_folder: Path, gone: str
) -> None:
    add_folder(a_list, a_folder)
    segmented(a_list, a_worker, 0.3, 0.6, 0.1)
    a_list.next()
    a_list.accept_store_next()
    if gone == "scene":
        a_workflow.scene.Clear(False)
    else:
        a_workflow.scene.RemoveNode(getattr(a_workflow.state, gone))
    a_worker.answer()
    assert statuses(a_list)["Anna"] == "stored" and len(a_workflow.collecting.dataset.cases()) == 1


def test_a_known_image_is_asked_about_and_stored_when_that_is_agreed_to(
    a_workflow: Workflow, a_list: WorkList, a_worker: PlayedWorker, a_site: SiteDataset, a_folder: Path
) -> None:
    shutil.copy(a_folder / "Anna.nii.gz", a_folder / "Bert.nii.gz")
    add_folder(a_list, a_folder)
    segmented(a_list, a_worker, 0.3, 0.6, 0.1)
    a_list.next()
    store(a_list, a_worker)
    run = store(a_list, a_worker, patient="Anna")
    assert run.outcome.known and a_list.current is not None and a_list.current.status == "accepted"
    assert not store(a_list, a_worker, patient="Anna", correct=True).outcome.known
    assert statuses(a_list)["Bert"] == "stored" and len(a_workflow.collecting.dataset.cases()) == 1


def test_an_image_stays_loaded_where_something_drawn_on_it_is_not_in_the_data_set(
    a_workflow: Workflow, a_list: WorkList, a_worker: PlayedWorker, a_site: SiteDataset, a_folder: Path
) -> None:
    add_folder(a_list, a_folder)
    segmented(a_list, a_worker, 0.3, 0.6, 0.1)
    a_list.next()
    draw(a_workflow.state.segmentation, "Cyst", a_block(SHAPE), matrix_of(a_workflow.state.volume))
    store(a_list, a_worker)
    assert statuses(a_list)["Anna"] == "stored" and volumes_on(a_workflow.scene) == ["Anna", "Bert"]


# ------------------------------------------------------------------ the scene


def save_and_load(scene: Any, folder: Path) -> None:
    """The scene and the files of its volumes and segmentations."""
    for kind, ending in (("vtkMRMLScalarVolumeNode", ".nrrd"), ("vtkMRMLSegmentationNode", ".seg.nrrd")):
        for number in range(scene.GetNumberOfNodesByClass(kind)):
            node = scene.GetNthNodeByClass(number, kind)
            node.AddDefaultStorageNode(str(folder / f"{node.GetID()}{ending}"))
            assert node.GetStorageNode().WriteData(node)
    scene.SetURL(str(folder / "scene.mrml"))
    assert scene.Commit()
    scene.Clear(False)
    scene.SetURL(str(folder / "scene.mrml"))
    assert scene.Connect()


def test_items_come_back_with_a_scene_that_was_saved(
    a_workflow: Workflow,
    a_list: WorkList,
    a_worker: PlayedWorker,
    a_site: SiteDataset,
    three_nodes: list[Any],
    tmp_path: Path,
) -> None:
    a_list.add(reversed(three_nodes))
    segmented(a_list, a_worker, 0.1, 0.2)
    a_list.next()
    store(a_list, a_worker, patient="0815")
    a_list.cancel()
    a_worker.asked[-2].tell("cancelled")
    a_workflow.state.order = "unsure"
    told = [("two", "to review", 0.2), ("three", "stored", 0.1), ("one", "waiting", None)]
    assert [(item.title, item.status, item.doubt) for item in a_list.items] == told
    save_and_load(a_workflow.scene, tmp_path)
    assert [(item.title, item.status, item.doubt) for item in a_list.items] == told
    assert a_list.current is a_list.items[0] and a_workflow.state.segmentation is not None


def test_a_closed_scene_takes_volumes_off_the_list_and_leaves_files(
    a_workflow: Workflow, a_list: WorkList, a_worker: PlayedWorker, three_nodes: list[Any], a_folder: Path
) -> None:
    a_list.add(three_nodes)
    add_folder(a_list, a_folder)
    a_list.open(a_list.items[3])
    a_workflow.scene.Clear(False)
    assert statuses(a_list) == {"Anna": "waiting", "Bert": "waiting", "Carl": "waiting"} and a_list.current is None
    a_workflow.state.model = "slices"
    segmented(a_list, a_worker, 0.1, 0.2, 0.3)
    assert a_list.next() is a_list.items[0]


def test_a_removed_volume_leaves_the_list_and_its_job_makes_room(
    a_workflow: Workflow, a_list: WorkList, a_worker: PlayedWorker, three_nodes: list[Any]
) -> None:
    a_list.add(three_nodes)
    a_list.segment_all()
    a_workflow.scene.RemoveNode(three_nodes[0])
    assert [item.title for item in a_list.items] == ["two", "three"] and len(a_worker.asked) == 2


def test_what_is_taken_off_the_list_leaves_no_files(a_list: WorkList, a_worker: PlayedWorker, a_folder: Path) -> None:
    add_folder(a_list, a_folder)
    segmented(a_list, a_worker, 0.3)
    assert len(a_worker.folders) == 2  # a result, and the next one's
    a_list.clear()
    a_worker.last.tell("cancelled")
    assert a_worker.folders == [] and a_list.items == []


def test_the_program_leaves_no_results_behind(a_workflow: Workflow, a_worker: PlayedWorker, a_folder: Path) -> None:
    a_workflow.state.model = "slices"
    add_folder(a_workflow.worklist, a_folder)
    segmented(a_workflow.worklist, a_worker, 0.3, 0.6, 0.1)
    assert len(a_worker.folders) == 3
    a_workflow.worklist.stop()
    assert a_worker.folders == []


# ------------------------------------------------------------------ volumes of the list


def test_volumes_are_told_of_what_is_stored_loaded_and_only_segmented(
    a_workflow: Workflow, a_list: WorkList, a_worker: PlayedWorker, a_site: SiteDataset, a_folder: Path
) -> None:
    add_folder(a_list, a_folder)
    segmented(a_list, a_worker, 0.3, 0.6)
    a_list.cancel()
    a_worker.last.tell("cancelled")
    a_list.next()
    store(a_list, a_worker)
    node = a_workflow.state.segmentation
    set_status(node.GetSegmentation().GetSegment(segment_ids(node, LABELS)["posterior"]), Status.COMPLETED)
    found: list[Any] = []
    collect_volumes(a_list, a_workflow.reviewing, a_workflow.collecting, found.extend)
    rows = [(row.case, row.structure, row.volume_ml, row.status, row.model) for row in found]
    assert rows == [
        ("Anna", "anterior", pytest.approx(8 * 2 / 1000), "stored", "slices"),
        ("Bert", "anterior", pytest.approx(8 * 2 / 1000), "to review", "slices"),
        ("Bert", "posterior", 0.0, "accepted", "slices"),
    ]

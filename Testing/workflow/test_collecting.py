"""The site's data set: cases go in with what the model proposed, come back to be edited, and name nobody."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from apformer.datasets import COMPLETED, FLAGGED, IN_PROGRESS, SiteDataset, identity
from apformer.errors import ConfigError, InputError, OutputError
from apformer.files import read_volume, write_scalar
from apformer.volume import Volume
from APFormerSlicerLib.scene import new_segmentation, to_label_map, to_volume
from APFormerSlicerLib.workflow import NOT_OUTLINED, NOT_THERE, Added, Choice, Workflow
from bundle_samples import LABELS
from headless import draw, matrix_of, redraw
from workflow_samples import PlayedWorker, a_block

SHAPE = (5, 6, 7)
PATIENT = 'Müller, "Jo" 0815'
identity._SCRYPT["n"] = 2  # slow by design, and needless for made-up patients


@pytest.fixture
def a_site(a_workflow: Workflow, tmp_path: Path) -> SiteDataset:
    """An empty data set with the labels of `slices`, in a folder with a difficult name."""
    return a_workflow.collecting.create(tmp_path / "Fälle für 脳", a_workflow.models.find("slices"))


@pytest.fixture
def a_proposal(a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice) -> Any:
    """The segmentation that the model proposed: one block of the first label."""
    run = a_workflow.segmenting.start(a_choice)
    a_worker.last.finish(a_block(SHAPE))
    return run.outcome.written.segmentation_node


def add(workflow: Workflow, *nodes: Any, **more: Any) -> Added:
    """Store a case, with the worker's own code; what became of it. Raises why it failed."""
    run = workflow.collecting.add(*nodes, **more)
    if not run.over:
        run._worker.answer()
    if run.error is not None:
        raise run.error
    return run.outcome


def corrected(node: Any, volume_node: Any) -> np.ndarray:
    """The user adds a voxel to the first label."""
    mask = a_block(SHAPE)
    mask[4, 5, 6] = 1
    redraw(node, node.GetSegmentation().GetSegmentIdBySegmentName("anterior"), mask, matrix_of(volume_node))
    return mask


def test_a_corrected_case_keeps_what_the_model_proposed(
    a_workflow: Workflow, a_site: SiteDataset, a_choice: Choice, a_proposal: Any
) -> None:
    a_workflow.state.who = "Dr. Ö"
    mask = corrected(a_proposal, a_choice.volume_node)
    a_workflow.reviewing.accept(a_proposal)
    added = add(a_workflow, a_choice.volume_node, a_proposal, patient=PATIENT)
    case = added.case
    assert (case.status, case.current, added.notes) == (COMPLETED, 2, ())
    assert case.proposal.proposed_by == "slices 1.0.0" and case.revision.who == "Dr. Ö"
    assert np.array_equal(read_volume(case.revision_path(case.proposal)).array, a_block(SHAPE))
    assert np.array_equal(read_volume(case.labels_path).array, mask)
    assert np.array_equal(read_volume(case.image_path).array, to_volume(a_choice.volume_node).array)


def test_segments_are_found_by_name_whatever_its_case_blanks_and_composition(
    a_workflow: Workflow, a_site: SiteDataset, a_choice: Choice, a_proposal: Any
) -> None:
    a_workflow.collecting.add_label("Gefäß")
    segmentation = a_proposal.GetSegmentation()
    segmentation.GetNthSegment(0).SetName("  ANTERIOR ")
    extra = draw(a_proposal, "Gefa\u0308ss", np.roll(a_block(SHAPE), 2, 2), matrix_of(a_choice.volume_node))
    assert extra
    added = add(a_workflow, a_choice.volume_node, a_proposal, patient=PATIENT)
    assert set(added.case.revision.counts) == {1, 3} and added.notes == ()


def test_two_segments_of_one_name_are_refused_in_words(
    a_workflow: Workflow, a_site: SiteDataset, a_choice: Choice, a_proposal: Any
) -> None:
    draw(a_proposal, "Anterior", np.roll(a_block(SHAPE), 2, 2), matrix_of(a_choice.volume_node))
    with pytest.raises(InputError, match="'anterior' and 'Anterior'") as caught:
        a_workflow.collecting.add(a_choice.volume_node, a_proposal, patient=PATIENT)
    assert "Rename" in caught.value.remedy


def test_rows_say_what_a_table_shows_and_name_nobody(
    a_workflow: Workflow, a_site: SiteDataset, a_choice: Choice, a_proposal: Any
) -> None:
    a_workflow.reviewing.flag(a_proposal, "motion")
    add(a_workflow, a_choice.volume_node, a_proposal, patient=PATIENT)
    (row,) = a_workflow.collecting.rows()
    assert (row.name, row.status, row.comment) == ("case-0001", FLAGGED, "motion")
    assert row.proposed_by == "slices 1.0.0" and row.volumes_ml == {"anterior": pytest.approx(8 * 2 / 1000)}
    assert row.date.startswith("20")
    kept = b"".join(path.read_bytes() for path in a_site.root.rglob("*") if path.is_file())
    for secret in ("0815", "Müller"):
        assert secret.encode() not in kept and secret not in repr(row)


def test_after_the_scene_is_loaded_again_only_the_correction_is_kept(
    a_workflow: Workflow, a_site: SiteDataset, a_choice: Choice, a_proposal: Any, a_worker: PlayedWorker, a_library: Any
) -> None:
    later = Workflow(a_workflow.scene, a_worker, a_library)
    case = add(later, a_choice.volume_node, a_proposal, patient=PATIENT).case
    assert (case.status, len(case.revisions), case.revision.proposed_by) == (IN_PROGRESS, 1, "slices 1.0.0")
    later.close()


def test_the_same_image_again_is_asked_about_and_then_corrected(
    a_workflow: Workflow, a_site: SiteDataset, a_choice: Choice, a_proposal: Any
) -> None:
    nodes = a_choice.volume_node, a_proposal
    add(a_workflow, *nodes, patient=PATIENT)
    mask = corrected(a_proposal, a_choice.volume_node)
    again = add(a_workflow, *nodes, patient=PATIENT)
    assert again.known and again.case.name == "case-0001"
    assert np.array_equal(read_volume(again.case.labels_path).array, a_block(SHAPE))
    case = add(a_workflow, *nodes, patient=PATIENT, correct=True, status=COMPLETED).case
    assert case.name == "case-0001" and case.status == COMPLETED
    assert np.array_equal(read_volume(case.labels_path).array, mask)


def test_a_case_is_opened_corrected_and_stored_again(
    a_workflow: Workflow, a_site: SiteDataset, a_choice: Choice, a_proposal: Any
) -> None:
    add(a_workflow, a_choice.volume_node, a_proposal, patient=PATIENT)
    a_workflow.scene.Clear(False)
    volume_node, node = a_workflow.collecting.open("case-0001")
    assert a_workflow.state.volume is volume_node and a_workflow.state.segmentation is node
    assert np.array_equal(to_label_map(node, volume_node, LABELS).array, a_block(SHAPE))
    mask = corrected(node, volume_node)
    a_workflow.reviewing.accept(node)
    case = add(a_workflow, volume_node, node).case  # whose it is, is known
    assert (case.name, case.status) == ("case-0001", COMPLETED)
    assert np.array_equal(read_volume(case.labels_path).array, mask)
    assert len(a_workflow.collecting.rows()) == 1


def test_structures_without_a_segment_are_what_the_user_says_and_said_last(
    a_workflow: Workflow, a_site: SiteDataset, a_choice: Choice, a_proposal: Any
) -> None:
    nodes, collecting = (a_choice.volume_node, a_proposal), a_workflow.collecting
    assert collecting.lacking(*nodes) == [], "an empty segment says that there is nothing"
    posterior = a_proposal.GetSegmentation().GetSegmentIdBySegmentName("posterior")
    a_proposal.GetSegmentation().RemoveSegment(posterior)
    assert collecting.lacking(*nodes) == ["posterior"] and collecting.others(nodes[0]) == NOT_THERE
    assert add(a_workflow, *nodes, patient=PATIENT).case.revision.labelled is None
    case = add(a_workflow, *nodes, patient=PATIENT, correct=True, others=NOT_OUTLINED).case
    assert case.revision.labelled == (1,) and collecting.others(nodes[0]) == NOT_OUTLINED
    (row,) = collecting.rows()
    assert row.unknown == ("posterior",)
    with pytest.raises(InputError, match="does not say"):
        collecting.add(*nodes, patient=PATIENT, others="perhaps")
    assert collecting.lacking(nodes[0], None) == []


def test_a_case_that_leaves_structures_out_is_opened_and_stored_again_without_them(
    a_workflow: Workflow, a_site: SiteDataset, a_choice: Choice, a_proposal: Any
) -> None:
    a_proposal.GetSegmentation().RemoveSegment(a_proposal.GetSegmentation().GetSegmentIdBySegmentName("posterior"))
    add(a_workflow, a_choice.volume_node, a_proposal, patient=PATIENT, others=NOT_OUTLINED)
    a_workflow.state.others = NOT_THERE  # of the images that came after
    volume_node, node = a_workflow.collecting.open("case-0001")
    assert a_workflow.collecting.lacking(volume_node, node) == ["posterior"]
    corrected(node, volume_node)
    case = add(a_workflow, volume_node, node).case
    assert case.revision.labelled == (1,) and a_workflow.state.others == NOT_THERE
    draw(node, "posterior", np.roll(a_block(SHAPE), 2, 2), matrix_of(volume_node))
    assert add(a_workflow, volume_node, node).case.revision.labelled is None


def test_voxels_that_nobody_knows_are_a_segment_of_their_own(
    a_workflow: Workflow, a_site: SiteDataset, a_choice: Choice, a_proposal: Any
) -> None:
    doubtful = np.zeros(SHAPE, np.uint8)
    doubtful[0, 0, :2] = 1
    draw(a_proposal, "Ignore", doubtful, matrix_of(a_choice.volume_node))
    added = add(a_workflow, a_choice.volume_node, a_proposal, patient=PATIENT)
    assert added.notes == () and added.case.revision.counts == {1: 8, 255: 2}
    assert set(a_workflow.collecting.rows()[0].volumes_ml) == {"anterior", "unknown"}
    volume_node, node = a_workflow.collecting.open("case-0001")
    corrected(node, volume_node)
    assert add(a_workflow, volume_node, node).case.revision.counts == {1: 9, 255: 2}


def test_a_photograph_comes_back_in_colour(
    a_workflow: Workflow, a_site: SiteDataset, make_volume_node: Callable[..., Any]
) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (1, 6, 7, 3)).astype(np.uint8)
    photo = make_volume_node(colours, "photo", "vtkMRMLVectorVolumeNode")
    photo.SetVoxelVectorType(slicer.vtkMRMLVolumeNode.VoxelVectorTypeColorRGB)
    node = new_segmentation(photo)
    draw(node, "POSTERIOR", np.ones((1, 6, 7), np.uint8), matrix_of(photo))
    add(a_workflow, photo, node, patient=PATIENT)
    opened, labels = a_workflow.collecting.open("case-0001")
    assert np.array_equal(to_volume(opened).array, np.moveaxis(colours, -1, 0))
    assert (to_label_map(labels, opened, LABELS).array == 2).all()


def test_segments_that_the_table_lacks_are_told_and_can_become_labels(
    a_workflow: Workflow, a_site: SiteDataset, a_choice: Choice, a_proposal: Any
) -> None:
    lesion = np.zeros(SHAPE, np.uint8)
    lesion[0, 0, 0] = 1
    draw(a_proposal, "Läsion", lesion, matrix_of(a_choice.volume_node))
    added = add(a_workflow, a_choice.volume_node, a_proposal, patient=PATIENT)
    assert added.notes == ("Not in the label table, so not stored: Läsion.",)
    a_workflow.collecting.add_label("läsion")
    again = add(a_workflow, a_choice.volume_node, a_proposal, patient=PATIENT, correct=True)
    assert again.notes == () and again.case.revision.counts == {1: 8, 3: 1}


def test_what_the_file_of_an_image_leaves_open_is_told_before_and_with_a_result_and_of_a_case(
    a_workflow: Workflow, a_site: SiteDataset, a_worker: PlayedWorker, tmp_path: Path
) -> None:
    path = tmp_path / "head.nii"
    image = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
    write_scalar(path, Volume(image, np.diag([-1.0, -1.0, 2.0, 1.0])))
    content = bytearray(path.read_bytes())
    content[252:256] = struct.pack("<hh", 1, 2)  # a qform of the scanner, and a sform that lies elsewhere
    content[280 + 12 : 280 + 16] = struct.pack("<f", 26.0)
    path.write_bytes(content)
    storage = a_workflow.scene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
    storage.SetFileName(str(path))
    node = a_workflow.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Head")
    assert storage.ReadData(node)
    node.SetAndObserveStorageNodeID(storage.GetID())
    (note,) = read_volume(path).notes

    estimate = a_workflow.segmenting.estimate(Choice(node, "slices"))
    a_worker.last.tell("result", ok=False, reason={"what": "", "meaning": "", "remedy": ""})
    assert estimate.outcome.warnings == (note,)
    run = a_workflow.segmenting.start(Choice(node, "slices"))
    a_worker.last.finish(a_block(SHAPE))
    assert run.outcome.warnings == (note,)
    added = add(a_workflow, node, run.outcome.written.segmentation_node, patient=PATIENT)
    assert added.notes == (note,)


def test_the_dicom_patient_is_used_where_it_is_known(
    a_workflow: Workflow, a_site: SiteDataset, a_choice: Choice, a_proposal: Any
) -> None:
    scene, names = a_workflow.scene, slicer.vtkMRMLSubjectHierarchyConstants
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "anyone")
    hierarchy.SetItemUID(patient, names.GetDICOMUIDName(), "0815")
    study = hierarchy.CreateStudyItem(patient, "study")
    item = hierarchy.GetItemByDataNode(a_choice.volume_node) or hierarchy.CreateItem(study, a_choice.volume_node)
    hierarchy.SetItemParent(item, study)
    case = add(a_workflow, a_choice.volume_node, a_proposal).case
    assert case.patient == identity.patient_code("0815", a_workflow.collecting.dataset.index.salt)


# ------------------------------------------------------------------ what is refused


def test_without_patient_folder_or_labels_the_reason_says_what_to_do(
    a_workflow: Workflow, a_choice: Choice, a_proposal: Any, tmp_path: Path
) -> None:
    check = a_workflow.collecting.check
    assert "Choose the folder" in check(a_choice.volume_node, a_proposal, PATIENT)[1]
    a_workflow.collecting.create(tmp_path / "site", a_workflow.models.find("slices"))
    assert check(a_choice.volume_node, a_proposal, PATIENT) == (True, "")
    assert "Give the patient's ID" in check(a_choice.volume_node, a_proposal, "  ")[1]
    assert "No volume" in check(None, a_proposal, PATIENT)[1]
    assert "No segmentation" in check(a_choice.volume_node, None, PATIENT)[1]
    other = new_segmentation(a_choice.volume_node)
    draw(other, "Leber", a_block(SHAPE), matrix_of(a_choice.volume_node))
    assert "no segment named" in check(a_choice.volume_node, other, PATIENT)[1]
    a_workflow.scene.RemoveNode(a_proposal)
    assert "No segmentation" in check(a_choice.volume_node, a_proposal, PATIENT)[1]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions of POSIX, which root passes")
def test_a_folder_without_write_permission_is_told(
    a_workflow: Workflow, a_site: SiteDataset, a_choice: Choice, a_proposal: Any
) -> None:
    a_site.root.chmod(0o500)
    try:
        with pytest.raises(OutputError):
            add(a_workflow, a_choice.volume_node, a_proposal, patient=PATIENT)
    finally:
        a_site.root.chmod(0o700)
    assert a_workflow.collecting.rows() == []


def test_a_data_set_that_cannot_be_written_is_told(
    a_workflow: Workflow, a_site: SiteDataset, a_choice: Choice, a_proposal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr("os.mkdir", refuse)
    with pytest.raises(OutputError, match="Read-only"):
        add(a_workflow, a_choice.volume_node, a_proposal, patient=PATIENT)
    monkeypatch.undo()
    assert a_workflow.collecting.rows() == []


def test_a_folder_that_is_none_or_full_is_refused(a_workflow: Workflow, a_site: SiteDataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        a_workflow.collecting.choose(tmp_path)
    with pytest.raises(ConfigError, match="is a data set already"):
        a_workflow.collecting.create(a_site.root, a_site.labels)
    assert a_workflow.collecting.dataset.root == a_site.root
    a_site.root.rename(tmp_path / "moved away")
    with pytest.raises((ConfigError, InputError)):
        a_workflow.collecting.rows()


def test_problems_are_those_of_the_data_set(
    a_workflow: Workflow, a_site: SiteDataset, a_choice: Choice, a_proposal: Any
) -> None:
    add(a_workflow, a_choice.volume_node, a_proposal, patient=PATIENT)
    first = a_workflow.collecting.problems()[0]
    assert first.severity == "blocks training" and first.remedy
    a_workflow.collecting.set_status("case-0001", COMPLETED, "looked at again")
    assert a_workflow.collecting.rows()[0].status == COMPLETED

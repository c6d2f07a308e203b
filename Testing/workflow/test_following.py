"""Apply to the rest: a proposal is corrected on the scene, the worker's own code follows, and it can be undone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.bundles import ModelLibrary
from apformer.errors import InputError
from apformer.following import Plane
from apformer.jobs import JobError
from apformer.networks import registered
from APFormerSlicerLib.scene import Status, set_status, status_of, to_label_map
from APFormerSlicerLib.scene.difference import difference_of
from APFormerSlicerLib.scene.geometry import vtk_matrix
from APFormerSlicerLib.scene.provenance import of_node, of_segment
from APFormerSlicerLib.workflow import Followed, Run, Workflow
from APFormerSlicerLib.workflow.places import places_of
from bundle_samples import LABELS
from following_samples import GRID, Thresholds, a_patient, dice, save_thresholds, truth
from headless import add_volume, draw, matrix_of, redraw
from workflow_samples import AnEditor, PlayedWorker

PATIENT = a_patient()
RIGHT = truth(PATIENT)
MODEL = "hippocampus-test"
REST = [0, 1, 2, 4, 5, 6]
DIED = JobError("The program that does the work was ended by SIGKILL.", "Memory ran out.", "Close others.", "/log")


class Case:
    """A patient on the scene, segmented by a model that finds too little on every slice."""

    def __init__(self, workflow: Workflow, worker: PlayedWorker) -> None:
        self.workflow, self.worker = workflow, worker
        self.volume_node = add_volume(workflow.scene, PATIENT.array, "MR")
        self.volume_node.SetIJKToRASMatrix(vtk_matrix(GRID))
        workflow.state.volume, workflow.state.model = self.volume_node, MODEL
        self.segment()

    def segment(self) -> None:
        self.workflow.segment()
        self.worker.answer()
        self.node = self.workflow.state.segmentation

    @property
    def following(self) -> Any:
        return self.workflow.following

    @property
    def labels(self) -> np.ndarray:
        """What is on the scene: uint8 (k, j, i)."""
        return to_label_map(self.node, self.volume_node, LABELS[:1]).array

    def paint(self, labels: np.ndarray) -> None:
        """As a person does it with the brush."""
        segment_id = self.node.GetSegmentation().GetNthSegmentID(0)
        redraw(self.node, segment_id, labels, matrix_of(self.volume_node))

    def correct(self, *slices: int) -> np.ndarray:
        """Draw these slices as they really are, and mark them as right; the labels as they are then."""
        labels = self.labels.copy()
        labels[list(slices)] = RIGHT[list(slices)]
        self.paint(labels)
        for number in slices:
            self.following.mark(self.node, Plane(0, number), True)
        return labels

    def apply(self) -> Followed:
        run = self.ask()
        self.worker.answer()
        assert run.status == "done", run.error
        return run.outcome  # type: ignore[no-any-return]

    def ask(self) -> Run:
        """Apply, up to the request."""
        run: Run = self.following.start(self.node, "cpu")
        self.worker.last.fields["seconds"] = 600  # a slow machine takes as many steps as a fast one
        return run


@pytest.fixture
def a_case(a_workflow: Workflow, a_worker: PlayedWorker, a_library: ModelLibrary) -> Iterator[Case]:
    with registered("thresholds", Thresholds):
        save_thresholds(a_library.roots[1] / MODEL)
        yield Case(a_workflow, a_worker)


def reason(case: Case) -> str:
    ok, told = case.following.check(case.node)
    assert not ok
    with pytest.raises(InputError):
        case.following.start(case.node)
    return str(told)


# ------------------------------------------------------------------ what was corrected


def test_nothing_can_be_applied_before_something_was_corrected(a_case: Case) -> None:
    assert "Nothing was corrected since the proposal" in reason(a_case)
    seen = a_case.following.corrected(a_case.node)
    assert seen.text == "" and seen.drawn == seen.right == (set(), set(), set())
    assert seen.proposed[0] == set(range(7)) and seen.kind(Plane(0, 3)) == "proposed"


def test_strokes_and_marked_slices_are_told_apart_in_every_plane(a_case: Case) -> None:
    labels = a_case.labels.copy()
    labels[2, 4, 5:7] = 1
    a_case.paint(labels)
    seen = a_case.following.corrected(a_case.node)
    assert seen.drawn == ({2}, {4}, {5, 6}) and seen.text == "strokes on 1 slice" and not seen.reason
    a_case.following.mark(a_case.node, Plane(0, 5), True)
    a_case.following.mark(a_case.node, Plane(1, 16), True)
    seen = a_case.following.corrected(a_case.node)
    assert seen.right == ({5}, {16}, set()) and seen.text == "2 corrected slices and strokes on 1 slice"
    assert [seen.kind(Plane(0, number)) for number in (2, 5, 6)] == ["drawn", "right", "proposed"]
    a_case.following.mark(a_case.node, Plane(1, 16), False)
    assert a_case.following.corrected(a_case.node).text == "1 corrected slice and strokes on 1 slice"


def test_strokes_are_counted_along_the_plane_they_were_drawn_on(a_case: Case) -> None:
    labels = a_case.labels.copy()
    labels[1:6, 4:9, 16] = 1  # a sagittal slice
    a_case.paint(labels)
    seen = a_case.following.corrected(a_case.node)
    assert (seen.axis, seen.text) == (2, "strokes on 1 slice")
    a_case.ask()
    assert a_case.worker.last.fields["plane"] == "i"


def test_a_panel_is_told_when_something_was_marked(a_case: Case) -> None:
    told: list[Any] = []
    a_case.following.changed.connect(told.append)
    a_case.following.mark(a_case.node, Plane(0, 3), True)
    assert told == [a_case.node]
    with pytest.raises(InputError, match="no slice 8"):
        a_case.following.mark(a_case.node, Plane(0, 7), True)


def test_the_comparison_is_made_aside_and_told_of(a_case: Case) -> None:
    a_case.worker.held = []
    a_case.paint(np.where(np.arange(7)[:, None, None] == 3, RIGHT, a_case.labels))
    assert a_case.following.corrected(a_case.node) is None
    assert "Wait a moment" in a_case.following.check(a_case.node)[1]
    told: list[Any] = []
    a_case.following.changed.connect(told.append)
    a_case.worker.let_go()
    assert told == [a_case.node] and a_case.following.check(a_case.node) == (True, "")


# ------------------------------------------------------------------ applying


def test_one_corrected_slice_teaches_the_rest_and_stays_as_it_was_drawn(a_case: Case) -> None:
    before = a_case.correct(3)
    done = a_case.apply()
    after = a_case.labels
    assert np.array_equal(after[3], RIGHT[3])
    assert dice(after[REST], RIGHT[REST]) > dice(before[REST], RIGHT[REST]) + 0.05
    added = np.count_nonzero((after > 0) & (before == 0)) * 4.0 / 1000
    assert done.gained and done.text == "1 corrected slice"
    assert done.added_ml["anterior"] == pytest.approx(added)
    assert a_case.following.pending(a_case.node) is done
    assert of_node(a_case.node).parameters["followed"] == "1 corrected slice"


def test_a_followed_segment_is_told_as_semiautomatic_in_dicom(a_case: Case) -> None:
    from APFormerSlicerLib.scene.tags import tag

    a_case.correct(3)
    segment = a_case.node.GetSegmentation().GetNthSegment(0)
    assert tag(segment, "DICOM.SegmentAlgorithmType") == "AUTOMATIC"
    a_case.apply()
    assert tag(segment, "DICOM.SegmentAlgorithmType") == "SEMIAUTOMATIC"
    assert of_segment(segment).parameters["followed"] == "1 corrected slice"


def test_a_segment_of_the_users_own_is_not_touched(a_case: Case) -> None:
    mask = np.zeros(RIGHT.shape, np.uint8)
    mask[:, 14:18, 14:18] = 1
    own = draw(a_case.node, "stone", mask, matrix_of(a_case.volume_node))
    a_case.correct(3)
    a_case.apply()
    from headless import segment_mask

    assert np.array_equal(segment_mask(a_case.node, own, RIGHT.shape), mask)


def test_the_difference_is_green_where_added_and_gone_when_kept(a_case: Case) -> None:
    before = a_case.correct(3)
    a_case.apply()
    from APFormerSlicerLib.scene.difference import LABELS as DIFFERENCE

    node = difference_of(a_case.node)
    changed = to_label_map(node, a_case.volume_node, DIFFERENCE).array
    assert np.array_equal(changed == 1, (a_case.labels > 0) & (before == 0)) and (changed == 1).any()
    assert np.array_equal(changed == 2, (a_case.labels == 0) & (before > 0))
    assert node.GetHideFromEditors() and not node.GetSaveWithScene()
    a_case.following.keep(a_case.node)
    assert a_case.following.pending(a_case.node) is None and node.GetScene() is None


def test_the_next_place_to_check_goes_on_in_the_new_proposal(a_case: Case) -> None:
    a_case.workflow.reviewing.next_place(a_case.node)
    a_case.correct(3)
    a_case.apply()
    places = places_of(a_case.node)
    assert places and all(place.ijk[2] != 3 for place in places)
    assert a_case.workflow.reviewing.left(a_case.node) == len(places)
    shown = a_case.workflow.reviewing.map_node(a_case.node, "uncertainty")
    assert shown.GetImageData() is not None


def test_corrections_accumulate_over_several_applies(a_case: Case) -> None:
    first = a_case.correct(3)
    a_case.apply()
    stroke = a_case.labels.copy()
    stroke[5, 2, 2:6] = 1
    a_case.paint(stroke)
    seen = a_case.following.corrected(a_case.node)
    assert seen.right[0] == {3} and 5 in seen.drawn[0]
    run = a_case.ask()
    fields = a_case.worker.last.fields
    assert fields["right"]["k"] == [3] and "certain" in fields
    assert np.load(fields["proposal"]["file"]).sum() > np.count_nonzero(first)  # what is compared with is the first's
    a_case.worker.answer()
    assert run.status == "done"
    assert np.array_equal(a_case.labels[3], RIGHT[3]) and a_case.labels[5, 2, 2:6].all()


def test_a_marked_slice_is_not_drawn_on_every_slice_across_it(a_case: Case) -> None:
    a_case.correct(3)
    a_case.apply()
    seen = a_case.following.corrected(a_case.node)
    assert seen.drawn == (set(), set(), set())
    assert seen.proposed[2] == set(np.flatnonzero(a_case.labels.any(axis=(0, 1))).tolist())


def test_what_was_applied_is_not_applied_twice(a_case: Case) -> None:
    a_case.correct(3)
    a_case.apply()
    assert "All corrections were applied already" in reason(a_case)
    a_case.following.mark(a_case.node, Plane(0, 5), True)
    assert a_case.following.check(a_case.node) == (True, "")


def test_a_mark_that_is_taken_back_frees_its_slice(a_case: Case) -> None:
    a_case.correct(3)
    a_case.apply()
    a_case.following.mark(a_case.node, Plane(0, 3), False)
    seen = a_case.following.corrected(a_case.node)
    assert 3 not in seen.drawn[0] and "Nothing was corrected" in seen.reason


def test_where_nothing_is_gained_nothing_changes_and_it_is_told(a_case: Case) -> None:
    labels = a_case.labels.copy()
    labels[2], labels[4] = truth(PATIENT, (1.6,))[2], RIGHT[4]
    a_case.paint(labels)
    for number in (2, 4):
        a_case.following.mark(a_case.node, Plane(0, number), True)
    done = a_case.apply()
    assert not done.gained and "Nothing would be gained" in " ".join(done.warnings)
    assert np.array_equal(a_case.labels, labels) and a_case.following.pending(a_case.node) is None
    assert a_case.following.corrected(a_case.node).text == "2 corrected slices"


# ------------------------------------------------------------------ for the next patients


def test_what_was_learned_segments_the_next_patients_of_today_and_is_no_version(
    a_case: Case, a_library: ModelLibrary
) -> None:
    a_case.correct(3)
    proposed = dice(a_case.labels[REST], RIGHT[REST])
    a_case.apply()
    told: list[Any] = []
    a_case.following.learned.connect(told.append)
    a_case.following.keep(a_case.node, today=True)
    (card,) = told
    workflow = a_case.workflow
    assert card.title == f"{MODEL} 1.0.0+followed (for today)" and workflow.state.model == card.reference
    assert card.cases == 0 and card.mean_dice is None
    workflow.scene.RemoveNode(a_case.node)  # its files go, the model stays
    a_case.segment()
    assert of_node(a_case.node).model_version == "1.0.0+followed"
    assert dice(a_case.labels[REST], RIGHT[REST]) > proposed + 0.05
    models = workflow.models
    assert [entry.reference for entry in models.cards()].count(card.reference) == 1
    assert card.reference not in [entry.reference for entry in models.lasting()]  # a fine-tuning does not begin with it
    assert "1.0.0+followed" not in [entry.version for entry in models.versions(MODEL)]
    assert a_library.find(MODEL).version == "1.0.0"


def test_a_proposal_of_todays_model_can_be_corrected_and_followed_in_turn(a_case: Case) -> None:
    a_case.correct(3)
    a_case.apply()
    a_case.following.keep(a_case.node, today=True)
    a_case.workflow.scene.RemoveNode(a_case.node)
    a_case.segment()
    a_case.correct(3, 4)
    a_case.ask()
    assert Path(a_case.worker.last.fields["model"]).name == "model"


def test_todays_model_is_gone_in_the_next_program(a_case: Case, a_library: ModelLibrary) -> None:
    from apformer.errors import BundleError
    from APFormerSlicerLib.workflow.models import Models

    a_case.correct(3)
    a_case.apply()
    a_case.following.keep(a_case.node, today=True)
    with pytest.raises(BundleError, match="not installed any more"):
        Models(a_library).find(f"{MODEL}@today")


def test_a_model_that_cannot_be_copied_is_told_of_and_the_proposal_kept(
    a_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    a_case.correct(3)
    a_case.apply()
    after, told = a_case.labels, []
    monkeypatch.setattr(shutil, "copytree", full)
    a_case.following.keep(a_case.node, today=True, failed=told.append)
    assert "No space left on device" in told[0].what and a_case.workflow.state.model == MODEL
    assert np.array_equal(a_case.labels, after)


# ------------------------------------------------------------------ undo


def test_undo_brings_back_what_was_drawn_and_what_was_told_of_it(a_case: Case) -> None:
    a_case.workflow.reviewing.flag(a_case.node, "too small")
    before, told = a_case.correct(3), of_node(a_case.node)
    places = places_of(a_case.node)
    a_case.apply()
    a_case.following.undo(a_case.node)
    assert np.array_equal(a_case.labels, before)
    assert of_node(a_case.node) == told and places_of(a_case.node) == places
    assert status_of(a_case.node.GetSegmentation().GetNthSegment(0)) == Status.FLAGGED
    assert a_case.following.pending(a_case.node) is None and difference_of(a_case.node) is None
    assert a_case.following.corrected(a_case.node).text == "1 corrected slice"
    assert a_case.apply().gained  # and it can be had again


def test_undo_keeps_what_was_drawn_since(a_case: Case) -> None:
    before = a_case.correct(3)
    a_case.apply()
    labels = a_case.labels.copy()
    labels[6, 1, 1:4] = 1
    a_case.paint(labels)
    a_case.following.undo(a_case.node)
    assert a_case.labels[6, 1, 1:4].all()
    before[6, 1, 1:4] = 1
    assert np.array_equal(a_case.labels, before)


def test_the_segment_editors_undo_and_redo_change_the_proposal_that_corrections_are_compared_with(
    a_case: Case,
) -> None:
    editor = AnEditor(a_case.node)
    a_case.workflow.segmenting.editor = editor
    before, told = a_case.correct(3), of_node(a_case.node)
    done = a_case.apply()
    assert done.undoable and len(editor.states) == 1
    after, later = a_case.labels, of_node(a_case.node)
    editor.undo()
    assert np.array_equal(a_case.labels, before)
    assert a_case.following.pending(a_case.node) is None and of_node(a_case.node) == told
    assert a_case.following.corrected(a_case.node).text == "1 corrected slice"
    editor.undo()  # which is Redo
    assert np.array_equal(a_case.labels, after)
    a_case.following.corrected(a_case.node)
    assert of_node(a_case.node) == later


# ------------------------------------------------------------------ what goes wrong


def test_a_worker_that_is_killed_changes_nothing(a_case: Case) -> None:
    before = a_case.correct(3)
    run = a_case.ask()
    a_case.worker.last.fail(DIED)
    assert run.status == "failed" and run.error.what == DIED.what
    assert np.array_equal(a_case.labels, before)
    assert a_case.following.check(a_case.node) == (True, "") and a_case.apply().gained


def test_a_job_that_is_cancelled_changes_nothing(a_case: Case) -> None:
    before = a_case.correct(3)
    run = a_case.ask()
    folders = len(a_case.worker.folders)
    run.cancel()
    a_case.worker.last.tell("cancelled")
    assert run.status == "cancelled" and np.array_equal(a_case.labels, before)
    assert len(a_case.worker.folders) == folders - 1


def test_what_is_drawn_while_the_network_learns_stays_and_the_result_is_put_around_it(a_case: Case) -> None:
    before = a_case.correct(3)
    run = a_case.ask()
    drawn = a_case.labels.copy()
    drawn[4, 2, 2:6], drawn[5, 14:18, 14:18] = 1, 0
    a_case.paint(drawn)
    a_case.worker.answer()
    assert run.status == "done", run.error
    after, meanwhile = a_case.labels, drawn != before
    assert np.array_equal(after[meanwhile], drawn[meanwhile]) and np.array_equal(after[3], RIGHT[3])
    assert dice(after[REST], RIGHT[REST]) > dice(before[REST], RIGHT[REST]) + 0.05
    seen = a_case.following.corrected(a_case.node)
    assert {4, 5} <= seen.drawn[0] and "strokes on 2 slices" in seen.text  # to be learned from next
    a_case.following.undo(a_case.node)
    assert np.array_equal(a_case.labels, drawn)


def test_a_result_is_not_used_where_what_it_learned_from_was_changed_meanwhile(a_case: Case) -> None:
    labels = a_case.correct(3)
    run = a_case.ask()
    labels[3, 16, 16] ^= 1
    a_case.paint(labels)
    a_case.worker.answer()
    assert run.status == "failed" and "was changed while the network learned" in run.error.what
    assert np.array_equal(a_case.labels, labels)
    assert a_case.apply().text == "1 corrected slice"


def test_a_stroke_that_ends_while_the_earlier_ones_are_looked_at_stays_too(a_case: Case) -> None:
    a_case.correct(3)
    run = a_case.ask()
    drawn = a_case.labels.copy()
    drawn[4, 2, 2:6] = 1
    a_case.paint(drawn)
    a_case.worker.held = []
    a_case.worker.answer()
    assert not run.over
    drawn[5, 2, 2:6] = 1
    a_case.paint(drawn)
    a_case.worker.let_go()
    assert run.status == "done" and a_case.labels[4, 2, 2:6].all() and a_case.labels[5, 2, 2:6].all()


def test_a_job_that_is_cancelled_while_strokes_are_looked_at_changes_nothing(a_case: Case) -> None:
    a_case.correct(3)
    run = a_case.ask()
    drawn = a_case.labels.copy()
    drawn[4, 2, 2:6] = 1
    a_case.paint(drawn)
    folders = len(a_case.worker.folders)
    a_case.worker.held = []
    a_case.worker.answer()
    run.cancel()
    a_case.worker.let_go()
    assert run.status == "cancelled" and np.array_equal(a_case.labels, drawn)
    assert len(a_case.worker.folders) == folders - 1


def test_a_volume_that_is_changed_meanwhile_is_told_of(a_case: Case) -> None:
    before = a_case.correct(3)
    run = a_case.ask()
    a_case.volume_node.GetImageData().Modified()
    a_case.worker.answer()
    assert run.status == "failed" and np.array_equal(a_case.labels, before)


def test_a_volume_of_another_size_is_refused(a_case: Case) -> None:
    a_case.correct(3)
    other = add_volume(a_case.workflow.scene, PATIENT.array[1:], "other")
    a_case.volume_node.SetAndObserveImageData(other.GetImageData())
    assert "another size" in reason(a_case)


def test_an_accepted_segment_is_not_proposed_anew(a_case: Case) -> None:
    a_case.correct(3)
    segment = a_case.node.GetSegmentation().GetNthSegment(0)
    set_status(segment, Status.COMPLETED)
    assert "anterior was accepted" in reason(a_case)
    set_status(segment, Status.FLAGGED)
    assert a_case.following.check(a_case.node) == (True, "")


def test_a_renamed_segment_is_not_taken_for_erased(a_case: Case) -> None:
    a_case.correct(3)
    a_case.node.GetSegmentation().GetNthSegment(0).SetName("front")
    assert "anterior" in reason(a_case)


def test_erasing_everything_is_told(a_case: Case) -> None:
    a_case.paint(np.zeros_like(RIGHT))
    assert "erase all that the model had found" in reason(a_case)


def test_everything_settled_is_told(a_case: Case) -> None:
    for number in range(7):
        a_case.following.mark(a_case.node, Plane(0, number), True)
    assert "Every voxel was settled" in reason(a_case)


def test_a_whole_structure_that_a_person_drew_has_nothing_to_follow(a_case: Case) -> None:
    from APFormerSlicerLib.scene import new_segmentation

    own = new_segmentation(a_case.volume_node)
    draw(own, "anterior", RIGHT, matrix_of(a_case.volume_node))
    ok, told = a_case.following.check(own)
    assert not ok and "anterior is on each of its slices already" in told
    assert "No segmentation is chosen" in a_case.following.check(None)[1]


def test_a_model_that_was_removed_is_named(a_case: Case, a_library: ModelLibrary) -> None:
    import shutil

    a_case.correct(3)
    shutil.rmtree(a_library.roots[1] / MODEL)
    ok, told = a_case.following.check(a_case.node)
    assert not ok and MODEL in told


def test_a_segmentation_that_is_removed_ends_its_job(a_case: Case) -> None:
    a_case.correct(3)
    run = a_case.ask()
    a_case.workflow.scene.RemoveNode(a_case.node)
    assert run.status == "cancelled" and "was removed" in run.error.what


def test_a_volume_that_is_removed_ends_its_job(a_case: Case) -> None:
    a_case.correct(3)
    run = a_case.ask()
    a_case.workflow.scene.RemoveNode(a_case.volume_node)
    assert run.status == "cancelled" and "was removed" in run.error.what
    assert "is not known any more" in a_case.following.check(a_case.node)[1]


def test_files_of_earlier_proposals_go_with_the_segmentation(a_case: Case) -> None:
    a_case.correct(3)
    a_case.apply()
    assert len(a_case.worker.folders) == 2
    a_case.workflow.scene.RemoveNode(a_case.node)
    assert a_case.worker.folders == []
    assert a_case.workflow.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0  # the difference neither


def test_a_work_list_takes_the_difference_for_no_result(a_case: Case) -> None:
    a_case.workflow.worklist.add([a_case.volume_node])
    (item,) = a_case.workflow.worklist.items
    a_case.correct(3)
    a_case.apply()
    assert difference_of(a_case.node) is not None and item.segmentation_nodes == [a_case.node]


def test_segmenting_anew_begins_anew(a_case: Case, tmp_path: Path) -> None:
    a_case.correct(3)
    a_case.apply()
    a_case.segment()
    assert "Nothing was corrected" in reason(a_case) and a_case.following.pending(a_case.node) is None
    assert len(a_case.worker.folders) == 1

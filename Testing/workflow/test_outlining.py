"""Structures that no model knows: outlined on some slices, the worker's own code proposes those between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from apformer.bundles import ModelLibrary
from apformer.bundles.labels import Label
from apformer.errors import InputError
from apformer.following import Plane
from apformer.jobs import JobError
from apformer.networks import registered
from APFormerSlicerLib.scene import Status, new_segmentation, set_status, to_label_map
from APFormerSlicerLib.scene.difference import LABELS as DIFFERENCE
from APFormerSlicerLib.scene.difference import difference_of
from APFormerSlicerLib.scene.geometry import vtk_matrix
from APFormerSlicerLib.scene.precious import precious
from APFormerSlicerLib.scene.provenance import of_segment
from APFormerSlicerLib.scene.tags import tag
from APFormerSlicerLib.workflow import Followed, Run, Workflow
from bundle_samples import LABELS
from following_samples import GRID, Thresholds, a_patient, save_thresholds, truth
from headless import add_volume, draw, matrix_of, redraw
from workflow_samples import AnEditor, PlayedWorker

PATIENT = a_patient((13, 32, 32))
SHAPE = PATIENT.array.shape
ROWS, COLUMNS = np.mgrid[: SHAPE[1], : SHAPE[2]]
# A round structure that wanders sideways, bright in the image.
TRUE = np.stack([(ROWS - 9 - k * 0.6) ** 2 + (COLUMNS - 22) ** 2 < 30 for k in range(SHAPE[0])])
DRAWN = (1, 6, 11)
GAPS = [2, 3, 4, 5, 7, 8, 9, 10]
MODEL = "hippocampus-test"
DIED = JobError("The program that does the work was ended by SIGKILL.", "Memory ran out.", "Close others.", "/log")


def outlines(*slices: int, of: np.ndarray = TRUE, axis: int = 0) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    place = (slice(None),) * axis + (list(slices),)
    mask[place] = of[place]
    return mask


class Case:
    """An image on the scene, and a segmentation made by hand."""

    def __init__(self, workflow: Workflow, worker: PlayedWorker) -> None:
        self.workflow, self.worker = workflow, worker
        image = (PATIENT.array + 200.0 * TRUE).astype(np.float32)
        self.volume_node = add_volume(workflow.scene, image, "MR")
        self.volume_node.SetIJKToRASMatrix(vtk_matrix(GRID))
        workflow.state.volume, workflow.state.model = self.volume_node, MODEL
        self.node = new_segmentation(self.volume_node)
        workflow.state.segmentation = self.node

    @property
    def following(self) -> Any:
        return self.workflow.following

    @property
    def seen(self) -> Any:
        return self.following.corrected(self.node)

    def outline(self, name: str, mask: np.ndarray) -> str:
        return draw(self.node, name, mask, matrix_of(self.volume_node))

    def mask(self, name: str = "Tumour") -> np.ndarray:
        label = Label(1, name, (1, 2, 3), LABELS[0].category, LABELS[0].type)
        return to_label_map(self.node, self.volume_node, [label]).array > 0

    def segment(self, name: str = "Tumour") -> Any:
        segmentation = self.node.GetSegmentation()
        return segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName(name))

    def redraw(self, mask: np.ndarray, name: str = "Tumour") -> None:
        segment_id = self.node.GetSegmentation().GetSegmentIdBySegmentName(name)
        redraw(self.node, segment_id, mask.astype(np.uint8), matrix_of(self.volume_node))

    def ask(self) -> Run:
        run: Run = self.following.start(self.node, "cpu")
        fields = self.worker.last.fields
        if "model" in fields:
            fields["seconds"] = 600  # a slow machine takes as many steps as a fast one
        if "outlined" in fields:
            fields["outlined"]["seconds"] = 1  # this structure needs no learning
        return run

    def apply(self) -> Followed:
        run = self.ask()
        self.worker.answer()
        assert run.status == "done", run.error
        return run.outcome  # type: ignore[no-any-return]


@pytest.fixture
def by_hand(a_workflow: Workflow, a_worker: PlayedWorker) -> Case:
    return Case(a_workflow, a_worker)


@pytest.fixture
def outlined(by_hand: Case) -> Case:
    by_hand.outline("Tumour", outlines(*DRAWN))
    return by_hand


@pytest.fixture
def proposed(by_hand: Case, a_library: ModelLibrary) -> Iterator[Case]:
    """The same volume, segmented by a model that knows another structure and finds too little of it."""
    with registered("thresholds", Thresholds):
        save_thresholds(a_library.roots[1] / MODEL)
        by_hand.workflow.segment()
        by_hand.worker.answer()
        by_hand.node = by_hand.workflow.state.segmentation
        yield by_hand


def reason(case: Case) -> str:
    ok, told = case.following.check(case.node)
    assert not ok
    with pytest.raises(InputError):
        case.following.start(case.node)
    return str(told)


def dice(found: np.ndarray, true: np.ndarray) -> float:
    return float(2 * (found & true).sum() / (found.sum() + true.sum()))


# ------------------------------------------------------------------ what it says


def test_what_will_be_done_is_said_before_it_is_done(outlined: Case) -> None:
    assert outlined.following.check(outlined.node) == (True, "")
    assert outlined.seen.says == "Tumour: outlined on 3 axial slices; the slices between follow."
    assert outlined.seen.kinds(0) == {"right": set(), "drawn": set(DRAWN), "proposed": set()}
    assert not any(outlined.seen.kinds(1).values())


def test_the_plane_is_named(by_hand: Case) -> None:
    by_hand.outline("Tumour", outlines(8, 11, 14, axis=1))
    assert by_hand.seen.says == "Tumour: outlined on 3 coronal slices; the slices between follow."


# ------------------------------------------------------------------ the proposal


def test_the_slices_between_follow_and_the_outlined_ones_stay_as_they_were_drawn(outlined: Case) -> None:
    before = outlined.mask()
    done = outlined.apply()
    after = outlined.mask()
    assert np.array_equal(after[list(DRAWN)], before[list(DRAWN)]) and not after[[0, 12]].any()
    assert dice(after[GAPS], TRUE[GAPS]) > 0.8
    assert done.gained and done.text == "3 outlined slices of Tumour" and not done.adapted
    assert done.added_ml["Tumour"] == pytest.approx(np.count_nonzero(after & ~before) * 4.0 / 1000)
    assert outlined.following.pending(outlined.node) is done
    assert outlined.seen.kinds(0) == {"right": set(), "drawn": set(DRAWN), "proposed": set(GAPS)}


def test_where_the_image_teaches_nothing_it_is_said_that_the_outlines_were_interpolated(by_hand: Case) -> None:
    by_hand.outline("Tumour", outlines(1, 11))
    done = by_hand.apply()
    assert done.gained and "Tumour: It is outlined on fewer than three slices" in done.warnings[0]
    assert "interpolated from the outlines alone" in done.warnings[0]


def test_what_it_comes_from_is_written_on_the_segment(outlined: Case) -> None:
    outlined.apply()
    made_by = of_segment(outlined.segment())
    assert made_by.parameters == {"followed": "between 3 outlined slices", "outlined": {"k": [1, 6, 11]}}
    assert tag(outlined.segment(), "DICOM.SegmentAlgorithmType") == "SEMIAUTOMATIC"


def test_a_result_of_that_name_does_not_replace_what_a_person_outlined_unasked(outlined: Case) -> None:
    outlined.apply()
    label = Label(1, "Tumour", (1, 2, 3), LABELS[0].category, LABELS[0].type)
    assert precious(outlined.node, [label]) == {"Tumour": "made by hand"}


def test_what_was_added_is_shown_until_it_is_kept(outlined: Case) -> None:
    before = outlined.mask()
    outlined.apply()
    node = difference_of(outlined.node)
    assert np.array_equal(to_label_map(node, outlined.volume_node, DIFFERENCE).array == 1, outlined.mask() & ~before)
    outlined.following.keep(outlined.node, today=True)  # no model learned: there is none to keep
    assert outlined.following.pending(outlined.node) is None and node.GetScene() is None
    assert outlined.workflow.state.model == MODEL


def test_undo_brings_back_the_outlines_with_what_was_drawn_since(outlined: Case) -> None:
    before = outlined.mask()
    outlined.apply()
    drawn = outlined.mask()
    drawn[4, 2, 2:6] = True
    outlined.redraw(drawn)
    outlined.following.undo(outlined.node)
    before[4, 2, 2:6] = True
    assert np.array_equal(outlined.mask(), before)
    assert of_segment(outlined.segment()) is None and tag(outlined.segment(), "DICOM.SegmentAlgorithmType") is None
    assert outlined.following.pending(outlined.node) is None and difference_of(outlined.node) is None


def test_the_segment_editors_undo_and_redo_are_understood(outlined: Case) -> None:
    editor = AnEditor(outlined.node)
    outlined.workflow.segmenting.editor = editor
    before = outlined.mask()
    assert outlined.apply().undoable and len(editor.states) == 1
    after = outlined.mask()
    editor.undo()
    assert np.array_equal(outlined.mask(), before) and outlined.following.pending(outlined.node) is None
    assert outlined.seen.says.startswith("Tumour: outlined on 3 axial slices")
    editor.undo()  # which is Redo
    assert np.array_equal(outlined.mask(), after) and "Nothing of Tumour was outlined since" in reason(outlined)


def test_one_more_outline_is_followed_from_where_it_was(outlined: Case) -> None:
    outlined.apply()
    outlined.following.keep(outlined.node)
    first = outlined.mask()
    now = first.copy()
    now[4] = np.roll(TRUE[4], 3, axis=1)  # a proposed slice that was set right
    outlined.redraw(now)
    assert outlined.seen.says == "Tumour: outlined on 4 axial slices; the slices between follow."
    assert outlined.seen.kinds(0)["drawn"] == {1, 4, 6, 11}
    done = outlined.apply()
    after = outlined.mask()
    assert np.array_equal(after[[1, 4, 6, 11]], now[[1, 4, 6, 11]])
    assert (after[[3, 5]] != first[[3, 5]]).any(axis=(1, 2)).all()
    assert done.added_ml["Tumour"] > 0 and done.removed_ml["Tumour"] > 0
    outlined.following.undo(outlined.node)
    assert np.array_equal(outlined.mask(), now)


def test_several_structures_follow_at_once_each_in_its_own_plane(outlined: Case) -> None:
    second = np.zeros(SHAPE, bool)
    second[2:11, 22:28, 3:14] = True
    outlined.outline("Muscle", outlines(4, 8, 12, axis=2, of=second))
    assert outlined.seen.says == (
        "Tumour: outlined on 3 axial slices, Muscle: outlined on 3 sagittal slices; the slices between follow."
    )
    done = outlined.apply()
    assert done.text == "3 outlined slices of Tumour and 3 outlined slices of Muscle"
    assert dice(outlined.mask("Muscle"), second & (np.arange(SHAPE[2]) >= 4) & (np.arange(SHAPE[2]) <= 12)) > 0.8
    assert dice(outlined.mask("Tumour")[GAPS], TRUE[GAPS]) > 0.8


def test_other_segments_are_not_touched_even_below(outlined: Case) -> None:
    whole = np.zeros(SHAPE, np.uint8)
    whole[:, 4:28, 4:28] = 1
    outlined.outline("Body", whole)
    set_status(outlined.segment("Body"), Status.COMPLETED)
    outlined.apply()
    assert np.array_equal(outlined.mask("Body"), whole > 0) and dice(outlined.mask()[GAPS], TRUE[GAPS]) > 0.8


# ------------------------------------------------------------------ beside a model's structures


def test_the_models_structures_and_the_users_own_follow_in_one_press(proposed: Case) -> None:
    model = Case.mask(proposed, LABELS[0].name)
    right = truth(PATIENT) > 0
    now = model.copy()
    now[6] = right[6]
    proposed.redraw(now, LABELS[0].name)
    proposed.following.mark(proposed.node, Plane(0, 6), True)
    proposed.outline("Tumour", outlines(*DRAWN))
    assert proposed.seen.says == (
        "Learns from 1 corrected slice. Tumour: outlined on 3 axial slices; the slices between follow."
    )
    editor = AnEditor(proposed.node)
    proposed.workflow.segmenting.editor = editor
    before = proposed.mask()
    done = proposed.apply()
    assert done.text == "1 corrected slice and 3 outlined slices of Tumour" and done.adapted
    assert len(editor.states) == 1  # one step
    after = proposed.mask(LABELS[0].name)
    assert np.array_equal(after[6], right[6]) and dice(after, right) > dice(now, right) + 0.03
    assert dice(proposed.mask()[GAPS], TRUE[GAPS]) > 0.8
    shown = to_label_map(difference_of(proposed.node), proposed.volume_node, DIFFERENCE).array == 1
    assert np.array_equal(shown, (after & ~now) | (proposed.mask() & ~before))
    proposed.following.undo(proposed.node)
    assert np.array_equal(proposed.mask(), before) and np.array_equal(proposed.mask(LABELS[0].name), now)
    assert proposed.seen.text == "1 corrected slice"


def test_what_an_outline_was_drawn_over_is_no_correction_of_the_model(proposed: Case) -> None:
    name = LABELS[0].name
    model = proposed.mask(name)
    over = outlines(*DRAWN, of=np.stack([(ROWS - 16) ** 2 + (COLUMNS - 16) ** 2 < 20] * SHAPE[0]))
    assert (model & (over > 0)).any()
    proposed.redraw(model & (over == 0), name)  # as the Segment Editor erases what is painted over
    proposed.outline("Tumour", over)
    assert proposed.seen.text == "" and proposed.seen.says.startswith("Tumour: outlined")
    proposed.ask()
    assert "model" not in proposed.worker.last.fields


def test_a_stroke_of_the_model_below_a_whole_structure_of_the_users_own_is_a_correction(proposed: Case) -> None:
    name, body = LABELS[0].name, np.zeros(SHAPE, np.uint8)
    body[:, 2:30, 2:30] = 1
    proposed.outline("Body", body)
    model = proposed.mask(name)
    assert model[3].any()
    model[3] = False
    proposed.redraw(model, name)
    assert proposed.seen.text == "strokes on 1 slice"


# ------------------------------------------------------------------ what cannot follow


def test_an_empty_segmentation_is_told_what_to_do(by_hand: Case) -> None:
    assert "Outline a structure on two to five slices of one plane" in reason(by_hand)


def test_an_empty_segment_is_told(by_hand: Case) -> None:
    by_hand.outline("Tumour", np.zeros(SHAPE, np.uint8))
    assert "is outlined on some of its slices only" in reason(by_hand) or "Tumour is empty" in reason(by_hand)


def test_one_slice_only_is_told_also_where_the_model_was_not_corrected(proposed: Case) -> None:
    proposed.outline("Tumour", outlines(6))
    assert "Tumour is outlined on one slice only" in reason(proposed)


def test_slices_of_two_planes_are_told_and_nothing_is_lost(by_hand: Case) -> None:
    mixed = outlines(1, 11) | outlines(22, axis=2)
    by_hand.outline("Tumour", mixed)
    assert "Tumour is outlined on slices of two planes" in reason(by_hand)
    assert np.array_equal(by_hand.mask(), mixed > 0)


def test_a_structure_that_cannot_follow_is_told_beside_those_that_can(outlined: Case) -> None:
    outlined.outline("Muscle", outlines(3, of=np.roll(TRUE, 12, axis=2)))
    assert outlined.following.check(outlined.node)[0]
    assert outlined.seen.says.startswith("Tumour: outlined on 3 axial slices; the slices between follow. Muscle is")


def test_structures_that_overlap_where_they_were_outlined_are_told(outlined: Case) -> None:
    outlined.outline("Core", outlines(*DRAWN))
    assert "Core overlaps another structure" in outlined.seen.says
    outlined.ask()
    assert list(outlined.worker.last.fields["outlined"]["names"].values()) == ["Tumour"]


def test_an_accepted_structure_does_not_follow(outlined: Case) -> None:
    set_status(outlined.segment(), Status.COMPLETED)
    assert "Tumour was accepted" in reason(outlined)


def test_a_segment_of_a_loaded_scene_that_a_model_made_is_no_outline(by_hand: Case, a_library: ModelLibrary) -> None:
    segment_id = by_hand.outline("Tumour", outlines(*DRAWN))
    from APFormerSlicerLib.scene.provenance import Provenance, record_on_segment

    made_by = Provenance.from_report({"model": "liver-ct"})
    record_on_segment(by_hand.node.GetSegmentation().GetSegment(segment_id), made_by)
    assert "is not known any more" in reason(by_hand)


def test_no_slice_can_be_right_where_no_model_proposed_any(outlined: Case) -> None:
    with pytest.raises(InputError):
        outlined.following.mark(outlined.node, Plane(0, 3), True)


def test_a_worker_that_is_killed_changes_nothing(outlined: Case) -> None:
    before, folders = outlined.mask(), len(outlined.worker.folders)
    run = outlined.ask()
    outlined.worker.last.fail(DIED)
    assert run.status == "failed" and np.array_equal(outlined.mask(), before)
    assert len(outlined.worker.folders) == folders and outlined.apply().gained


def test_a_job_that_is_cancelled_changes_nothing(outlined: Case) -> None:
    before = outlined.mask()
    run = outlined.ask()
    run.cancel()
    outlined.worker.last.tell("cancelled")
    assert run.status == "cancelled" and np.array_equal(outlined.mask(), before)


def test_a_volume_that_is_changed_meanwhile_is_told_of(outlined: Case) -> None:
    before = outlined.mask()
    run = outlined.ask()
    outlined.volume_node.GetImageData().Modified()
    outlined.worker.answer()
    assert run.status == "failed" and "was changed while" in run.error.what
    assert np.array_equal(outlined.mask(), before)


def test_what_is_drawn_meanwhile_stays_and_counts_as_outlined_next(outlined: Case) -> None:
    run = outlined.ask()
    drawn = outlined.mask()
    drawn[4, 25:28, 5:9] = True
    outlined.redraw(drawn)
    outlined.worker.answer()
    assert run.status == "done", run.error
    after = outlined.mask()
    assert after[4, 25:28, 5:9].all() and dice(after[GAPS], TRUE[GAPS]) > 0.7
    assert outlined.seen.kinds(0)["drawn"] == {1, 4, 6, 11}
    outlined.following.undo(outlined.node)
    assert np.array_equal(outlined.mask(), drawn)


def test_a_proposal_between_outlines_that_were_changed_meanwhile_is_not_used(outlined: Case) -> None:
    run = outlined.ask()
    drawn = outlined.mask()
    drawn[6, 2:5, 2:5] = True
    outlined.redraw(drawn)
    outlined.worker.answer()
    assert run.status == "failed" and "was changed while the network learned" in run.error.what
    assert np.array_equal(outlined.mask(), drawn)


def test_a_volume_of_another_size_than_the_outlines_were_drawn_on_is_looked_at_anew(outlined: Case) -> None:
    other = add_volume(outlined.workflow.scene, PATIENT.array[:8], "other")
    outlined.volume_node.SetAndObserveImageData(other.GetImageData())
    assert outlined.seen.says == "Tumour: outlined on 2 axial slices; the slices between follow."


def test_the_files_of_a_proposal_between_outlines_are_not_needed_any_more(outlined: Case) -> None:
    outlined.apply()
    assert outlined.worker.folders == []
    outlined.workflow.scene.RemoveNode(outlined.node)
    assert outlined.workflow.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_keeping_nothing_does_nothing(by_hand: Case) -> None:
    by_hand.following.keep(None)
    by_hand.following.undo(None)


# ------------------------------------------------------------------ a new structure


def test_a_structure_is_begun_in_the_chosen_segmentation_or_a_new_one(by_hand: Case) -> None:
    workflow = by_hand.workflow
    first = workflow.new_structure("  Tumour ")
    assert by_hand.node.GetSegmentation().GetSegment(first).GetName() == "Tumour"
    workflow.state.segmentation = None
    workflow.new_structure("Tumour")
    assert workflow.state.segmentation is not by_hand.node
    assert workflow.state.segmentation.GetSegmentation().GetNumberOfSegments() == 1


@pytest.mark.parametrize(("name", "said"), [("  ", "1 to 64 characters"), ("x" * 65, "1 to 64"), ("TUMOUR", "already")])
def test_a_name_that_cannot_be_is_told(outlined: Case, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        outlined.workflow.new_structure(name)
    assert outlined.node.GetSegmentation().GetNumberOfSegments() == 1


def test_without_a_volume_no_structure_is_begun(by_hand: Case) -> None:
    by_hand.workflow.state.volume = None
    with pytest.raises(InputError, match="No volume is chosen"):
        by_hand.workflow.new_structure("Tumour")

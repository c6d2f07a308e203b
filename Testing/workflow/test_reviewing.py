"""Review: volumes, maps, the next place to check, and verdicts that stay with the segmentation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from apformer.errors import ConfigError, InputError
from APFormerSlicerLib.scene import Status
from APFormerSlicerLib.workflow import Choice, Workflow
from headless import draw, matrix_of
from workflow_samples import PlayedWorker, a_block

SHAPE = (12, 40, 40)


def two_spots() -> np.ndarray:
    """A large spot of doubt around (i, j, k) = (10, 10, 4), a small one around (30, 30, 8), a thin line elsewhere."""
    array = np.zeros(SHAPE, np.float32)
    array[2:7, 7:14, 7:14] = 0.9
    array[7:10, 29:32, 29:32] = 0.8
    array[4, 35, 2:30] = 0.6
    return array


@pytest.fixture
def a_result(a_workflow: Workflow, a_worker: PlayedWorker, make_volume_node: Callable[..., Any]) -> Callable[..., Any]:
    """Segments a volume with a map of doubt, and gives the segmentation."""
    node = make_volume_node(np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16), "MR")

    def segment(doubt: np.ndarray, date: str = "2026-01-02T03:04:05+01:00", target: Any = None) -> Any:
        run = a_workflow.segmenting.start(Choice(node, "slices", segmentation_node=target))
        a_worker.last.finish(a_block(SHAPE), {"uncertainty": doubt}, made_by={"date": date})
        return run.outcome.written.segmentation_node

    return segment


# ------------------------------------------------------------------ places


def test_next_goes_through_the_places_once_and_counts_what_is_left(a_workflow: Workflow, a_result: Any) -> None:
    review, node = a_workflow.reviewing, a_result(two_spots())
    view = a_workflow.scene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    assert review.left(node) == 2
    first = review.next_place(node)
    assert first.ijk == (10, 10, 4) and review.left(node) == 1
    shown = [view.GetSliceToRAS().GetElement(row, 3) for row in range(3)]
    assert shown == pytest.approx(first.ras)
    assert review.next_place(node).ijk == (30, 30, 8)
    assert review.next_place(node) is None and review.left(node) == 0
    review.visit_again(node)
    assert review.left(node) == 2


def test_another_result_has_places_of_its_own(a_workflow: Workflow, a_result: Any) -> None:
    review, node = a_workflow.reviewing, a_result(two_spots())
    review.next_place(node)
    assert a_result(two_spots(), "2026-01-03T00:00:00+01:00", target=node) is node
    assert review.left(node) == 2


def test_what_was_visited_survives_nonsense_in_the_attribute(a_workflow: Workflow, a_result: Any) -> None:
    node = a_result(two_spots())
    for text in ("{", "7", '{"of": 3, "ijk": 4}', '{"ijk": [["a"]]}'):
        node.SetAttribute("APFormer.Visited", text)
        assert a_workflow.reviewing.left(node) == 2


# ------------------------------------------------------------------ volumes, maps, verdicts


def test_rows_have_volumes_in_ml_and_follow_edits(a_workflow: Workflow, a_result: Any) -> None:
    node = a_result(two_spots())
    by_hand = np.zeros(SHAPE, np.uint8)
    by_hand[:5, :10, :10] = 1
    draw(node, "by hand", by_hand, matrix_of(a_workflow.volumes()[0]))
    anterior, posterior, drawn = a_workflow.reviewing.rows(node)
    assert (anterior.name, anterior.volume_ml) == ("anterior", pytest.approx(8 * 2 / 1000))
    assert (posterior.volume_ml, drawn.volume_ml) == (0.0, pytest.approx(500 * 2 / 1000))
    assert (anterior.model, anterior.status, drawn.model) == ("slices 1.0.0", Status.IN_PROGRESS, None)


def test_accepting_marks_what_the_model_proposed_and_flagging_says_why(a_workflow: Workflow, a_result: Any) -> None:
    node = a_result(two_spots())
    draw(node, "by hand", a_block(SHAPE), matrix_of(a_workflow.volumes()[0]))
    told: list[Any] = []
    a_workflow.reviewing.changed.connect(told.append)
    a_workflow.reviewing.accept(node)
    rows = a_workflow.reviewing.rows(node)
    assert [row.status for row in rows] == [Status.COMPLETED, Status.COMPLETED, Status.NOT_STARTED]
    a_workflow.reviewing.flag(node, 'motion "artefact" | 脳\nhere', [rows[1].segment_id])
    rows = a_workflow.reviewing.rows(node)
    assert [row.status for row in rows][:2] == [Status.COMPLETED, Status.FLAGGED]
    assert rows[1].comment == 'motion "artefact" / 脳 here' and rows[0].comment == ""
    a_workflow.reviewing.accept(node)
    assert a_workflow.reviewing.rows(node)[1].comment == ""
    assert told == [node] * 3


def test_a_verdict_on_nothing_or_an_endless_comment_is_refused(a_workflow: Workflow, a_result: Any) -> None:
    node = a_result(two_spots())
    with pytest.raises(InputError, match="no segment"):
        a_workflow.reviewing.accept(node, ["none"])
    with pytest.raises(ConfigError, match="501 characters"):
        a_workflow.reviewing.flag(node, "x" * 501)


def test_one_map_is_shown_at_a_time(a_workflow: Workflow, a_result: Any) -> None:
    review, node = a_workflow.reviewing, a_result(two_spots())
    view = a_workflow.scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", "Red")
    assert review.maps(node) == ["uncertainty"]
    review.show_map(node, "uncertainty")
    assert "uncertainty" in a_workflow.scene.GetNodeByID(view.GetForegroundVolumeID()).GetName()
    review.show_map(node, None)
    assert view.GetForegroundVolumeID() is None
    with pytest.raises(InputError, match="where it looked"):
        review.show_map(node, "kept_tokens")


def test_a_segmentation_deleted_mid_review_is_told(a_workflow: Workflow, a_result: Any) -> None:
    review, node = a_workflow.reviewing, a_result(two_spots())
    review.next_place(node)
    a_workflow.scene.RemoveNode(node)
    for step in (review.rows, review.left, review.next_place, review.accept, review.visit_again, review.maps):
        with pytest.raises(InputError, match="was removed from the scene"):
            step(node)
    with pytest.raises(InputError, match="No segmentation is chosen"):
        review.next_place(None)


def test_a_map_deleted_mid_review_is_told(a_workflow: Workflow, a_result: Any) -> None:
    node = a_result(two_spots())
    a_workflow.scene.RemoveNode(a_workflow.reviewing.map_node(node, "uncertainty"))
    with pytest.raises(InputError, match="no map of uncertainty"):
        a_workflow.reviewing.show_map(node, "uncertainty")
    assert a_workflow.reviewing.next_place(node).ijk == (10, 10, 4)  # the places are kept with the segmentation


def test_without_a_map_of_uncertainty_no_places_are_known(
    a_workflow: Workflow, a_worker: PlayedWorker, make_volume_node: Callable[..., Any]
) -> None:
    run = a_workflow.segmenting.start(Choice(make_volume_node(two_spots()), "slices", maps=()))
    a_worker.last.finish(a_block(SHAPE))
    with pytest.raises(InputError, match="no map of uncertainty"):
        a_workflow.reviewing.places(run.outcome.written.segmentation_node)

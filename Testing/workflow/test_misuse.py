"""What a script passes wrongly is its own fault and is told so, before anything is started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from apformer.errors import APFormerError, ConfigError, InputError
from APFormerSlicerLib.scene import Status, new_segmentation, set_status
from APFormerSlicerLib.workflow import Choice, PreciousError, Workflow
from APFormerSlicerLib.workflow.inputs import images_of
from headless import draw, matrix_of
from workflow_samples import PlayedWorker, a_block

SHAPE = (5, 6, 7)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("volume_node", "CTLiver", "'CTLiver' is no node"),
        ("volume_node", 7, "7 is no node"),
        ("volume_node", np.ones(SHAPE), "is no node"),
        ("roi_node", "R", "'R' is no node"),
        ("segmentation_node", "Segmentation", "'Segmentation' is no node"),
        ("model", None, "None is no text"),
        ("model", 3, "3 is no text"),
        ("device", 0, "0 is no text"),
        ("device", None, "None is no text"),
        ("maps", ["nonsense"], "no map 'nonsense'"),
        ("maps", ("uncertainty", "Uncertainty"), "no map 'Uncertainty'"),
        ("maps", "uncertainty", "no map 'uncertainty'"),
        ("maps", None, "no map None"),
        ("maps", [3], "no map 3"),
        ("frame", "1", "'1' is no whole number"),
        ("frame", True, "True is no whole number"),
    ],
)
def test_something_of_another_kind_is_refused_in_plain_words(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice, field: str, value: Any, says: str
) -> None:
    wrong = replace(a_choice, **{field: value})
    for call in (a_workflow.segmenting.start, a_workflow.segmenting.estimate):
        with pytest.raises(InputError) as caught:
            call(wrong)
        assert says in caught.value.what and caught.value.remedy and "report it" not in caught.value.remedy
    assert a_worker.asked == [] and a_worker.folders == []
    batch = a_workflow.batch([a_choice.volume_node])
    batch.items[0].choice = wrong
    batch.start()
    assert batch.items[0].status == "failed" and says in batch.items[0].reason


def test_a_volume_of_another_kind_in_a_batch_does_not_stop_the_rest(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice
) -> None:
    batch = a_workflow.batch(["CTLiver", a_choice.volume_node], model="slices")
    batch.start()
    a_worker.last.finish(a_block(SHAPE))
    assert [item.status for item in batch.items] == ["failed", "done"] and "CTLiver" in batch.items[0].title


def test_a_volume_for_a_region_or_segmentation_is_refused(a_workflow: Workflow, a_choice: Choice) -> None:
    for field in ("roi_node", "segmentation_node"):
        with pytest.raises(APFormerError) as caught:
            a_workflow.segmenting.start(replace(a_choice, **{field: a_choice.volume_node}))
        assert caught.value.remedy


def test_maps_of_ours_and_label_maps_are_left_out_of_all_volumes_of_a_scene(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice, make_volume_node: Callable[..., Any]
) -> None:
    run = a_workflow.segmenting.start(a_choice)
    a_worker.last.finish(a_block(SHAPE), {"uncertainty": np.full(SHAPE, 0.5)})
    doubt = a_workflow.reviewing.map_node(run.outcome.written.segmentation_node, "uncertainty")
    mask = make_volume_node(a_block(SHAPE), "mask", "vtkMRMLLabelMapVolumeNode")
    scene = a_workflow.scene
    every = [scene.GetNthNodeByClass(n, "vtkMRMLScalarVolumeNode") for n in range(3)]
    assert {doubt, mask, a_choice.volume_node} == set(every)
    wanted, left_out = images_of(scene, every)
    assert wanted == [a_choice.volume_node] and set(left_out) == {"MR uncertainty", "mask"}
    with pytest.raises(InputError, match="MR uncertainty"):
        images_of(scene, [doubt])
    with pytest.raises(InputError, match="is a map that a model made"):
        a_workflow.segmenting.start(replace(a_choice, volume_node=doubt))
    assert images_of(scene, ["text", None]) == (["text", None], ())  # refused in their turn, in words


def test_adopting_without_a_result_says_that_there_is_none(a_workflow: Workflow) -> None:
    for decide in (a_workflow.tuning.adopt, a_workflow.tuning.keep_old, a_workflow.tuning.require_trained):
        with pytest.raises(ConfigError, match="no new version") as caught:
            decide()
        assert caught.value.remedy


# ------------------------------------------------------------------ segments of a person


@pytest.fixture
def a_result(a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice) -> Any:
    run = a_workflow.segmenting.start(a_choice)
    a_worker.last.finish(a_block(SHAPE))
    return run.outcome.written.segmentation_node


def accept(node: Any, name: str = "anterior", status: Status = Status.COMPLETED) -> None:
    set_status(node.GetSegmentation().GetSegment(node.GetSegmentation().GetSegmentIdBySegmentName(name)), status)


def test_a_proposal_is_replaced_unasked_but_what_was_accepted_is_asked_about(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice, a_result: Any
) -> None:
    again = replace(a_choice, segmentation_node=a_result)
    run = a_workflow.segmenting.start(again)
    a_worker.last.finish(a_block(SHAPE))
    assert (
        run.status == "done"
        and run.outcome.lost == {}
        and set(run.outcome.written.replaced)
        == {
            "anterior",
            "posterior",
        }
    )
    accept(a_result)
    assert a_workflow.segmenting.check(again) == (True, "")
    with pytest.raises(PreciousError) as caught:
        a_workflow.segmenting.start(again)
    assert caught.value.names == {"anterior": "accepted"} and "overwrite" in caught.value.remedy
    agreed = a_workflow.segmenting.start(replace(again, overwrite=True))
    a_worker.last.finish(a_block(SHAPE, 2))
    assert agreed.outcome.lost == {"anterior": "accepted"}
    assert any("Replaced: anterior, which was accepted" in warning for warning in agreed.outcome.warnings)


@pytest.mark.parametrize("name", ["anterior", "posterior"])
def test_a_segment_that_a_person_drew_is_asked_about(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice, name: str
) -> None:
    node = new_segmentation(a_choice.volume_node, "mine")
    draw(node, name, a_block(SHAPE), matrix_of(a_choice.volume_node))
    draw(node, "something else", a_block(SHAPE), matrix_of(a_choice.volume_node))
    with pytest.raises(PreciousError) as caught:
        a_workflow.segmenting.start(replace(a_choice, segmentation_node=node))
    assert caught.value.names == {name: "made by hand"} and a_worker.asked == []
    empty = new_segmentation(a_choice.volume_node, "empty")
    empty.GetSegmentation().AddEmptySegment("", name)
    assert a_workflow.segmenting.start(replace(a_choice, segmentation_node=empty)).status == "waiting"


def test_what_is_accepted_or_drawn_while_the_job_runs_stays(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice, a_result: Any
) -> None:
    run = a_workflow.segmenting.start(replace(a_choice, segmentation_node=a_result))
    accept(a_result)
    a_worker.last.finish(a_block(SHAPE, 2))
    done = run.outcome
    assert done.written.segmentation_node is not a_result
    assert any("anterior was accepted meanwhile" in warning for warning in done.warnings)
    assert a_workflow.reviewing.rows(a_result)[0].volume_ml == pytest.approx(8 * 2 / 1000)


def test_a_batch_says_which_volume_it_left_because_of_a_persons_segments(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice, a_result: Any
) -> None:
    accept(a_result)
    a_workflow.state.volume, a_workflow.state.segmentation = a_choice.volume_node, a_result
    batch = a_workflow.batch([a_choice.volume_node], model="slices")
    batch.start()
    assert batch.items[0].status == "failed" and "anterior (accepted)" in batch.items[0].reason

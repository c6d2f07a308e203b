"""How unsure the model was of a case stays with its result: on the segmentation, in the scene's file, in a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.files import write_scalar
from apformer.volume import Volume
from APFormerSlicerLib.workflow import Choice, Workflow
from APFormerSlicerLib.workflow.doubts import doubt_of, set_doubt
from workflow_samples import PlayedWorker, a_block

SHAPE = (5, 6, 7)


def segmented(workflow: Workflow, worker: PlayedWorker, choice: Choice, **told: Any) -> Any:
    run = workflow.segmenting.start(choice)
    worker.last.finish(a_block(SHAPE), **told)
    return run.outcome


def test_the_doubt_of_a_result_is_kept_on_its_segmentation(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice
) -> None:
    done = segmented(a_workflow, a_worker, a_choice, doubt=0.25)
    assert done.doubt == doubt_of(done.written.segmentation_node) == 0.25


def test_a_new_result_has_its_own_doubt_or_none(a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice) -> None:
    node = segmented(a_workflow, a_worker, a_choice, doubt=0.25).written.segmentation_node
    segmented(a_workflow, a_worker, Choice(a_choice.volume_node, "slices", segmentation_node=node))
    assert doubt_of(node) is None


@pytest.mark.parametrize("told", [None, "much", True, -0.1, 1.5, float("nan"), [0.5]])
def test_what_is_no_share_is_not_taken(a_workflow: Workflow, told: Any) -> None:
    node = a_workflow.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    set_doubt(node, told)
    assert doubt_of(node) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"of": ""}', '{"doubt": 0.5}'])
def test_an_attribute_that_was_edited_by_hand_is_no_doubt(a_workflow: Workflow, text: str) -> None:
    node = a_workflow.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.SetAttribute("APFormer.Doubt", text)
    assert doubt_of(node) is None


def test_items_of_batches_tell_their_doubt(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice, tmp_path: Path
) -> None:
    a_workflow.state.model = "slices"
    batch = a_workflow.batch([a_choice.volume_node])
    batch.start()
    assert batch.items[0].doubt is None
    a_worker.last.finish(a_block(SHAPE), doubt=0.5)
    assert batch.items[0].doubt == 0.5
    (tmp_path / "images").mkdir()
    write_scalar(tmp_path / "images" / "a.nii.gz", Volume(np.ones(SHAPE, np.float32), np.diag([-1.0, -1.0, 1.0, 1.0])))
    files = a_workflow.folder(tmp_path / "images", tmp_path / "out")
    files.start()
    assert a_worker.last.fields["doubt"] is True
    a_worker.last.tell("result", device="cpu", doubt=0.75)
    assert files.items[0].doubt == 0.75

"""Several volumes or frames, one after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from apformer.errors import APFormerError
from apformer.jobs import JobError
from APFormerSlicerLib.scene import to_label_map
from APFormerSlicerLib.workflow import Batch, Choice, Workflow, every_frame
from bundle_samples import LABELS
from headless import Host
from workflow_samples import PlayedWorker, a_block, make_sequence

SHAPE = (5, 6, 7)
DIED = JobError("The program that does the work was ended by SIGKILL.", "Memory ran out.", "Close others.", "/log")


def test_what_fails_in_a_batch_does_not_stop_the_rest(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice, make_volume_node: Callable[..., Any]
) -> None:
    mask = make_volume_node(a_block(SHAPE), "mask", "vtkMRMLLabelMapVolumeNode")
    third, fourth = (make_volume_node(np.ones(SHAPE, np.int16), name) for name in ("third", "fourth"))
    batch = a_workflow.batch([a_choice.volume_node, mask, third, fourth], model="slices")
    over: list[str] = []
    batch.ended.connect(lambda batch: over.append(batch.summary))
    batch.start()
    assert len(a_worker.asked) == 1
    a_worker.last.finish(a_block(SHAPE))
    a_worker.last.fail(DIED)
    assert batch.summary == "1 of 4 segmented, 2 failed, 1 to go" and not batch.over
    a_worker.last.progress(0.5)
    assert batch.fraction == pytest.approx(3.5 / 4)
    a_worker.last.finish(a_block(SHAPE))
    assert over == ["2 of 4 segmented, 2 failed"] and batch.over
    assert "label map" in batch.items[1].reason and "SIGKILL" in batch.items[2].reason


def test_a_cancelled_batch_begins_no_other(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice, make_volume_node: Callable[..., Any]
) -> None:
    batch = a_workflow.batch([a_choice.volume_node, make_volume_node(np.ones(SHAPE, np.int16), "b")], model="slices")
    batch.start()
    batch.cancel()
    a_worker.last.tell("cancelled")
    assert batch.over and len(a_worker.asked) == 1
    assert batch.summary == "0 of 2 segmented, 2 not segmented"
    with pytest.raises(APFormerError, match="No volume"):
        a_workflow.batch([])


def test_frames_of_a_sequence_get_segmentations_of_their_own(
    a_workflow: Workflow, a_worker: PlayedWorker, a_host: Host
) -> None:
    images = [np.full(SHAPE, number, np.int16) + np.arange(7, dtype=np.int16) for number in range(3)]
    frames = make_sequence(a_host.scene, a_host.sequences, images)
    frames.browser.SetSelectedItemNumber(1)
    batch = Batch(a_workflow.segmenting, every_frame(Choice(frames.proxy, "slices", maps=())))
    batch.start()
    blocks = []
    for number in range(3):
        assert np.array_equal(np.load(a_worker.last.fields["array"]["file"]), images[number])
        blocks.append(a_block(SHAPE, 1 + number % 2))
        blocks[-1][0, 0, number] = 2
        a_worker.last.finish(blocks[-1])
    assert batch.summary == "3 of 3 segmented"
    assert a_host.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1
    assert frames.browser.GetSelectedItemNumber() == 1
    node = batch.items[0].run.outcome.written.segmentation_node
    for number in (0, 2, 1):
        frames.browser.SetSelectedItemNumber(number)
        assert np.array_equal(to_label_map(node, frames.proxy, LABELS).array, blocks[number])

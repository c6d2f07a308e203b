"""Jobs in a line: one at work, others waiting, each cancelled by itself; those of other panels are listed too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from apformer.bundles import ModelLibrary
from apformer.jobs import JobError
from APFormerSlicerLib.workflow import Choice, Workflow
from workflow_samples import PlayedWorker, a_block

SHAPE = (5, 6, 7)


@pytest.fixture
def three(a_choice: Choice, make_volume_node: Callable[..., Any]) -> list[Choice]:
    """Choices of three volumes: MR, B, C."""
    noise = np.random.default_rng(1).integers(0, 900, SHAPE).astype(np.int16)
    return [a_choice, *(replace(a_choice, volume_node=make_volume_node(noise, name)) for name in "BC")]


def test_another_volume_waits_for_its_turn_and_is_handed_over_only_then(
    a_workflow: Workflow, a_worker: PlayedWorker, three: list[Choice]
) -> None:
    first, second, third = (a_workflow.segmenting.start(choice) for choice in three)
    assert len(a_worker.asked) == len(a_worker.folders) == 1
    assert [run.status for run in (first, second, third)] == ["waiting"] * 3
    assert "waiting for 1 job" in second.message and "waiting for 2 jobs" in third.message
    assert a_workflow.segmenting.line.runs == (first, second, third)
    three[1].volume_node.GetImageData().GetPointData().GetScalars().Fill(77)
    three[1].volume_node.GetImageData().GetPointData().GetScalars().SetTuple1(0, 78)
    a_worker.last.finish(a_block(SHAPE))
    assert first.status == "done" and np.load(a_worker.last.fields["array"]["file"])[0, 0, 1] == 77
    a_worker.last.finish(a_block(SHAPE))
    a_worker.last.finish(a_block(SHAPE))
    assert [run.status for run in (first, second, third)] == ["done"] * 3
    assert second.outcome.written.segmentation_node is not first.outcome.written.segmentation_node
    assert a_workflow.segmenting.line.runs == ()


def test_each_job_can_be_cancelled_without_the_others(
    a_workflow: Workflow, a_worker: PlayedWorker, three: list[Choice]
) -> None:
    first, second, third = (a_workflow.segmenting.start(choice) for choice in three)
    second.cancel()
    assert second.status == "cancelled" and a_worker.cancelled == [] and len(a_worker.asked) == 1
    assert "waiting for 1 job" in third.message
    first.cancel()
    assert a_worker.cancelled == ["1"] and len(a_worker.asked) == 1  # until the worker has stopped
    a_worker.last.tell("cancelled")
    assert len(a_worker.asked) == 2 and third.status == "waiting"
    a_worker.last.finish(a_block(SHAPE))
    assert third.status == "done"


def test_a_job_that_fails_or_cannot_begin_lets_the_next_begin(
    a_workflow: Workflow, a_worker: PlayedWorker, three: list[Choice]
) -> None:
    first, second, third = (a_workflow.segmenting.start(choice) for choice in three)
    a_workflow.scene.RemoveNode(three[1].volume_node)
    assert second.status == "cancelled" and "B was removed" in second.error.what
    a_worker.last.fail(JobError("It died.", "Memory.", "Close others."))
    assert first.status == "failed" and len(a_worker.asked) == 2
    fourth = a_workflow.segmenting.start(three[0])
    third.cancel()
    assert third.cancelling and fourth.status == "waiting"
    a_worker.refuse = JobError("No worker.", "Nothing runs.", "Check it.")
    a_worker.last.tell("cancelled")
    assert fourth.status == "failed" and fourth.error.what == "No worker."
    assert a_workflow.segmenting.line.runs == () and a_workflow.segmenting.jobs.listed == []


def test_jobs_of_another_panel_are_listed_and_told(
    a_workflow: Workflow, a_worker: PlayedWorker, a_library: ModelLibrary, three: list[Choice]
) -> None:
    other = Workflow(a_workflow.scene, a_worker, a_library)
    told: list[int] = []
    other.segmenting.jobs.changed.connect(lambda: told.append(len(other.segmenting.jobs.listed)))
    run = a_workflow.segmenting.start(three[0])
    assert told == [1] and other.segmenting.run_of(three[0].volume_node) is run
    mine = other.segmenting.start(three[1])  # with a worker of its own it need not wait
    assert [job.run for job in other.segmenting.jobs.listed] == [run, mine]
    assert [job.volume_node.GetName() for job in a_workflow.segmenting.jobs.listed] == ["MR", "B"]
    other.close()
    assert mine.status == "cancelled" and run.status == "waiting"
    assert [job.run for job in a_workflow.segmenting.jobs.listed] == [run]


def test_a_job_that_is_cancelled_while_its_image_is_written_is_never_sent(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice
) -> None:
    a_worker.held = []
    run = a_workflow.segmenting.start(a_choice)
    assert run.status == "waiting" and "handing over" in run.message
    run.cancel()
    assert run.status == "cancelled" and len(a_worker.folders) == 1  # the thread still writes to it
    a_worker.let_go()
    assert a_worker.asked == [] and a_worker.folders == []
    assert a_workflow.segmenting.check(a_choice) == (True, "")


def test_voxels_that_change_while_they_are_written_are_written_again(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice
) -> None:
    a_worker.held = []
    run = a_workflow.segmenting.start(a_choice)
    (work, done), a_worker.held = a_worker.held[0], None
    written = work()
    scalars = a_choice.volume_node.GetImageData().GetPointData().GetScalars()
    scalars.SetTuple1(0, -5)
    scalars.Modified()
    done(written, None)
    assert np.load(a_worker.last.fields["array"]["file"]).ravel()[0] == -5
    a_worker.last.finish(a_block(SHAPE))
    assert run.status == "done" and run.outcome.warnings == ()


def test_an_image_that_is_replaced_while_it_is_written_stays_readable(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice, make_volume_node: Callable[..., Any]
) -> None:
    before = np.array(a_block(SHAPE), np.int16)
    a_choice.volume_node.SetAndObserveImageData(make_volume_node(before, "x").GetImageData())
    a_worker.held = []
    a_workflow.segmenting.start(a_choice)
    (work, _), a_worker.held = a_worker.held[0], None
    other = make_volume_node(np.full(SHAPE, 9, np.int16), "y")
    a_choice.volume_node.SetAndObserveImageData(other.GetImageData())
    for node in [node for node in a_workflow.volumes() if node.GetName() == "x"]:
        a_workflow.scene.RemoveNode(node)
    assert np.array_equal(np.load(work()["array"]["file"]), before)  # its memory was kept

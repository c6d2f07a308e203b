"""Segment: what is sent, what is written, and what happens when nodes, scenes or the worker go away meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from apformer.bundles import ModelLibrary
from apformer.errors import APFormerError, OutputError
from apformer.jobs import JobError
from APFormerSlicerLib.scene import Status, new_segmentation, status_of, to_label_map
from APFormerSlicerLib.scene.provenance import of_node
from APFormerSlicerLib.workflow import Choice, Run, Workflow, segmentable
from bundle_samples import LABELS
from headless import draw, matrix_of
from workflow_samples import PlayedWorker, a_block

SHAPE = (5, 6, 7)
DIED = JobError("The program that does the work was ended by SIGKILL.", "Memory ran out.", "Close others.", "/log")


def ended(run: Run) -> list[str]:
    told: list[str] = []
    run.ended.connect(lambda run: told.append(run.status))
    return told


# ------------------------------------------------------------------ a result


def test_a_result_comes_onto_the_scene_by_name_with_its_provenance(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice
) -> None:
    run = a_workflow.segmenting.start(replace(a_choice, maps=("uncertainty", "kept_tokens")))
    asked = a_worker.last
    assert np.array_equal(np.load(asked.fields["array"]["file"]).shape, SHAPE)
    assert asked.fields["array"]["name"] == "MR"
    assert Path(asked.fields["model"]).name == "slices" and asked.fields["device"] == "auto"
    asked.tell("accepted", position=0)
    asked.progress(0.4)
    assert (run.status, run.fraction, run.message, run.eta_s) == ("running", 0.4, "segmenting", 3.0)
    maps = {name: np.full(SHAPE, 0.5) for name in ("uncertainty", "kept_tokens")}
    asked.finish(a_block(SHAPE), maps, warnings=["check the result"])
    assert run.status == "done" and run.fraction == 1.0
    done = run.outcome
    node = done.written.segmentation_node
    back = to_label_map(node, a_choice.volume_node, LABELS)
    assert np.array_equal(back.array, a_block(SHAPE))
    assert of_node(node).model == "slices"
    assert a_workflow.reviewing.maps(node) == ["uncertainty", "kept_tokens"]
    assert (done.volumes_ml, done.seconds, done.warnings) == ({"anterior": 0.25}, 1.5, ("check the result",))
    (kept,) = a_worker.folders  # until the maps are looked at; without the image
    assert sorted(path.name for path in kept.iterdir()) == ["kept_tokens.npy", "labels.npy", "uncertainty.npy"]
    assert a_worker.forgotten == ["1"]


def test_the_chosen_segmentation_is_updated_and_its_other_segments_stay(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice
) -> None:
    a_workflow.state.volume, a_workflow.state.model = a_choice.volume_node, "slices"
    a_workflow.segment()
    a_worker.last.finish(a_block(SHAPE))
    node = a_workflow.state.segmentation
    drawn = draw(node, "by hand", a_block(SHAPE, 1), matrix_of(a_choice.volume_node))
    run = a_workflow.segment()
    a_worker.last.finish(a_block(SHAPE, 2))
    assert run.outcome.written.segmentation_node is node
    assert set(run.outcome.written.replaced) == {"anterior", "posterior"}
    assert node.GetSegmentation().GetNumberOfSegments() == 3
    assert status_of(node.GetSegmentation().GetSegment(drawn)) == Status.NOT_STARTED


def test_a_segmentation_drawn_on_another_volume_is_not_written_to(
    a_workflow: Workflow, a_choice: Choice, make_volume_node: Callable[..., Any]
) -> None:
    other = make_volume_node(np.ones(SHAPE, np.int16), "other")
    a_workflow.state.volume, a_workflow.state.segmentation = a_choice.volume_node, new_segmentation(other)
    assert a_workflow.choice().segmentation_node is None


def test_names_with_quotes_and_other_scripts_go_through(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice
) -> None:
    a_choice.volume_node.SetName('O\'Brien "脳" | <1>')
    run = a_workflow.segmenting.start(a_choice)
    a_worker.last.finish(a_block(SHAPE))
    assert run.status == "done" and 'O\'Brien "脳"' in run.title
    assert run.outcome.written.segmentation_node.GetName() == 'O\'Brien "脳" | <1> segmentation'


def test_a_region_of_interest_is_sent_as_voxels_and_recorded(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice
) -> None:
    box = a_workflow.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
    box.SetXYZ(2, 2, 4)
    box.SetSize(2.2, 2.2, 4.4)
    run = a_workflow.segmenting.start(replace(a_choice, roi_node=box))
    assert a_worker.last.fields["roi"] == "1:4,1:4,1:4"
    a_worker.last.finish(a_block(SHAPE))
    assert of_node(run.outcome.written.segmentation_node).parameters == {"roi": "1:4,1:4,1:4"}


# ------------------------------------------------------------------ what is refused


def refused(workflow: Workflow, choice: Choice) -> str:
    ok, reason = workflow.segmenting.check(choice)
    assert not ok
    with pytest.raises(APFormerError):
        workflow.segmenting.start(choice)
    return reason


def test_without_a_volume_or_model_the_reason_says_what_to_choose(a_workflow: Workflow, a_choice: Choice) -> None:
    assert a_workflow.segmenting.check(a_choice) == (True, "")
    assert "Load an image" in refused(a_workflow, replace(a_choice, volume_node=None))
    assert "Choose a model" in refused(a_workflow, replace(a_choice, model=""))
    assert "Choose a model" in refused(a_workflow, a_workflow.choice(a_choice.volume_node))


def test_a_label_map_is_no_image(a_workflow: Workflow, a_choice: Choice, make_volume_node: Callable[..., Any]) -> None:
    node = make_volume_node(a_block(SHAPE), "mask", "vtkMRMLLabelMapVolumeNode")
    assert "is a label map" in refused(a_workflow, replace(a_choice, volume_node=node))
    assert segmentable(a_workflow.scene) == [a_choice.volume_node]


def test_a_photograph_is_not_for_a_model_of_volumes(
    a_workflow: Workflow, a_worker: PlayedWorker, make_volume_node: Callable[..., Any]
) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (1, 6, 7, 3)).astype(np.uint8)
    photo = make_volume_node(colours, "photo", "vtkMRMLVectorVolumeNode")
    photo.SetVoxelVectorType(slicer.vtkMRMLVolumeNode.VoxelVectorTypeColorRGB)
    assert "is a colour image" in refused(a_workflow, Choice(photo, "volumes"))
    gray = make_volume_node(np.ones((1, 6, 7), np.uint8), "gray photo")
    assert "is a single slice" in refused(a_workflow, Choice(gray, "volumes"))
    a_workflow.segmenting.start(Choice(photo, "photos"))
    assert a_worker.last.fields["array"]["picture"] is True
    assert np.load(a_worker.last.fields["array"]["file"]).shape == (3, 1, 6, 7)


def test_a_model_that_was_removed_while_selected_is_told(
    a_workflow: Workflow, a_choice: Choice, a_library: ModelLibrary, tmp_path: Path
) -> None:
    a_library.import_zip(a_library.export_zip("slices", tmp_path / "s.zip"), replace=True)
    (tmp_path / "bundled" / "slices").rename(tmp_path / "away")
    assert a_workflow.segmenting.check(a_choice)[0]
    a_library.remove("slices")
    assert "is not installed any more" in refused(a_workflow, a_choice)


def test_a_damaged_model_is_refused_before_a_job(a_workflow: Workflow, a_choice: Choice, tmp_path: Path) -> None:
    (tmp_path / "bundled" / "slices" / "configs" / "metadata.json").write_text("{}")
    assert "differs from its checksum" in refused(a_workflow, a_choice)


def test_a_volume_or_region_that_left_the_scene_is_refused(a_workflow: Workflow, a_choice: Choice) -> None:
    box = a_workflow.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
    a_workflow.scene.RemoveNode(box)
    assert "R was removed" in refused(a_workflow, replace(a_choice, roi_node=box))
    a_workflow.scene.RemoveNode(a_choice.volume_node)
    assert "not in the scene any more" in refused(a_workflow, a_choice)


def test_one_job_at_a_time_per_volume_also_from_another_instance(
    a_workflow: Workflow, a_worker: PlayedWorker, a_library: ModelLibrary, a_choice: Choice
) -> None:
    other = Workflow(a_workflow.scene, a_worker, a_library)
    run = a_workflow.segmenting.start(a_choice)
    assert "is being segmented already" in refused(other, a_choice)
    assert other.segmenting.run_of(a_choice.volume_node) is run
    a_worker.last.finish(a_block(SHAPE))
    assert other.segmenting.check(a_choice)[0]
    other.close()


def test_a_worker_that_cannot_be_started_leaves_the_volume_free(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice
) -> None:
    a_worker.refuse = JobError("The program could not be started.", "No job can run.", "Check the path.")
    run = a_workflow.segmenting.start(a_choice)
    assert run.status == "failed" and "could not be started" in run.error.what
    assert a_worker.folders == []
    assert a_workflow.segmenting.check(a_choice) == (True, "")


# ------------------------------------------------------------------ what happens meanwhile


def test_cancelling_writes_nothing_even_when_the_result_was_on_its_way(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice
) -> None:
    first = a_workflow.segmenting.start(a_choice)
    first.cancel()
    a_worker.last.tell("cancelled")
    late = a_workflow.segmenting.start(a_choice)
    late.cancel()
    a_worker.last.finish(a_block(SHAPE))
    assert (first.status, late.status, a_worker.cancelled) == ("cancelled", "cancelled", ["1", "2"])
    assert a_workflow.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert a_worker.folders == []


def test_a_volume_that_is_deleted_meanwhile_ends_its_job_with_a_reason(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice
) -> None:
    run = a_workflow.segmenting.start(a_choice)
    told = ended(run)
    a_workflow.scene.RemoveNode(a_choice.volume_node)
    assert told == ["cancelled"] and "MR was removed" in run.error.what
    assert a_worker.cancelled == ["1"] and len(a_worker.folders) == 1  # the worker may still write there
    a_worker.last.finish(a_block(SHAPE))
    assert told == ["cancelled"] and a_worker.folders == []
    assert a_workflow.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_closing_the_scene_meanwhile_is_safe(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice, make_volume_node: Callable[..., Any]
) -> None:
    batch = a_workflow.batch(
        [a_choice.volume_node, make_volume_node(np.ones(SHAPE, np.int16), "second")], model="slices"
    )
    batch.start()
    a_workflow.scene.Clear(False)
    assert [item.status for item in batch.items] == ["cancelled", "failed"]
    assert "scene is being closed" in batch.items[1].reason
    a_worker.last.finish(a_block(SHAPE))
    assert len(a_worker.asked) == 1 and a_worker.folders == []


def test_a_segmentation_that_is_deleted_meanwhile_is_replaced_by_a_new_one(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice
) -> None:
    target = new_segmentation(a_choice.volume_node, "mine")
    run = a_workflow.segmenting.start(replace(a_choice, segmentation_node=target))
    a_workflow.scene.RemoveNode(target)
    a_worker.last.finish(a_block(SHAPE))
    assert run.outcome.written.segmentation_node is not target
    assert any("mine was removed" in warning for warning in run.outcome.warnings)


def test_voxels_that_change_meanwhile_are_told(a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice) -> None:
    run = a_workflow.segmenting.start(a_choice)
    a_choice.volume_node.GetImageData().GetPointData().GetScalars().SetTuple1(0, 5)
    a_choice.volume_node.GetImageData().GetPointData().GetScalars().Modified()
    a_worker.last.finish(a_block(SHAPE))
    assert any("was changed meanwhile" in warning for warning in run.outcome.warnings)


def test_another_size_meanwhile_is_a_failure_that_touches_nothing(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice, make_volume_node: Callable[..., Any]
) -> None:
    run = a_workflow.segmenting.start(a_choice)
    smaller = make_volume_node(np.ones((2, 3, 4), np.int16), "smaller")
    a_choice.volume_node.SetAndObserveImageData(smaller.GetImageData())
    a_worker.last.finish(a_block(SHAPE))
    assert run.status == "failed" and "does not fit" in run.error.what
    assert a_workflow.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_a_worker_that_dies_gives_a_reason_and_the_next_job_runs(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice
) -> None:
    run = a_workflow.segmenting.start(a_choice)
    a_worker.last.fail(DIED)
    assert run.status == "failed" and run.error.what == DIED.what and run.error.log == "/log"
    again = a_workflow.segmenting.start(a_choice)
    a_worker.last.finish(a_block(SHAPE))
    assert again.status == "done"


def test_a_worker_that_tells_the_end_before_it_returns_is_heard(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = a_worker.submit

    def submit_and_die(*arguments: Any) -> str:
        job_id = submit(*arguments)
        a_worker.last.fail(DIED)
        return job_id

    monkeypatch.setattr(a_worker, "submit", submit_and_die)
    run = a_workflow.segmenting.start(a_choice)
    assert run.status == "failed" and a_worker.forgotten == ["1"] and a_worker.folders == []
    assert a_workflow.segmenting.check(a_choice) == (True, "")


def test_a_full_disk_is_told_and_leaves_the_volume_free(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(a_worker, "folder", full)
    run = a_workflow.segmenting.start(a_choice)
    assert run.status == "failed" and isinstance(run.error, OutputError) and "No space left" in run.error.what
    assert a_workflow.segmenting.check(a_choice) == (True, "")


def test_result_files_that_are_gone_are_a_failure_with_a_remedy(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice
) -> None:
    run = a_workflow.segmenting.start(a_choice)
    a_worker.last.tell("result", paths={"labels": "/nowhere/labels.npy"}, labels=[], warnings=[])
    assert run.status == "failed" and "Segment again" in run.error.remedy


def test_the_end_of_the_workflow_gives_up_its_jobs_and_hears_no_more(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice
) -> None:
    run = a_workflow.segmenting.start(a_choice)
    a_workflow.close()
    assert run.status == "cancelled"
    a_workflow.scene.RemoveNode(a_choice.volume_node)
    a_workflow.scene.Clear(False)


# ------------------------------------------------------------------ estimates


def test_an_estimate_is_a_line_in_words(a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice) -> None:
    run = a_workflow.segmenting.estimate(a_choice)
    assert a_worker.last.job == "preflight" and a_worker.last.fields["for"] == "segment"
    a_worker.last.tell(
        "result",
        ok=True,
        device="cpu",
        seconds=[18.0, 20.0],
        needed_bytes={"device": 1.2e9},
        free_bytes={"device": 9.4e9},
        warnings=["it is large"],
    )
    assert run.outcome.ok and run.outcome.line == "CPU, about 20 s; needs 1.2 GB, 9.4 GB free"
    assert run.outcome.warnings == ("it is large",)


def test_an_estimate_says_no_with_the_remedy(a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice) -> None:
    run = a_workflow.segmenting.estimate(a_choice)
    a_worker.last.tell("result", ok=False, reason={"what": "Too large.", "meaning": "", "remedy": "Crop it."})
    assert not run.outcome.ok and run.outcome.line == "Too large. Crop it."

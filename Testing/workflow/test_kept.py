"""Files of results: kept until maps are looked at, brought up to date, dropped with their nodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.errors import InputError
from APFormerSlicerLib.scene import to_volume
from APFormerSlicerLib.scene.provenance import of_node
from APFormerSlicerLib.workflow import Choice, Workflow, segmentable
from workflow_samples import PlayedWorker, a_block

SHAPE = (5, 6, 7)


def result(
    workflow: Workflow, worker: PlayedWorker, choice: Choice, doubt: float = 0.5, target: Any = None, maps: Any = None
) -> Any:
    wanted = ("uncertainty", "kept_tokens") if maps is None else maps
    workflow.segmenting.start(replace(choice, maps=wanted, segmentation_node=target))
    made = {name: np.full(SHAPE, doubt, np.float32) for name in wanted}
    worker.last.finish(a_block(SHAPE), made)
    return target or workflow.scene.GetNthNodeByClass(0, "vtkMRMLSegmentationNode")


def maps_in(workflow: Workflow) -> list[str]:
    count = workflow.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    nodes = [workflow.scene.GetNthNodeByClass(n, "vtkMRMLScalarVolumeNode") for n in range(count)]
    return sorted(node.GetName() for node in nodes if of_node(node) is not None)


def test_a_map_becomes_a_node_when_it_is_looked_at(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice
) -> None:
    node = result(a_workflow, a_worker, a_choice)
    assert maps_in(a_workflow) == [] and a_workflow.reviewing.maps(node) == ["uncertainty", "kept_tokens"]
    a_workflow.reviewing.show_map(node, "kept_tokens")
    assert maps_in(a_workflow) == ["MR where it looked"]
    assert segmentable(a_workflow.scene) == [a_choice.volume_node]
    assert float(to_volume(a_workflow.reviewing.map_node(node, "uncertainty")).array.max()) == 0.5
    assert a_workflow.reviewing.map_node(node, "uncertainty") is a_workflow.reviewing.map_node(node, "uncertainty")


def test_a_map_that_is_shown_follows_the_next_result_and_a_hidden_one_goes(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice
) -> None:
    view = a_workflow.scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", "Red")
    node = result(a_workflow, a_worker, a_choice)
    a_workflow.reviewing.map_node(node, "kept_tokens")
    a_workflow.reviewing.show_map(node, "uncertainty")
    shown = a_workflow.reviewing.map_node(node, "uncertainty")
    result(a_workflow, a_worker, a_choice, 0.25, node)
    assert view.GetForegroundVolumeID() == shown.GetID() and float(to_volume(shown).array.max()) == 0.25
    assert maps_in(a_workflow) == ["MR uncertainty"]
    result(a_workflow, a_worker, a_choice, 0.25, node, maps=())
    assert maps_in(a_workflow) == [] and a_workflow.reviewing.maps(node) == []  # they were of another result


def test_all_maps_are_there_when_the_scene_is_saved(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice
) -> None:
    node = result(a_workflow, a_worker, a_choice)
    a_workflow.scene.StartState(a_workflow.scene.SaveState)
    assert maps_in(a_workflow) == ["MR uncertainty", "MR where it looked"]
    a_workflow.scene.EndState(a_workflow.scene.SaveState)
    assert a_workflow.reviewing.maps(node) == ["uncertainty", "kept_tokens"]


@pytest.mark.parametrize("what", ["segmentation", "volume", "scene", "again", "close"])
def test_files_go_with_what_they_are_of(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice, what: str
) -> None:
    node = result(a_workflow, a_worker, a_choice)
    (before,) = a_worker.folders
    if what == "again":
        result(a_workflow, a_worker, a_choice, 0.5, node)
        assert len(a_worker.folders) == 1 and before not in a_worker.folders
        return
    if what == "scene":
        a_workflow.scene.Clear(False)
    elif what != "close":
        a_workflow.scene.RemoveNode(node if what == "segmentation" else a_choice.volume_node)
    else:
        return  # the worker's own end removes them
    assert a_worker.folders == []


def test_a_file_that_is_gone_is_told_when_the_map_is_asked_for(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice
) -> None:
    node = result(a_workflow, a_worker, a_choice)
    for path in a_worker.folders[0].glob("*.npy"):
        Path(path).unlink()
    with pytest.raises(InputError, match="could not be read") as caught:
        a_workflow.reviewing.show_map(node, "uncertainty")
    assert "Segment again" in caught.value.remedy


def test_places_survive_nonsense_and_are_where_the_image_is_now(
    a_workflow: Workflow, a_worker: PlayedWorker, a_choice: Choice
) -> None:
    import vtk

    node = result(a_workflow, a_worker, a_choice, 0.9)
    (place,) = a_workflow.reviewing.places(node)
    transform = a_workflow.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 100.0)
    transform.SetMatrixTransformToParent(matrix)
    a_choice.volume_node.SetAndObserveTransformNodeID(transform.GetID())
    (moved,) = a_workflow.reviewing.places(node)
    assert moved.ras[0] == pytest.approx(place.ras[0] + 100) and moved.ijk == place.ijk
    for text in ("{", "7", "[]", '{"of": 1, "places": [1]}', '{"places": [{"ijk": [1]}]}'):
        node.SetAttribute("APFormer.Places", text)
        with pytest.raises(InputError):
            a_workflow.reviewing.places(node)

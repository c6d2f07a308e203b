"""The state lives in a node of the scene: saved, restored, shared, and kept where closing a scene should keep it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from apformer.bundles import ModelLibrary
from APFormerSlicerLib.scene import new_segmentation
from APFormerSlicerLib.workflow import Signal, State, Workflow
from APFormerSlicerLib.workflow.scene_watch import SceneWatch
from APFormerSlicerLib.workflow.state import TAG
from workflow_samples import PlayedWorker

QUOTED = 'O\'Brien "脳" & <Söhne>; a|b\\c\n'


def save_and_load(scene: Any, path: Path) -> None:
    scene.SetURL(str(path))
    assert scene.Commit(str(path))
    scene.Clear(False)
    scene.SetURL(str(path))
    assert scene.Connect()


def test_choices_come_back_with_the_scene(a_workflow: Workflow, tmp_path: Path) -> None:
    state = a_workflow.state
    # a node that is saved within the scene file, without a file of its own
    region = a_workflow.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", QUOTED.strip())
    state.roi = region
    state.model, state.who, state.site = "slices", QUOTED, f"/data/{QUOTED}"
    state.maps, state.tuning = ["kept_tokens"], {"name": "our ventricle", "mapping": {QUOTED: "LV"}, "minutes": 2.5}
    save_and_load(a_workflow.scene, tmp_path / "scene.mrml")
    assert (state.model, state.who, state.site) == ("slices", QUOTED, f"/data/{QUOTED}")
    assert state.maps == ["kept_tokens"]
    assert state.tuning == {"name": "our ventricle", "mapping": {QUOTED: "LV"}, "minutes": 2.5}
    assert state.roi is not None and state.roi is not region
    assert state.roi.GetName() == QUOTED.strip()


def test_two_instances_on_a_scene_share_one_node(
    a_workflow: Workflow, a_worker: PlayedWorker, a_library: ModelLibrary
) -> None:
    other = Workflow(a_workflow.scene, a_worker, a_library)
    told: list[str] = []
    other.state.changed.connect(lambda: told.append(other.state.model))
    a_workflow.state.model = "slices"
    assert told == ["slices"]
    assert other.state.node is a_workflow.state.node
    other.close()
    a_workflow.state.model = "volumes"
    assert told == ["slices"]


def test_what_is_set_again_to_the_same_tells_nothing(a_workflow: Workflow, a_volume_node: Any) -> None:
    state, told = a_workflow.state, []
    state.volume, state.maps = a_volume_node, ["uncertainty"]
    state.changed.connect(lambda: told.append(1))
    state.volume, state.maps = a_volume_node, ["uncertainty"]
    assert told == []


def test_closing_the_scene_keeps_what_is_not_of_one_patient(a_workflow: Workflow, a_volume_node: Any) -> None:
    state = a_workflow.state
    state.volume, state.model, state.site = a_volume_node, "slices", "/data/site"
    a_workflow.scene.Clear(False)
    assert state.volume is None
    assert (state.model, state.site) == ("slices", "/data/site")


def test_a_removed_node_is_no_longer_chosen(a_workflow: Workflow, a_volume_node: Any) -> None:
    a_workflow.state.volume = a_volume_node
    a_workflow.scene.RemoveNode(a_volume_node)
    assert a_workflow.state.volume is None


def test_a_state_node_that_somebody_removed_is_made_anew(a_workflow: Workflow) -> None:
    a_workflow.scene.RemoveNode(a_workflow.scene.GetSingletonNode(TAG, "vtkMRMLScriptedModuleNode"))
    a_workflow.state.model = "slices"
    assert a_workflow.state.model == "slices"


@pytest.mark.parametrize("text", ["", "{", "7", '["a"]', "null"])
def test_nonsense_in_the_node_is_the_default(a_scene: Any, text: str) -> None:
    state = State(SceneWatch(a_scene))
    state.node.SetParameter("model", text)
    state.node.SetParameter("tuning", text)
    assert (state.model, state.tuning) == ("", {})


def test_a_workflow_that_was_not_closed_does_not_stir_when_its_scene_ends(
    a_worker: PlayedWorker, a_library: ModelLibrary, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = slicer.vtkMRMLScene()
    workflow = Workflow(scene, a_worker, a_library)
    workflow.state.model = "slices"
    gone = weakref.ref(workflow.state)
    del workflow, scene
    gc.collect()
    assert gone() is None and capsys.readouterr().err == ""


def test_a_default_that_is_changed_stays_the_default(a_scene: Any) -> None:
    state = State(SceneWatch(a_scene))
    state.maps.append("kept_tokens")
    assert state.maps == ["uncertainty"]


def test_the_fault_of_one_listener_keeps_nothing_from_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    def faulty(number: int) -> None:
        raise RuntimeError(f"a fault at {number}")

    signal: Signal[int] = Signal()
    heard: list[int] = []
    listener = heard.append
    signal.connect(faulty)
    signal.connect(listener)
    signal.emit(3)
    signal.disconnect(listener)
    signal.emit(4)
    assert heard == [3]
    assert "a fault at 3" in capsys.readouterr().err


# ------------------------------------------------------------------ what leaves the scene, and regions


def test_what_is_removed_is_chosen_no_more_whatever_a_widget_chooses_in_its_place(
    a_workflow: Workflow, make_volume_node: Callable[..., Any]
) -> None:
    """qMRMLNodeComboBox moves on to its next row when its node is about to be removed."""
    state, scene = a_workflow.state, a_workflow.scene
    first, second = (make_volume_node(np.ones((2, 3, 4), np.int16), name) for name in "ab")
    ours, others = new_segmentation(first), new_segmentation(second)
    state.volume, state.segmentation = first, ours

    def move_on(*_: Any) -> None:
        state.volume, state.segmentation = second, others

    tag = scene.AddObserver(scene.NodeAboutToBeRemovedEvent, move_on)
    told: list[Any] = []
    state.changed.connect(lambda: told.append(state.volume))
    scene.RemoveNode(first)
    assert state.volume is None and told[-1] is None
    state.volume, state.segmentation = second, ours
    assert state.volume is second  # a choice counts again
    scene.RemoveNode(ours)
    assert state.segmentation is None and state.volume is second
    scene.RemoveObserver(tag)


def test_a_region_stays_with_its_volume(a_workflow: Workflow, make_volume_node: Callable[..., Any]) -> None:
    state = a_workflow.state
    first, second = (make_volume_node(np.ones((2, 3, 4), np.int16), name) for name in "ab")
    box = a_workflow.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
    told: list[Any] = []
    state.changed.connect(lambda: told.append(state.roi))
    state.volume = first
    state.roi = box
    assert state.roi is box and told[-1] is box
    state.volume = second
    assert state.roi is None and a_workflow.choice().roi_node is None
    assert a_workflow.choice(first).roi_node is box  # in a batch, too
    state.volume = first
    assert state.roi is box
    state.roi = None
    state.volume, state.volume = second, first
    assert state.roi is None


def test_a_region_that_was_chosen_first_becomes_that_of_the_volume(
    a_workflow: Workflow, make_volume_node: Callable[..., Any]
) -> None:
    state = a_workflow.state
    box = a_workflow.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
    state.roi = box
    assert state.roi is box
    first, second = (make_volume_node(np.ones((2, 3, 4), np.int16), name) for name in "ab")
    state.volume = first
    assert state.roi is box
    state.volume = second
    assert state.roi is None
    a_workflow.scene.RemoveNode(box)
    state.volume = first
    assert state.roi is None

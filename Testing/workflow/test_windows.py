"""CT windows: offered beside the model, set when a CT model is chosen, and never on anything but a CT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from apformer.bundles import ModelLibrary
from apformer.errors import InputError
from apformer.volume import Volume
from APFormerSlicerLib.scene.loading import new_volume_node
from APFormerSlicerLib.scene.windows import PRESETS, Window
from APFormerSlicerLib.workflow import Workflow
from APFormerSlicerLib.workflow.windows import AS_MODEL
from bundle_samples import edit_json

SHAPE = (5, 6, 7)


@pytest.fixture
def a_ct(a_scene: Any) -> Any:
    voxels = np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)
    return new_volume_node(a_scene, Volume(voxels, np.eye(4), "CT"), "CT")


@pytest.fixture
def a_ct_model(a_library: ModelLibrary) -> str:
    """liver-ct, which clips at 0 and 255 HU."""
    directory = a_library.directory("liver-ct")
    assert directory is not None

    def change(metadata: dict[str, Any]) -> None:
        metadata["preprocessing"]["intensity"] = {"kind": "window", "lower": 0.0, "upper": 255.0}

    edit_json(directory, "configs/metadata.json", change)
    return "liver-ct"


def shown(node: Any) -> tuple[float, float]:
    display = node.GetDisplayNode()
    return display.GetWindowLevelMin(), display.GetWindowLevelMax()


def test_choosing_a_ct_model_shows_a_ct_as_its_organ_is_looked_at(
    a_workflow: Workflow, a_ct: Any, a_ct_model: str
) -> None:
    a_workflow.state.volume = a_ct
    before = shown(a_ct)
    a_workflow.state.model = "slices"  # for MR
    assert shown(a_ct) == before
    a_workflow.state.model = a_ct_model
    assert shown(a_ct) == (-150, 250)


def test_a_window_that_a_person_chose_stays(a_workflow: Workflow, a_ct: Any, a_ct_model: str) -> None:
    a_ct.GetDisplayNode().SetAutoWindowLevel(False)
    a_ct.GetDisplayNode().SetWindowLevelMinMax(-20, 100)
    a_workflow.state.volume, a_workflow.state.model = a_ct, a_ct_model
    assert shown(a_ct) == (-20, 100)


def test_it_is_set_once_and_not_with_every_other_change(a_workflow: Workflow, a_ct: Any, a_ct_model: str) -> None:
    a_workflow.state.volume, a_workflow.state.model = a_ct, a_ct_model
    a_ct.GetDisplayNode().SetAutoWindowLevel(True)
    before = shown(a_ct)
    a_workflow.state.who = "Dr. Ö"
    assert a_ct.GetDisplayNode().GetAutoWindowLevel() and shown(a_ct) == before


def test_presets_are_offered_for_a_ct_and_what_the_model_sees_with_them(
    a_workflow: Workflow, a_ct: Any, a_ct_model: str, a_volume_node: Any
) -> None:
    a_workflow.state.volume = a_ct
    assert a_workflow.windows.offered() == list(PRESETS)
    a_workflow.state.model = a_ct_model
    assert a_workflow.windows.offered() == [*PRESETS, Window(AS_MODEL, 127.5, 255.0)]
    a_workflow.windows.show(a_workflow.windows.offered()[-1])
    assert shown(a_ct) == (0, 255)
    a_workflow.state.volume = a_volume_node
    assert a_workflow.windows.offered() == []


def test_nothing_but_a_ct_gets_a_window(
    a_workflow: Workflow, a_volume_node: Any, a_ct_model: str, make_volume_node: Callable[..., Any]
) -> None:
    a_workflow.state.volume, a_workflow.state.model = a_volume_node, a_ct_model  # values of an MR: nothing below 0
    assert a_volume_node.GetDisplayNode() is None or a_volume_node.GetDisplayNode().GetAutoWindowLevel()
    colour = make_volume_node(np.full((*SHAPE, 3), 9, np.uint8), "photo", "vtkMRMLVectorVolumeNode")
    for node, what in ((a_volume_node, "MR is not known to be a CT"), (colour, "photo is not"), (None, "No volume")):
        a_workflow.state.volume = node
        with pytest.raises(InputError, match=what):
            a_workflow.windows.show(PRESETS[0])


def test_a_ct_of_which_nothing_is_told_is_known_by_its_values(
    a_workflow: Workflow, a_ct_model: str, make_volume_node: Callable[..., Any]
) -> None:
    node = make_volume_node(np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16), "torso")
    a_workflow.state.volume, a_workflow.state.model = node, a_ct_model
    assert shown(node) == (-150, 250)

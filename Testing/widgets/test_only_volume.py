"""A single volume is chosen by itself; nobody is moved off what was chosen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from panel_samples import Shown, add_volume, noise, shown_panel
from workflow_samples import a_block

SHAPE = (5, 6, 7)
PAUSE = 0.4  # seconds, more than a panel waits for more volumes


@pytest.fixture
def shown(a_slicer: Any, tmp_path: Path) -> Iterator[Shown]:
    with shown_panel(a_slicer, tmp_path) as panel:
        yield panel


def load(shown: Shown, *names: str) -> list[Any]:
    """One after the other, as by "Add data", and what comes of it."""
    nodes = [add_volume(shown.host.scene, noise() - 1000, name) for name in names]
    shown.host.settle(PAUSE)
    return nodes


def test_the_one_volume_that_is_loaded_is_chosen_with_its_model(shown: Shown) -> None:
    (node,) = load(shown, "CT")
    assert shown.workflow.state.volume is node is shown.ui.volumeSelector.currentNode()
    assert shown.workflow.state.model and shown.ui.segmentButton.enabled


def test_while_another_module_is_shown_nothing_is_chosen_and_then_it_is(shown: Shown) -> None:
    shown.panel.exit()
    (node,) = load(shown, "CT")
    assert shown.workflow.state.volume is None
    shown.panel.enter()
    assert shown.workflow.state.volume is node


def test_of_several_none_is_chosen(shown: Shown) -> None:
    load(shown, "A", "B")
    assert shown.workflow.state.volume is None and shown.ui.volumeSelector.currentNode() is None


def test_one_that_was_loaded_before_the_module_was_opened_is_chosen(a_slicer: Any, tmp_path: Path) -> None:
    node = add_volume(a_slicer.scene, noise())
    with shown_panel(a_slicer, tmp_path) as shown:
        assert shown.workflow.state.volume is node
        shown.panel.exit()
        shown.host.close_scene()
        again = add_volume(a_slicer.scene, noise())
        shown.panel.enter()
        assert shown.workflow.state.volume is again


def test_what_the_user_chose_stays_when_others_come_and_go(shown: Shown) -> None:
    (first,) = load(shown, "A")
    (second,) = load(shown, "B")
    assert shown.workflow.state.volume is first
    shown.choose(second)
    shown.host.scene.RemoveNode(first)
    shown.panel.enter()
    assert shown.workflow.state.volume is second


def test_no_volume_stays_chosen_where_the_user_chose_none(shown: Shown) -> None:
    load(shown, "A")
    shown.ui.volumeSelector.setCurrentNode(None)
    shown.panel.exit()
    shown.panel.enter()
    shown.host.settle(PAUSE)
    assert shown.workflow.state.volume is None


def test_removing_the_chosen_volume_leaves_none_chosen(shown: Shown) -> None:
    (first,) = load(shown, "A")
    load(shown, "B")
    shown.host.scene.RemoveNode(first)
    shown.host.settle(PAUSE)
    assert shown.workflow.state.volume is None


def test_label_maps_and_maps_of_ours_are_no_volumes_to_choose(shown: Shown) -> None:
    add_volume(shown.host.scene, a_block(SHAPE), "mask", "vtkMRMLLabelMapVolumeNode")
    shown.host.settle(PAUSE)
    assert shown.workflow.state.volume is None
    (node,) = load(shown, "CT")
    shown.choose(node)
    segmentation = shown.segment(a_block(SHAPE), {"uncertainty": np.full(SHAPE, 0.5, np.float32)})
    shown.workflow.reviewing.map_node(segmentation, "uncertainty")
    shown.host.scene.RemoveNode(node)
    shown.host.settle(PAUSE)
    assert shown.workflow.state.volume is None


def test_the_volume_of_a_scene_that_is_loaded_is_the_one_it_was_saved_with(shown: Shown, tmp_path: Path) -> None:
    scene, file = shown.host.scene, str(tmp_path / "scene.mrml")
    load(shown, "A", "B")
    scene.SetURL(file)
    assert scene.Commit(file)
    shown.host.close_scene()
    scene.SetURL(file)
    scene.Connect()
    shown.host.settle(PAUSE)
    assert shown.workflow.state.volume is None

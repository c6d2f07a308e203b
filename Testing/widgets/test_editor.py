"""The Segment Editor within the panel: what it is given, in which order, and that Slicer's log stays empty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from panel_samples import Shown, add_volume, noise, shown_panel
from workflow_samples import a_block

SHAPE = (5, 6, 7)


@pytest.fixture
def shown(a_slicer: Any, tmp_path: Path) -> Iterator[Shown]:
    with shown_panel(a_slicer, tmp_path) as panel:
        yield panel


def test_the_editor_of_the_stand_in_complains_of_a_volume_without_a_segmentation(shown: Shown) -> None:
    shown.ui.segmentEditor.setSourceVolumeNode(add_volume(shown.host.scene, noise()))
    assert shown.ui.segmentEditor.sourceVolumeNode() is None
    assert "need to set segment editor and segmentation nodes first" in shown.host.log.pop()


def test_the_editor_has_no_volume_while_there_is_no_segmentation_and_then_the_chosen_one(shown: Shown) -> None:
    editor = shown.ui.segmentEditor
    volume = shown.choose(add_volume(shown.host.scene, noise()))
    assert editor.sourceVolumeNode() is None and not editor.enabled
    node = shown.segment(a_block(SHAPE))
    assert (editor.segmentationNode(), editor.sourceVolumeNode(), editor.enabled) == (node, volume, True)
    shown.workflow.state.segmentation = None
    assert (editor.segmentationNode(), editor.sourceVolumeNode(), editor.enabled) == (None, None, False)


def test_the_log_stays_empty_from_opening_over_segmenting_and_closing_to_loading(shown: Shown, tmp_path: Path) -> None:
    scene, file = shown.host.scene, str(tmp_path / "scene.mrml")
    first, other = (add_volume(scene, noise(), name) for name in ("A", "B"))
    shown.choose(first)
    node = shown.segment(a_block(SHAPE))
    shown.workflow.state.volume = other
    shown.segment(a_block(SHAPE))
    scene.RemoveNode(node)
    scene.RemoveNode(other)
    scene.SetURL(file)
    assert scene.Commit(file)
    shown.host.close_scene()
    scene.SetURL(file)
    scene.Connect()
    shown.host.settle()
    assert shown.host.log == []

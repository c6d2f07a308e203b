"""The difference of two proposals, over the image."""

from __future__ import annotations

from typing import Any

import numpy as np
from apformer.part import Part
from APFormerSlicerLib.scene import new_segmentation, to_label_map
from APFormerSlicerLib.scene.difference import (
    LABELS,
    difference,
    difference_of,
    remove_difference,
    show_difference,
    write_difference,
)
from headless import VolumeMaker

BEFORE = np.zeros((3, 4, 5), np.uint8)
BEFORE[1, 1:3, 1] = 1
AFTER = np.zeros((3, 4, 5), np.uint8)
AFTER[1, 1, 1], AFTER[2, 3, 4], AFTER[1, 1, 2] = 2, 1, 1


def test_what_came_or_became_another_is_added_and_what_went_is_removed() -> None:
    found = difference(Part.of(BEFORE), Part.of(AFTER))
    expected = np.zeros_like(BEFORE)
    expected[1, 1, 1] = expected[2, 3, 4] = expected[1, 1, 2] = 1
    expected[1, 2, 1] = 2
    assert np.array_equal(found.whole(), expected)


def test_nothing_may_have_changed_or_all_have_gone() -> None:
    assert difference(Part.of(BEFORE), Part.of(BEFORE)).array.size == 0
    gone = difference(Part.of(BEFORE), Part.of(np.zeros_like(BEFORE))).whole()
    assert np.array_equal(gone == 2, BEFORE > 0)


def test_it_can_be_seen_and_hidden_but_not_chosen_or_saved(make_volume_node: VolumeMaker) -> None:
    volume = make_volume_node(np.ones(BEFORE.shape, np.int16))
    node = new_segmentation(volume)
    shown = write_difference(node, volume, difference(Part.of(BEFORE), Part.of(AFTER)))
    assert (to_label_map(shown, volume, LABELS).array == 1).sum() == 3
    assert shown.GetHideFromEditors() and not shown.GetSaveWithScene() and difference_of(node) is shown
    show_difference(node, False)
    assert not shown.GetDisplayNode().GetVisibility()
    again = write_difference(node, volume, difference(Part.of(AFTER), Part.of(BEFORE)))
    assert shown.GetScene() is None and difference_of(node) is again
    remove_difference(node)
    assert difference_of(node) is None and again.GetScene() is None


def test_a_node_that_took_its_id_in_a_loaded_scene_is_left_alone(make_volume_node: VolumeMaker) -> None:
    volume: Any = make_volume_node(np.ones(BEFORE.shape, np.int16))
    node, another = new_segmentation(volume), new_segmentation(volume)
    node.SetNodeReferenceID("APFormer.Difference", another.GetID())
    remove_difference(node)
    assert another.GetScene() is volume.GetScene() and difference_of(node) is None

"""Frames over time are read one by one, and each keeps a segmentation of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import slicer
from apformer.errors import InputError
from apformer.volume import Volume
from APFormerSlicerLib.scene import Frames, Result, frames_of, to_label_map, to_volume, write_result
from headless import Host, VolumeMaker


@pytest.fixture
def a_cine(a_host: Host, make_volume_node: VolumeMaker, an_image: Volume) -> Frames:
    """Three frames of `an_image`, each 1000 higher than the one before, at 0, 40 and 80 ms; frame 0 is shown."""
    sequence = a_host.scene.AddNewNodeByClass("vtkMRMLSequenceNode", "Cine")
    sequence.SetIndexName("time")
    sequence.SetIndexUnit("ms")
    for number in range(3):
        frame = make_volume_node((an_image.array + 1000 * number).astype(np.int16), an_image.ijk_to_ras)
        sequence.SetDataNodeAtValue(frame, str(40 * number))
        a_host.scene.RemoveNode(frame)
    browser = a_host.scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "Browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    a_host.sequences.UpdateProxyNodesFromSequences(browser)
    frames = frames_of(browser.GetProxyNode(sequence))
    assert frames is not None
    return frames


def go_to(host: Host, cine: Frames, number: int) -> None:
    cine.browser.SetSelectedItemNumber(number)
    host.sequences.UpdateProxyNodesFromSequences(cine.browser)


def test_the_frame_that_is_shown_is_an_ordinary_volume(a_host: Host, a_cine: Frames, an_image: Volume) -> None:
    go_to(a_host, a_cine, 2)
    assert np.array_equal(to_volume(a_cine.proxy).array, an_image.array + 2000)


def test_any_frame_is_read_without_showing_it(a_cine: Frames, an_image: Volume) -> None:
    assert a_cine.count == 3
    assert np.array_equal(a_cine.read(1).array, an_image.array + 1000)
    assert np.allclose(a_cine.read(1).ijk_to_ras, an_image.ijk_to_ras, rtol=0, atol=1e-12)
    assert a_cine.browser.GetSelectedItemNumber() == 0


def test_frames_lie_where_the_shown_one_is(a_cine: Frames, a_transform: Any) -> None:
    a_cine.proxy.SetAndObserveTransformNodeID(a_transform.GetID())
    assert np.array_equal(a_cine.read(2).ijk_to_ras, to_volume(a_cine.proxy).ijk_to_ras)


def test_each_frame_keeps_its_own_segmentation(a_host: Host, a_cine: Frames, a_result: Result) -> None:
    node = None
    for number in range(3):
        array = np.zeros_like(a_result.array)
        array[number, 0, 0] = 1
        node = write_result(a_cine.proxy, Result(array, a_result.labels, a_result.provenance), node).segmentation_node
        kept = a_cine.keep(number, node)
    assert node is not None
    assert kept.GetNumberOfDataNodes() == 3
    assert (kept.GetIndexName(), kept.GetIndexUnit(), kept.GetNthIndexValue(1)) == ("time", "ms", "40")
    for number in (1, 0, 2):
        go_to(a_host, a_cine, number)
        shown = to_label_map(node, a_cine.proxy, a_result.labels).array
        assert np.argwhere(shown).tolist() == [[number, 0, 0]]


def test_keeping_a_frame_again_replaces_it(a_host: Host, a_cine: Frames, a_result: Result) -> None:
    node = write_result(a_cine.proxy, a_result).segmentation_node
    kept = a_cine.keep(0, node)
    emptied = Result(np.zeros_like(a_result.array), a_result.labels, a_result.provenance)
    write_result(a_cine.proxy, emptied, node)
    assert a_cine.keep(0, node) is kept
    assert kept.GetNumberOfDataNodes() == 1
    go_to(a_host, a_cine, 0)
    assert not to_label_map(node, a_cine.proxy, a_result.labels).array.any()


@pytest.mark.parametrize("number", [-1, 3])
def test_a_frame_that_does_not_exist_is_refused(a_cine: Frames, a_result: Result, number: int) -> None:
    with pytest.raises(InputError, match=f"Cine has no frame {number}"):
        a_cine.read(number)
    with pytest.raises(InputError, match=f"Cine has no frame {number}"):
        a_cine.keep(number, slicer.vtkMRMLSegmentationNode())


def test_a_volume_that_stands_alone_has_no_frames(a_volume_node: Any) -> None:
    assert frames_of(a_volume_node) is None

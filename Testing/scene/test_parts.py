"""Results that come cut: written without a look at a voxel, maps that share the memory of their file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.errors import InputError
from apformer.part import Part
from APFormerSlicerLib.scene import Result, to_label_map, to_volume, write_result
from APFormerSlicerLib.scene.geometry import ijk_to_local
from APFormerSlicerLib.scene.overlays import write_overlay
from APFormerSlicerLib.scene.precious import precious
from APFormerSlicerLib.scene.status import Status, set_status
from headless import draw, matrix_of


def test_a_cut_result_is_written_as_the_whole_one_is(a_volume_node: Any, a_result: Result) -> None:
    whole = write_result(a_volume_node, a_result).segmentation_node
    part = Part.of(a_result.array)
    assert part.array.size < a_result.array.size
    node = write_result(a_volume_node, replace(a_result, array=part)).segmentation_node
    for one in (whole, node):
        assert np.array_equal(to_label_map(one, a_volume_node, a_result.labels).array, a_result.array)
    nothing = Part.of(np.zeros_like(a_result.array))
    write_result(a_volume_node, replace(a_result, array=nothing), node)
    assert not to_label_map(node, a_volume_node, a_result.labels).array.any()


@pytest.mark.parametrize("spoil", ["shape", "type"])
def test_a_cut_result_of_another_grid_or_type_is_refused(a_volume_node: Any, a_result: Result, spoil: str) -> None:
    part = Part.of(a_result.array)
    k, j, i = part.shape_kji
    larger, floats = Part(part.array, part.start_kji, (k + 1, j, i)), replace(part, array=part.array * 1.0)
    wrong = larger if spoil == "shape" else floats
    with pytest.raises(InputError):
        write_result(a_volume_node, replace(a_result, array=wrong))


def test_a_cut_map_lies_where_it_was_cut_and_shares_its_memory(
    a_volume_node: Any, a_result: Result, tmp_path: Path
) -> None:
    node = write_result(a_volume_node, a_result).segmentation_node
    whole = np.zeros(a_result.array.shape, np.float32)
    whole[1:3, 2:5, 1:4] = np.linspace(0.1, 0.9, 18).reshape(2, 3, 3)
    part = Part.of(whole)
    np.save(tmp_path / "map.npy", part.array)
    mapped = Part.at(np.asarray(np.load(tmp_path / "map.npy", mmap_mode="c")), part.place())
    overlay = write_overlay(node, a_volume_node, "uncertainty", mapped)
    shown = to_volume(overlay)
    assert np.array_equal(shown.array, part.array) and np.shares_memory(shown.array, mapped.array)
    start = part.start_kji[::-1]
    expected = ijk_to_local(a_volume_node) @ [*start, 1.0]
    assert np.allclose(ijk_to_local(overlay)[:3, 3], expected[:3])
    (tmp_path / "map.npy").unlink()
    del mapped
    assert np.array_equal(to_volume(overlay).array, part.array)  # its memory stays with the node
    empty = write_overlay(node, a_volume_node, "uncertainty", Part.of(np.zeros_like(whole)))
    assert empty is overlay and not to_volume(empty).array.any()


def test_what_a_person_made_or_accepted_is_precious_and_a_proposal_is_not(a_volume_node: Any, a_result: Result) -> None:
    node = write_result(a_volume_node, a_result).segmentation_node
    assert precious(node, a_result.labels) == {}
    segments = node.GetSegmentation()
    liver, kidney = (label.name for label in a_result.labels)
    segment = segments.GetSegment(segments.GetSegmentIdBySegmentName(liver))
    for status, names in ((Status.FLAGGED, set()), (Status.COMPLETED, {liver}), (Status.IN_PROGRESS, set())):
        set_status(segment, status)
        assert set(precious(node, a_result.labels)) == names
    segments.RemoveSegment(segments.GetSegmentIdBySegmentName(kidney))
    segments.AddEmptySegment("", kidney)
    assert precious(node, a_result.labels) == {}
    segments.RemoveSegment(segments.GetSegmentIdBySegmentName(kidney))
    draw(node, kidney, a_result.array, matrix_of(a_volume_node))
    draw(node, "other", a_result.array, matrix_of(a_volume_node))
    assert precious(node, a_result.labels) == {kidney: "made by hand"}

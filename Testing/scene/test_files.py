"""Segmentations written as .seg.nrrd come back whole, for Slicer and for the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.errors import InputError, OutputError
from apformer.files import read_segment_names, read_volume, write_labels
from apformer.volume import Volume
from APFormerSlicerLib.scene import (
    Result,
    Status,
    read_segmentation,
    set_status,
    status_of,
    to_label_map,
    to_volume,
    write_result,
    write_segmentation,
)
from APFormerSlicerLib.scene.provenance import of_segment
from APFormerSlicerLib.scene.terminology import entry_of
from headless import draw, matrix_of


def test_a_segmentation_comes_back_with_all_it_carries(
    a_scene: Any, a_volume_node: Any, a_result: Result, tmp_path: Path
) -> None:
    written = write_result(a_volume_node, a_result)
    node = written.segmentation_node
    liver = node.GetSegmentation().GetSegment(written.segment_ids["Liver"])
    set_status(liver, Status.COMPLETED)
    tumour = np.zeros_like(a_result.array)
    tumour[1, 2, 1:6] = 1  # across the liver
    draw(node, "Tumour", tumour, matrix_of(a_volume_node))
    path = tmp_path / "Befund Müller.seg.nrrd"
    write_segmentation(path, node)
    back = read_segmentation(path, a_scene)
    assert back.GetName() == "Befund Müller"
    assert np.array_equal(to_label_map(back, a_volume_node, a_result.labels).array, a_result.array)
    segmentation = back.GetSegmentation()
    assert [segmentation.GetNthSegment(number).GetName() for number in range(3)] == ["Liver", "Left kidney", "Tumour"]
    again = segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName("Liver"))
    assert np.allclose(again.GetColor(), liver.GetColor(), atol=1e-5)
    assert status_of(again) is Status.COMPLETED
    assert entry_of(again) == entry_of(liver)
    assert of_segment(again) == of_segment(liver)
    assert of_segment(again) is not None


def test_the_engine_reads_what_slicer_wrote(a_volume_node: Any, a_result: Result, tmp_path: Path) -> None:
    path = tmp_path / "result.seg.nrrd"
    write_segmentation(path, write_result(a_volume_node, a_result).segmentation_node)
    read = read_volume(path)
    volume = to_volume(a_volume_node)
    assert np.array_equal(read.array, a_result.array)
    assert np.allclose(read.ijk_to_ras, volume.ijk_to_ras, rtol=0, atol=1e-9)
    assert read_segment_names(path) == {1: "Liver", 3: "Left kidney"}


def test_slicer_reads_what_the_engine_wrote(
    a_scene: Any, a_volume_node: Any, a_result: Result, an_image: Volume, tmp_path: Path
) -> None:
    path = tmp_path / "cli.seg.nrrd"
    write_labels(path, an_image.with_array(a_result.array), a_result.labels, reference=an_image, provenance={})
    node = read_segmentation(path, a_scene)
    assert np.array_equal(to_label_map(node, a_volume_node, a_result.labels).array, a_result.array)
    segmentation = node.GetSegmentation()
    kidney = segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName("Left kidney"))
    assert status_of(kidney) is Status.IN_PROGRESS
    assert "SCT^64033007^Kidney~SCT^7771000^Left" in (entry_of(kidney) or "")


def test_writing_does_not_change_where_slicer_saves_the_node(
    a_volume_node: Any, a_result: Result, tmp_path: Path
) -> None:
    node = write_result(a_volume_node, a_result).segmentation_node
    node.AddDefaultStorageNode()
    node.GetStorageNode().SetFileName("/home/reader/mine.seg.nrrd")
    write_segmentation(tmp_path / "copy.seg.nrrd", node)
    assert node.GetStorageNode().GetFileName() == "/home/reader/mine.seg.nrrd"
    assert node.GetNumberOfStorageNodes() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["copy.seg.nrrd"]


def test_only_seg_nrrd_is_written(a_volume_node: Any, a_result: Result, tmp_path: Path) -> None:
    node = write_result(a_volume_node, a_result).segmentation_node
    with pytest.raises(OutputError, match=r"no \.seg\.nrrd file"):
        write_segmentation(tmp_path / "result.nrrd", node)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_told(a_volume_node: Any, a_result: Result, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    node = write_result(a_volume_node, a_result).segmentation_node
    with pytest.raises(OutputError):
        write_segmentation(tmp_path / "file" / "result.seg.nrrd", node)


def test_a_file_that_is_missing_or_something_else_adds_nothing_to_the_scene(a_scene: Any, tmp_path: Path) -> None:
    nodes = a_scene.GetNumberOfNodes()
    with pytest.raises(InputError, match="does not exist"):
        read_segmentation(tmp_path / "none.seg.nrrd", a_scene)
    with pytest.raises(InputError, match=r"not a \.seg\.nrrd file"):
        read_segmentation(Path(__file__), a_scene)
    assert a_scene.GetNumberOfNodes() == nodes


@pytest.mark.parametrize("keep", [20, -20])
def test_a_damaged_file_is_refused_where_slicers_reader_would_end_the_process(
    a_scene: Any, a_volume_node: Any, a_result: Result, tmp_path: Path, keep: int
) -> None:
    path = tmp_path / "cut.seg.nrrd"
    write_segmentation(path, write_result(a_volume_node, a_result).segmentation_node)
    path.write_bytes(path.read_bytes()[:keep])
    nodes = a_scene.GetNumberOfNodes()
    with pytest.raises(InputError, match=r"cut\.seg\.nrrd could not be read"):
        read_segmentation(path, a_scene)
    assert a_scene.GetNumberOfNodes() == nodes

"""Segments have the status that the Segment Editor shows."""

from __future__ import annotations

from typing import Any

import pytest
import slicer
from APFormerSlicerLib.scene import Result, Status, set_status, status_of, write_result
from APFormerSlicerLib.scene.tags import set_tag, tag


def test_a_result_is_in_progress_until_someone_reviews_it(a_volume_node: Any, a_result: Result) -> None:
    written = write_result(a_volume_node, a_result)
    segment = written.segmentation_node.GetSegmentation().GetSegment(written.segment_ids["Liver"])
    assert status_of(segment) is Status.IN_PROGRESS
    set_status(segment, Status.COMPLETED)
    assert status_of(segment) is Status.COMPLETED
    write_result(a_volume_node, a_result, written.segmentation_node)
    assert status_of(segment) is Status.IN_PROGRESS


@pytest.mark.parametrize(
    ("wanted", "name", "text"),
    [
        (Status.NOT_STARTED, "NotStarted", "notstarted"),
        (Status.IN_PROGRESS, "InProgress", "inprogress"),
        (Status.COMPLETED, "Completed", "completed"),
        (Status.FLAGGED, "Flagged", "flagged"),
    ],
)
def test_a_status_is_slicers_own(wanted: Status, name: str, text: str) -> None:
    assert getattr(slicer.vtkSlicerSegmentationsModuleLogic, name) == wanted
    segment = slicer.vtkSegment()
    set_status(segment, Status.FLAGGED)
    set_status(segment, wanted)
    assert status_of(segment) is wanted
    assert tag(segment, "Segmentation.Status") == text


def test_a_segment_without_a_known_status_is_not_started() -> None:
    segment = slicer.vtkSegment()
    assert status_of(segment) is Status.NOT_STARTED
    set_tag(segment, "Segmentation.Status", "approved")
    assert status_of(segment) is Status.NOT_STARTED

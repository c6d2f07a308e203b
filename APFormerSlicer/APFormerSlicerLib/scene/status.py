"""How far a person is with a segment, as the Segment Editor shows it."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import slicer


class Status(IntEnum):
    """vtkSlicerSegmentationsModuleLogic::SegmentStatus."""

    NOT_STARTED = 0
    IN_PROGRESS = 1
    COMPLETED = 2
    FLAGGED = 3


def status_of(segment: Any) -> Status:
    """The segment's status; a status that Slicer does not know counts as not started."""
    number = slicer.vtkSlicerSegmentationsModuleLogic.GetSegmentStatus(segment)
    return Status(number) if number in tuple(Status) else Status.NOT_STARTED


def set_status(segment: Any, wanted: Status) -> None:
    slicer.vtkSlicerSegmentationsModuleLogic.SetSegmentStatus(segment, int(wanted))

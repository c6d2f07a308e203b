"""What a user does: segment, review, collect, fine-tune, adopt, roll back. Any host can drive it; there is no Qt here.

A host makes a `Workflow` on its scene with a `Worker`, connects to plain Python signals, and shows what it is told. All
calls and all signals are on the main thread. What cannot be done raises an error with what, meaning and remedy; `check`
functions answer (ok, reason) instead.
"""

from .batch import Batch, every_frame
from .cards import Card
from .changes import Changed
from .collecting import OTHERS, Added, CaseRow
from .comparison import Comparison, LabelRow
from .corrected import Corrected
from .folder import FolderBatch
from .following import Following
from .headless import HeadlessWorker
from .hosts import Worker
from .inputs import Choice, PreciousError, regions, segmentable
from .jobs import Job
from .logic import Workflow
from .parcel import NOT_OUTLINED, NOT_THERE
from .places import Place
from .placing import Segmented
from .preview import Followed
from .reviewing import SegmentRow
from .runs import Run
from .segmenting import Estimate
from .signals import Signal
from .state import State
from .suggestion import Suggestion, best
from .training import Trained, Training
from .tuning import Choices
from .versions import VersionRow
from .volume_rows import VolumeRow, collect_rows, to_table, write_csv
from .wording import sentence
from .work_item import WorkItem
from .work_volumes import collect_volumes
from .worklist import WorkList

__all__ = [
    "NOT_OUTLINED",
    "NOT_THERE",
    "OTHERS",
    "Added",
    "Batch",
    "Card",
    "CaseRow",
    "Changed",
    "Choice",
    "Choices",
    "Comparison",
    "Corrected",
    "Estimate",
    "FolderBatch",
    "Followed",
    "Following",
    "HeadlessWorker",
    "Job",
    "LabelRow",
    "Place",
    "PreciousError",
    "Run",
    "SegmentRow",
    "Segmented",
    "Signal",
    "State",
    "Suggestion",
    "Trained",
    "Training",
    "VersionRow",
    "VolumeRow",
    "WorkItem",
    "WorkList",
    "Worker",
    "Workflow",
    "best",
    "collect_rows",
    "collect_volumes",
    "every_frame",
    "regions",
    "segmentable",
    "sentence",
    "to_table",
    "write_csv",
]

"""A site's own labelled cases: kept, corrected, checked and divided for training; without a patient's name."""

from .case import COMPLETED, FLAGGED, IN_PROGRESS, STATUSES, Revision, SiteCase
from .checks import check_dataset
from .export import export_decathlon
from .imports import ImportReport, import_cases, read_decathlon, read_pairs
from .problem import BLOCKS, LOOK, Problem
from .split import Split
from .store import DuplicateCaseError, SiteDataset

__all__ = [
    "BLOCKS",
    "COMPLETED",
    "FLAGGED",
    "IN_PROGRESS",
    "LOOK",
    "STATUSES",
    "DuplicateCaseError",
    "ImportReport",
    "Problem",
    "Revision",
    "SiteCase",
    "SiteDataset",
    "Split",
    "check_dataset",
    "export_decathlon",
    "import_cases",
    "read_decathlon",
    "read_pairs",
]

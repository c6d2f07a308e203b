"""`check`: what would spoil a training on a site's data set, every file compared with its hash. Fields: dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..messages import Fields

if TYPE_CHECKING:
    from ..job import Job


def parse(fields: Fields) -> Path:
    """The folder of the data set."""
    return fields.path("dataset")


def run(job: Job) -> dict[str, Any]:
    from ...datasets import SiteDataset, check_dataset

    def tell(done: int, total: int) -> None:
        job.progress(done / total, f"reading case {done} of {total}")

    job.progress(0.0, "reading the cases")
    problems = check_dataset(SiteDataset.open(job.arguments), progress=tell)
    return {"problems": [problem.as_dict() for problem in problems]}

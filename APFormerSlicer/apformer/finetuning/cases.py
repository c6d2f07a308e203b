"""A site's cases as the training reads them: labels in the new model's values, corrections found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import files
from ..datasets import SiteCase
from ..errors import APFormerError
from ..training.cases import CORRECTED, UNKNOWN, Case, Labelled
from .labels import LabelPlan, relabelled

REVISION_LETTERS = 12


def as_case(site: SiteCase, plan: LabelPlan) -> Case:
    """The case for training; its labels' hash tells its revisions apart."""
    assert site.labels_path is not None and site.revision is not None  # completed cases have
    return Case(
        site.name,
        site.patient,
        site.number,
        site.image_path,
        site.labels_path,
        site.revision.sha256[:REVISION_LETTERS],
        tuple(plan.site_values.items()),
        site.revision.labelled,
    )


def _has_unknown(site: SiteCase, plan: LabelPlan) -> bool:
    return plan.unknown is not None and site.revision is not None and plan.unknown in site.revision.counts


@dataclass(frozen=True)
class SiteReader:
    """Reads cases of a site.

    Args:
        sites: the cases, by name.
        plan: what their label values become.
        marked: whether voxels that were corrected, or that nobody knows, are told; of all cases or of none, since
            batches are made of them.
    """

    sites: dict[str, SiteCase]
    plan: LabelPlan
    marked: bool

    @classmethod
    def of(cls, sites: Sequence[SiteCase], plan: LabelPlan) -> SiteReader:
        marked = any(site.proposal or _has_unknown(site, plan) for site in sites)
        return cls({site.name: site for site in sites}, plan, marked)

    def __call__(self, case: Case) -> Labelled:
        """See `training.cases.read_case`; labels have the new model's values.

        Raises:
            InputError: a file cannot be read.
        """
        image, label = files.read_volume(case.image), files.read_volume(case.label)
        ours = label.with_array(relabelled(label.array, self.plan.site_values))
        return Labelled(image, ours, self._marks(case, label.array, ours.array) if self.marked else None)

    def _marks(self, case: Case, theirs: np.ndarray, ours: np.ndarray) -> np.ndarray:
        marks = np.where(self._corrected(case, ours), np.uint8(CORRECTED), np.uint8(0))
        if self.plan.unknown is not None:
            marks[theirs == self.plan.unknown] = UNKNOWN
        return marks

    def _corrected(self, case: Case, ours: np.ndarray) -> np.ndarray:
        """Where the labels differ from what a model proposed; nowhere when nothing is known of a proposal."""
        site = self.sites[case.name]
        if site.proposal is None:
            return np.zeros(ours.shape, bool)
        try:
            proposed = files.read_volume(site.revision_path(site.proposal)).array
        except APFormerError:  # only a weight hangs on it: the case itself is sound
            return np.zeros(ours.shape, bool)
        proposed = relabelled(proposed, self.plan.site_values)
        return proposed != ours if proposed.shape == ours.shape else np.zeros(ours.shape, bool)

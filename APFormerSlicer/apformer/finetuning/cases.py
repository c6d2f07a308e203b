"""A site's cases as the training reads them: labels in the new model's values, corrections found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import files
from ..datasets import SiteCase
from ..errors import APFormerError
from ..training.cases import Case, Labelled
from .labels import LabelPlan, relabelled

REVISION_LETTERS = 12


def as_case(site: SiteCase) -> Case:
    """The case for training; its labels' hash tells its revisions apart."""
    assert site.labels_path is not None and site.revision is not None  # completed cases have
    revision = site.revision.sha256[:REVISION_LETTERS]
    return Case(site.name, site.patient, site.number, site.image_path, site.labels_path, revision)


@dataclass(frozen=True)
class SiteReader:
    """Reads cases of a site.

    Args:
        sites: the cases, by name.
        plan: what their label values become.
        weighted: whether corrected voxels are told; all cases or none, since batches are made of them.
    """

    sites: dict[str, SiteCase]
    plan: LabelPlan
    weighted: bool

    @classmethod
    def of(cls, sites: Sequence[SiteCase], plan: LabelPlan) -> SiteReader:
        return cls({site.name: site for site in sites}, plan, any(site.proposal for site in sites))

    def __call__(self, case: Case) -> Labelled:
        """See `training.cases.read_case`; labels have the new model's values.

        Raises:
            InputError: a file cannot be read.
        """
        image, label = files.read_volume(case.image), files.read_volume(case.label)
        ours = label.with_array(relabelled(label.array, self.plan.site_values))
        return Labelled(image, ours, self._corrected(case, ours.array) if self.weighted else None)

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

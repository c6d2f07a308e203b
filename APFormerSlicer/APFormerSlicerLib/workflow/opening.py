"""A case of the data set as nodes of the scene, to be looked at and corrected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from apformer.bundles import Label
from apformer.part import Part
from apformer.volume import Volume

from ..scene import Status, new_segmentation, set_status
from ..scene.loading import image_data, new_volume_node
from ..scene.segments import check_values, write_segments
from ..scene.terminology import context_name, set_entry

if TYPE_CHECKING:
    from apformer.datasets import SiteCase

_CASE, _SITE = "APFormer.Case", "APFormer.Site"  # attributes of the image's node


@dataclass(frozen=True)
class ReadCase:
    """A case's files, read, unpacked and checked: all that looks at voxels. Made in any thread.

    Attributes:
        table: the structures that were outlined, whether they occur or not, and what nobody knows, where there is any.
        image_data: the image's voxels for its node. labels: those that are not 0, uint8.
    """

    case: SiteCase
    table: Sequence[Label]
    image: Volume
    image_data: Any
    labels: Part

    @staticmethod
    def of(case: SiteCase, table: Sequence[Label]) -> ReadCase:
        """Raises InputError when a file cannot be read, or has labels that are not in the table."""
        from apformer.files import read_volume

        image = read_volume(case.image_path)
        labels = np.zeros(image.spatial_shape, np.uint8)
        if case.labels_path is not None:
            labels = read_volume(case.labels_path).array
            table = _outlined(case, table)
            check_values(labels, table)
            labels = labels.astype(np.uint8, copy=False)
        return ReadCase(case, table, image, image_data(image), Part.of(labels))

    def place(self, scene: Any) -> tuple[Any, Any]:
        """A volume node with the image, and a segmentation with the labels that count, all of the table here."""
        from apformer.datasets import COMPLETED, FLAGGED

        case = self.case
        volume_node = new_volume_node(scene, self.image, case.name, self.image_data)
        volume_node.SetAttribute(_CASE, case.name)
        volume_node.SetAttribute(_SITE, str(case.root))
        segmentation_node = new_segmentation(volume_node)
        status = {COMPLETED: Status.COMPLETED, FLAGGED: Status.FLAGGED}.get(case.status, Status.IN_PROGRESS)

        def describe(segment: Any, label: Label) -> None:
            set_entry(segment, label, context_name("site"))
            set_status(segment, status)

        write_segments(segmentation_node, volume_node, self.labels, self.table, describe)
        return volume_node, segmentation_node


def _outlined(case: SiteCase, table: Sequence[Label]) -> list[Label]:
    from apformer.datasets.table import with_unknown

    revision = case.revision
    if revision is None:
        return list(table)
    outlined = [label for label in table if revision.outlines(label.value)]
    return outlined + [label for label in with_unknown(table)[len(table) :] if label.value in revision.counts]


def opened_case(volume_node: Any, root: Path) -> str | None:
    """The name of the case of the data set in `root` that the node was opened from; None when it was not."""
    return volume_node.GetAttribute(_CASE) if volume_node.GetAttribute(_SITE) == str(root) else None

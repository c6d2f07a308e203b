"""A case of the data set as nodes of the scene, to be looked at and corrected."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from apformer.bundles import Label

from ..scene import Status, new_segmentation, set_status
from ..scene.loading import new_volume_node
from ..scene.segments import write_segments
from ..scene.terminology import context_name, set_entry

if TYPE_CHECKING:
    from apformer.datasets import SiteCase

_CASE, _SITE = "APFormer.Case", "APFormer.Site"  # attributes of the image's node


def open_case(scene: Any, case: SiteCase, table: Sequence[Label]) -> tuple[Any, Any]:
    """A volume node with the image, and a segmentation with the labels that count: a segment for each structure of the
    table that was outlined, whether it occurs or not, and one for voxels that nobody knows, where there are any.

    Raises:
        InputError: a file cannot be read.
    """
    from apformer.datasets import COMPLETED, FLAGGED
    from apformer.files import read_volume

    image = read_volume(case.image_path)
    labels = None if case.labels_path is None else read_volume(case.labels_path)
    volume_node = new_volume_node(scene, image, case.name)
    volume_node.SetAttribute(_CASE, case.name)
    volume_node.SetAttribute(_SITE, str(case.root))
    segmentation_node = new_segmentation(volume_node)
    status = {COMPLETED: Status.COMPLETED, FLAGGED: Status.FLAGGED}.get(case.status, Status.IN_PROGRESS)

    def describe(segment: Any, label: Label) -> None:
        set_entry(segment, label, context_name("site"))
        set_status(segment, status)

    array = np.zeros(image.spatial_shape, np.uint8) if labels is None else labels.array
    write_segments(segmentation_node, volume_node, array, _outlined(case, table), describe)
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

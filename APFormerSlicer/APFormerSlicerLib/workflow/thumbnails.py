"""A case of the data set as a small picture: the slice with most of the labels, in their colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from apformer.bundles import Label
from apformer.volume import Volume

if TYPE_CHECKING:
    from apformer.datasets import SiteCase

SIDE = 48  # pixels
LARGEST_BYTES = 8 << 20  # of an image file: larger ones take seconds to read, and the window would stand still
_OPACITY = 0.5  # of the labels


def thumbnail(case: SiteCase, table: Sequence[Label]) -> np.ndarray | None:
    """uint8 (rows, columns, 3) with at most `SIDE` of either; None for an image too large to be read in passing.

    Raises:
        InputError: a file cannot be read. OSError: it is gone.
    """
    from apformer.files import read_volume

    if case.image_path.stat().st_size > LARGEST_BYTES:
        return None
    image = read_volume(case.image_path)
    labels = image.with_array(np.zeros(image.spatial_shape, np.uint8))
    if case.labels_path is not None:
        labels = read_volume(case.labels_path)
    return picture(image, labels, table)


def picture(image: Volume, labels: Volume, table: Sequence[Label]) -> np.ndarray:
    """The same of an image, (k, j, i) or (C, k, j, i), and its labels, (k, j, i)."""
    if image.source.kind != "picture":
        image, labels = image.oriented("LPS"), labels.oriented("LPS")
    counts = np.count_nonzero(labels.array, axis=(1, 2))
    k = int(np.argmax(counts)) if counts.any() else labels.array.shape[0] // 2
    plane = labels.array.shape[1:]
    share = min(1.0, SIDE / max(plane))
    shown_kji = (k, *np.ix_(*(np.linspace(0, n - 1, max(1, round(n * share))).round().astype(int) for n in plane)))
    channels = image.array.reshape(-1, *image.spatial_shape)
    shown = channels[:3] if len(channels) == 3 else channels[:1]
    gray = np.stack([_scaled(channel[shown_kji]) for channel in shown], axis=-1)
    colours = np.broadcast_to(gray, (*gray.shape[:2], 3)).copy()
    for label in table:
        inside = labels.array[shown_kji] == label.value
        colours[inside] = (1 - _OPACITY) * colours[inside] + _OPACITY * np.array(label.color)
    return np.ascontiguousarray(colours.round().astype(np.uint8))


def _scaled(values: np.ndarray) -> np.ndarray:
    """0 to 255, from the 1st to the 99th percentile."""
    low, high = (float(edge) for edge in np.percentile(values, (1, 99)))
    return np.clip((values.astype(np.float64) - low) / max(high - low, 1e-9), 0.0, 1.0) * 255.0

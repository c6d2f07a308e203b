"""Before an image is segmented: where that would run, what memory and time it needs, and a yes or no with the reason.

What is not known is measured on a sample: a piece of the very image, or of what a `Glimpse` knows of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..checks import PART
from ..inference.devices import describe, free_memory
from ..inference.doubt import prunes
from ..inference.fitness import check_fit
from ..inference.predictors import WHOLE_UP_TO, window_slices
from ..inference.preprocess import model_axes, model_size
from ..volume import Roi, Source, Volume
from .footprint import measure
from .glimpse import Glimpse
from .priority import slowed
from .verdict import SLOWEST, Free, Verdict, free_places, needed_places

if TYPE_CHECKING:
    from ..bundles import Bundle, Preprocessing
    from ..inference import Segmenter

SAMPLE_SLICES = 4  # of a 2D model: as many as the CPU takes at once
_FLOAT = 4  # bytes


def estimate_segment(
    segmenter: Segmenter,
    look: Callable[[], Glimpse],
    roi: str | None,
    *,
    check: Callable[[], None] = lambda: None,
    free: Free = free_memory,
) -> Verdict:
    """What segmenting would take, from a piece of the image as large as one tile, or of a few slices.

    Args:
        look: reads the image, or what is known of it; it is timed.
        roi: as in a `segment` request.
        check: called between the runs of the sample.
        free: bytes that are free on a device.

    Raises:
        InputError: the image cannot be read or segmented.
    """
    device, bundle = segmenter.device, segmenter.bundle
    free_bytes = free_places(device, free)  # before the image is there: the job will have to hold it too
    started = time.perf_counter()
    glimpse = look()
    reading = time.perf_counter() - started
    box = None if roi is None else Roi.parse(roi, glimpse.grid)
    warnings = check_fit(glimpse.seen(box), bundle, glimpse.seen(None))
    working = glimpse.grid if box is None else glimpse.grid.cropped(box)
    sample, samples = sample_of(glimpse, box, bundle)

    def work() -> None:
        check()
        segmenter.segment(sample)

    footprint = measure(work, device)
    low, high = min(footprint.seconds) * samples, max(footprint.seconds) * samples * SLOWEST
    if prunes(segmenter.network):
        high *= 2  # where pruning finds nothing, all is run again without
    image, network = volume_bytes(working, bundle.preprocessing, bundle.channels, len(bundle.labels) + 1)
    needed = needed_places(device, network + footprint.peak_bytes, image)
    counts = {"images": 1, **_counts(working, bundle)}
    return Verdict(
        describe(device),
        needed,
        free_bytes,
        (reading + low, SLOWEST * reading + high),
        counts,
        (*glimpse.grid.notes, *warnings, *slowed()),
    )


def sample_of(glimpse: Glimpse, roi: Roi | None, bundle: Bundle) -> tuple[Volume, float]:
    """A piece from the middle of the image, or of `roi`, one tile (3D) or a few whole slices (2D), and how many of it
    there are.

    A faint noise is added: a piece of an image may be of one value, which would be refused.
    """
    settings = bundle.preprocessing
    volume = glimpse.grid if roi is None else glimpse.grid.cropped(roi)
    change = model_axes(volume, settings)
    size_kji = volume.spatial_shape
    lengths = [size_kji[2 - axis] for axis in change.order]  # voxels along the model's i, j, k
    pieces = list(lengths)
    if settings.spatial_dims == 2:
        pieces[2] = min(SAMPLE_SLICES, lengths[2])
        samples = lengths[2] / pieces[2]
    else:
        model = model_size(volume, settings, change)[::-1]
        if tiles(model[::-1], settings) > 1:
            tile = [math.ceil(p * n / m) for p, n, m in zip(settings.patch_size[::-1], lengths, model, strict=True)]
            pieces = [min(n, max(2, t)) for n, t in zip(lengths, tile, strict=True)]
        samples = float(tiles(model[::-1], settings))
    start, stop = [0, 0, 0], [0, 0, 0]
    first = (0, 0, 0) if roi is None else roi.start_ijk
    for axis, length, piece in zip(change.order, lengths, pieces, strict=True):
        start[axis] = first[axis] + (length - piece) // 2
        stop[axis] = start[axis] + piece
    piece_of_it = Roi((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    array = np.asarray(glimpse.values_in(piece_of_it), np.float32)
    spread = max(float(np.ptp(array)), 1.0) * 1e-3
    noise = np.random.default_rng(0).normal(0.0, spread, array.shape).astype(np.float32)
    part = glimpse.grid.cropped(piece_of_it)
    source = part.source if part.source.kind == "picture" else Source(None, kind=PART, name=part.source.title)
    return replace(part, array=array + noise, source=source), samples


def tiles(size_kji: tuple[int, ...], settings: Preprocessing) -> int:
    """How many tiles the network is run on, for an image of that size at the model's spacing."""
    patch = settings.patch_size
    if all(n <= WHOLE_UP_TO * p for n, p in zip(size_kji, patch, strict=True)):
        return 1
    padded = tuple(max(n, p) for n, p in zip(size_kji, patch, strict=True))
    return sum(1 for _ in window_slices(padded, patch, settings.overlap))


def _counts(volume: Volume, bundle: Bundle) -> dict[str, int]:
    settings = bundle.preprocessing
    change = model_axes(volume, settings)
    size = model_size(volume, settings, change)
    slices = volume.spatial_shape[2 - change.order[2]] if settings.spatial_dims == 2 else 1
    return {"voxels": math.prod(volume.spatial_shape), "tiles": slices * tiles(size, settings)}


def volume_bytes(volume: Volume, settings: Preprocessing, channels: int, classes: int) -> tuple[int, int]:
    """Bytes that the whole volume takes: as an image with its results, and as the network's input and output."""
    stored = math.prod(volume.spatial_shape)
    image = 2 * volume.array.nbytes + 2 * stored + 2 * _FLOAT * stored  # with a copy; labels; two maps
    if settings.spatial_dims == 2:  # slices are float32 for a batch only, which the sample has shown
        return image, 0
    model = math.prod(model_size(volume, settings, model_axes(volume, settings)))
    return image, _FLOAT * (classes * (2 * model + stored) + channels * (model + stored))

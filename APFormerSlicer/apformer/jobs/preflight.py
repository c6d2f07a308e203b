"""Before a job: where it would run, what memory and time it needs, and a plain yes or no with the reason.

What is not known is measured on a sample: a piece of the very image, or one training step on noise.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from ..errors import APFormerError
from ..inference.devices import describe, free_memory
from ..inference.doubt import prunes
from ..inference.fitness import check_fit
from ..inference.predictors import WHOLE_UP_TO, window_slices
from ..inference.preprocess import model_axes, model_size
from ..volume import Roi, Volume
from .footprint import Footprint, measure

if TYPE_CHECKING:
    from ..bundles import Bundle
    from ..inference import Segmenter

SAMPLE_SLICES = 4  # of a 2D model: as many as the CPU takes at once
TRAINING_BATCH = {2: 4, 3: 1}  # images per step, by spatial dimensions
SLOWEST = 1.5  # other programs, and images that are harder than the sample
_FLOAT = 4  # bytes

Free = Callable[[torch.device], int]


@dataclass(frozen=True)
class Verdict:
    """An estimate.

    Attributes:
        device: in words.
        needed_bytes, free_bytes: by "device", and "system" where the device has memory of its own.
        seconds: lowest and highest expected, together.
        counts: what would be worked on.
        warnings: what the user should know beforehand.
    """

    device: str
    needed_bytes: dict[str, int]
    free_bytes: dict[str, int]
    seconds: tuple[float, float]
    counts: dict[str, int]
    warnings: tuple[str, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """A result's data: the estimate with "ok" and "reason"."""
        short = [name for name, needed in self.needed_bytes.items() if needed > self.free_bytes[name]]
        reason = {
            "what": f"It can run on {self.device}.",
            "meaning": f"It takes about {_seconds(self.seconds[0])} to {_seconds(self.seconds[1])}.",
            "remedy": "",
        }
        if short:
            where = f"on {self.device}" if short[0] == "device" else "in this computer's memory"
            needed, free = (_gib(by_place[short[0]]) for by_place in (self.needed_bytes, self.free_bytes))
            reason = {
                "what": f"It needs about {needed} GiB {where}, and {free} GiB are free.",
                "meaning": "It would fail, or slow the whole computer down.",
                "remedy": "Close other programs, use a region of interest, or choose another device.",
            }
        return {
            "ok": not short,
            "reason": reason,
            "device": self.device,
            "needed_bytes": self.needed_bytes,
            "free_bytes": self.free_bytes,
            "seconds": [round(seconds, 2) for seconds in self.seconds],
            "counts": self.counts,
            "warnings": list(self.warnings),
        }


def refusal(error: APFormerError) -> dict[str, Any]:
    """A result's data for what cannot run at all."""
    return {"ok": False, "reason": {"what": error.what, "meaning": error.meaning, "remedy": error.remedy}}


# -------------------------------------------------------------------- segment


def estimate_segment(
    segmenter: Segmenter,
    read: Callable[[], Volume],
    roi: str | None,
    *,
    check: Callable[[], None] = lambda: None,
    free: Free = free_memory,
) -> Verdict:
    """What segmenting would take, from a piece of the image as large as one tile, or of a few slices.

    Args:
        read: reads the image; it is timed.
        roi: as in a `segment` request.
        check: called between the runs of the sample.
        free: bytes that are free on a device.

    Raises:
        InputError: the image cannot be read or segmented.
    """
    device = segmenter.device
    free_bytes = _free_bytes(device, free)  # before the image is there: the job will have to hold it too
    started = time.perf_counter()
    volume = read()
    reading = time.perf_counter() - started
    working = volume if roi is None else volume.cropped(Roi.parse(roi, volume))
    warnings = check_fit(working, segmenter.bundle)
    sample, samples = sample_of(working, segmenter.bundle)

    def work() -> None:
        check()
        segmenter.segment(sample)

    footprint = measure(work, device)
    low, high = min(footprint.seconds) * samples, max(footprint.seconds) * samples * SLOWEST
    if prunes(segmenter.network):
        high *= 2  # where pruning finds nothing, all is run again without
    image, network = _volume_bytes(working, segmenter.bundle)
    needed = _needed(device, network + footprint.peak_bytes, image)
    counts = {"images": 1, **_counts(working, segmenter.bundle)}
    return Verdict(
        describe(device),
        needed,
        free_bytes,
        (reading + low, SLOWEST * reading + high),
        counts,
        (*volume.notes, *warnings),
    )


def sample_of(volume: Volume, bundle: Bundle) -> tuple[Volume, float]:
    """A piece from the middle of `volume`, one tile (3D) or a few whole slices (2D), and how many of it there are.

    A faint noise is added: a piece of an image may be of one value, which would be refused.
    """
    settings = bundle.preprocessing
    change = model_axes(volume, settings)
    size_kji = volume.spatial_shape
    lengths = [size_kji[2 - axis] for axis in change.order]  # voxels along the model's i, j, k
    pieces = list(lengths)
    if settings.spatial_dims == 2:
        pieces[2] = min(SAMPLE_SLICES, lengths[2])
        samples = lengths[2] / pieces[2]
    else:
        model = model_size(volume, settings, change)[::-1]
        if _windows(model[::-1], settings) > 1:
            tile = [math.ceil(p * n / m) for p, n, m in zip(settings.patch_size[::-1], lengths, model, strict=True)]
            pieces = [min(n, max(2, t)) for n, t in zip(lengths, tile, strict=True)]
        samples = float(_windows(model[::-1], settings))
    start, stop = [0, 0, 0], [0, 0, 0]
    for axis, length, piece in zip(change.order, lengths, pieces, strict=True):
        start[axis] = (length - piece) // 2
        stop[axis] = start[axis] + piece
    part = volume.cropped(Roi((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])))
    array = np.asarray(part.array, np.float32)
    spread = max(float(np.ptp(array)), 1.0) * 1e-3
    noise = np.random.default_rng(0).normal(0.0, spread, array.shape).astype(np.float32)
    return part.with_array(array + noise), samples


def _windows(size_kji: tuple[int, ...], settings: Any) -> int:
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
    return {"voxels": math.prod(volume.spatial_shape), "tiles": slices * _windows(size, settings)}


def _volume_bytes(volume: Volume, bundle: Bundle) -> tuple[int, int]:
    """Bytes that the whole volume takes: as an image with its results, and as the network's input and output."""
    settings = bundle.preprocessing
    stored = math.prod(volume.spatial_shape)
    image = 2 * volume.array.nbytes + 2 * stored + 2 * _FLOAT * stored  # with a copy; labels; two maps
    if settings.spatial_dims == 2:  # slices are float32 for a batch only, which the sample has shown
        return image, 0
    model = math.prod(model_size(volume, settings, model_axes(volume, settings)))
    classes = len(bundle.labels) + 1
    network = _FLOAT * (classes * (2 * model + stored) + bundle.channels * (model + stored))
    return image, network


# -------------------------------------------------------------------- finetune


def estimate_finetune(
    bundle: Bundle,
    device: torch.device,
    seconds: float,
    *,
    check: Callable[[], None] = lambda: None,
    free: Free = free_memory,
) -> Verdict:
    """What fine-tuning `bundle` for `seconds` would take, from training steps on noise.

    Raises:
        BundleError: the weights cannot be loaded.
    """
    free_bytes = _free_bytes(device, free)
    footprint = training_step(bundle, device, check)
    slow, fast = max(footprint.seconds), min(footprint.seconds)
    steps = {"steps_at_least": int(seconds / (slow * SLOWEST)), "steps_at_most": int(seconds / fast)}
    warnings = []
    if steps["steps_at_least"] < 1:
        warnings.append(f"One step takes up to {_seconds(slow * SLOWEST)}: give the training more time.")
    return Verdict(
        describe(device),
        _needed(device, footprint.peak_bytes, 0),
        free_bytes,
        (seconds, seconds + slow),
        {"batch": TRAINING_BATCH[bundle.preprocessing.spatial_dims], **steps},
        tuple(warnings),
    )


def training_step(bundle: Bundle, device: torch.device, check: Callable[[], None] = lambda: None) -> Footprint:
    """Forward, backward and optimiser step of the bundle's network, without pruning, on a batch of noise."""
    settings = bundle.preprocessing
    network = bundle.build_network().to(device).train()
    if prunes(network):
        network.gating = "off"  # type: ignore[assignment]
    shape = (TRAINING_BATCH[settings.spatial_dims], bundle.channels, *settings.patch_size)
    source = torch.Generator().manual_seed(0)
    image = torch.randn(shape, generator=source).to(device)
    target = torch.randint(len(bundle.labels) + 1, (shape[0], *shape[2:]), generator=source).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6)

    def work() -> None:
        check()
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(network(image).float(), target).backward()
        optimiser.step()

    return measure(work, device)


# -------------------------------------------------------------------- memory


def _free_bytes(device: torch.device, free: Free) -> dict[str, int]:
    places = {"device": free(device)}
    return places | ({"system": free(torch.device("cpu"))} if device.type == "cuda" else {})


def _needed(device: torch.device, on_device: int, in_system: int) -> dict[str, int]:
    """By place; a device that shares the system's memory needs both."""
    if device.type == "cuda":
        return {"device": on_device, "system": in_system}
    return {"device": on_device + in_system}


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f}"


def _seconds(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"

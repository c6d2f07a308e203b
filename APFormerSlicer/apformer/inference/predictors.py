"""Running a network over a volume: slice by slice, or in overlapping windows. Memory is bounded by the batch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..bundles import Bundle
from ..bundles.preprocessing import Preprocessing
from .devices import free_memory
from .doubt import run_tile
from .kept import resize_nearest
from .prediction import Prediction, Wanted
from .preprocess import IntensityScaling, resize

Advance = Callable[[float], None]

# Up to this many times the patch size the network sees the image whole (its positions stretch); beyond, in windows.
WHOLE_UP_TO = 1.25
# Peak bytes per input voxel of one image, dense APFormer in float32 with fused attention (measured on the CPU: 700 to
# 1400 at 256 x 256), and bytes per pair of tokens for the positional biases of four layers.
BYTES_PER_VOXEL = 1500
MEMORY_SHARE = 0.5  # of what is free; the host needs the rest
MOST_SLICES = {"cpu": 4, "cuda": 32, "mps": 8}
GAUSSIAN_SIGMA = 0.125  # of the window, as usual in sliding-window inference (nnU-Net)


class Output(NamedTuple):
    """What a network says about a batch of images.

    logits: (B, classes, *size) float32 on the device.
    looked: uint8 (B, *size) on the CPU, 1 in the cells of kept tokens, in any window; None unless asked for.
    pruned: bool (B,) on the CPU, images of which some tile was run with pruning.
    dense_tiles: how many tiles were run without.
    """

    logits: Tensor
    looked: Tensor | None
    pruned: Tensor
    dense_tiles: int

    def cropped(self, margins: list[tuple[int, int]]) -> Output:
        """Without `margins` before and after each spatial axis."""
        logits, looked = self.logits, self.looked
        for axis, (before, after) in enumerate(margins):
            n = logits.shape[2 + axis] - before - after
            logits = logits.narrow(2 + axis, before, n)
            looked = None if looked is None else looked.narrow(1 + axis, before, n)
        return self._replace(logits=logits, looked=looked)

    def resized(self, size: tuple[int, ...]) -> Output:
        """On another grid."""
        looked = None if self.looked is None else resize_nearest(self.looked, size)
        return self._replace(logits=resize_logits(self.logits, size), looked=looked)


class Predictor:
    """A network on a device with what its bundle says about input and output.

    Args:
        network: eval mode, on `device`.
        device: where it runs; on CUDA it runs in bfloat16 where the GPU has it.
        wanted: the maps to make besides the labels.
    """

    def __init__(self, bundle: Bundle, network: nn.Module, device: torch.device, wanted: Wanted) -> None:
        self.preprocessing: Preprocessing = bundle.preprocessing
        self.network, self.device, self.wanted = network, device, wanted
        self.largest_batch = MOST_SLICES[device.type]
        self.values = torch.tensor([0, *(label.value for label in bundle.labels)], dtype=torch.uint8)

    def run(self, images: Tensor) -> Output:
        """(B, C, *size) -> output of that size, padded inside up to the patch size."""
        size = tuple(images.shape[2:])
        margins = _margins(size, self.preprocessing.patch_size)
        images = images.to(self.device)
        if any(before or after for before, after in margins):
            images = F.pad(images, [n for margin in reversed(margins) for n in margin], mode="replicate")
        with self._precision():
            whole = _fits(size, self.preprocessing.patch_size)
            return (self._whole(images) if whole else self._windows(images)).cropped(margins)

    def _precision(self) -> AbstractContextManager[object]:
        if self.device.type == "cuda" and torch.cuda.is_bf16_supported():
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()

    def _whole(self, images: Tensor) -> Output:
        tile = run_tile(self.network, images)
        looked = tile.looked() if self.wanted.kept_tokens else None
        return Output(tile.logits.float(), looked, ~tile.dense, int(tile.dense.sum()))

    def _windows(self, images: Tensor) -> Output:
        """Overlapping windows, blended with Gaussian weights."""
        (batch, _, *size), patch = images.shape, self.preprocessing.patch_size
        weight = _gaussian(patch).to(self.device)
        total: Tensor | None = None
        weights = torch.zeros((1, 1, *size), device=self.device)
        looked = torch.zeros((batch, *size), dtype=torch.uint8) if self.wanted.kept_tokens else None
        pruned, dense_tiles = torch.zeros(batch, dtype=torch.bool), 0
        for window in window_slices(tuple(size), patch, self.preprocessing.overlap):
            where = (slice(None), slice(None), *window)
            tile = run_tile(self.network, images[where])
            part = tile.logits.float() * weight
            if total is None:
                total = torch.zeros((batch, part.shape[1], *size), device=self.device)
            total[where] += part
            weights[where] += weight
            if looked is not None:
                looked[(slice(None), *window)] |= tile.looked()  # 0 or 1: the greatest over windows
            pruned |= ~tile.dense
            dense_tiles += int(tile.dense.sum())
        assert total is not None
        return Output(total / weights, looked, pruned, dense_tiles)

    def decide(self, logits: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        """Logits (B, classes, *size) -> label values uint8 and, on request, entropy in 0..1, each (B, *size)."""
        labels = self.values[logits.argmax(1).cpu()].numpy()
        if not self.wanted.uncertainty:
            return labels, None
        log_p = F.log_softmax(logits, dim=1)
        entropy = -(log_p.exp() * log_p).sum(1) / math.log(logits.shape[1])
        return labels, entropy.clamp(0, 1).cpu().numpy()


def predict_slices(
    predictor: Predictor,
    array: np.ndarray,
    scaling: IntensityScaling,
    size: tuple[int, ...],
    advance: Advance,
    before: Prediction | None = None,
) -> Prediction:
    """A 2D model over every slice of (C, k, j, i), or only over those that are pruned in `before`, which is changed.

    Only one batch of slices is float32 at a time.
    """
    shape = array.shape[1:]
    into = before or Prediction.blank(shape, predictor.wanted)
    pixels = max(math.prod(size), math.prod(predictor.preprocessing.patch_size))
    batch = min(predictor.largest_batch, affordable_batch(predictor.device, pixels))
    ahead = np.flatnonzero(into.pruned)
    for start in range(0, ahead.size, batch):
        part = ahead[start : start + batch]
        images = scaling.apply(array[:, part]).transpose(0, 1)  # (B, C, rows, columns)
        output = predictor.run(resize(images, size)).resized(shape[1:])
        into.labels[part], entropy = predictor.decide(output.logits)
        if into.uncertainty is not None and entropy is not None:
            into.uncertainty[part] = entropy
        if into.looked is not None and output.looked is not None:
            into.looked[part] = output.looked.numpy()
        into.pruned[part] = output.pruned.numpy()
        into.dense_tiles += output.dense_tiles
        advance(min(1.0, (start + batch) / ahead.size))
    return into


def predict_volume(
    predictor: Predictor,
    array: np.ndarray,
    scaling: IntensityScaling,
    size: tuple[int, ...],
    advance: Advance,
    before: Prediction | None = None,
) -> Prediction:
    """A 3D model over (C, k, j, i); all of it again when there was a prediction `before`."""
    image = resize(scaling.apply(array)[None], size)
    advance(0.1)
    output = predictor.run(image).resized(array.shape[1:])
    advance(0.9)
    labels, entropy = predictor.decide(output.logits)
    return Prediction(
        labels=labels[0],
        uncertainty=None if entropy is None else entropy[0],
        looked=None if output.looked is None else output.looked[0].numpy(),
        pruned=np.full(array.shape[1], bool(output.pruned[0])),
        dense_tiles=output.dense_tiles + (before.dense_tiles if before else 0),
    )


def resize_logits(logits: Tensor, size: tuple[int, ...]) -> Tensor:
    """Linear interpolation of logits onto the stored grid."""
    if tuple(logits.shape[2:]) == tuple(size):
        return logits
    mode = "bilinear" if logits.ndim == 4 else "trilinear"
    return F.interpolate(logits, size=size, mode=mode, align_corners=False)


def affordable_batch(device: torch.device, pixels: int) -> int:
    """Slices of `pixels` pixels that the free memory of `device` allows at once, at least one."""
    return max(1, int(free_memory(device) * MEMORY_SHARE / (pixels * BYTES_PER_VOXEL)))


def window_slices(size: tuple[int, ...], patch: tuple[int, ...], overlap: float) -> Iterator[tuple[slice, ...]]:
    """Windows of `patch` that cover `size` (never smaller than the patch) with at least `overlap` of each other."""
    starts = []
    for n, p in zip(size, patch, strict=True):
        step = max(1, int(p * (1 - overlap)))
        count = math.ceil((n - p) / step) + 1 if n > p else 1
        starts.append([round(i * (n - p) / max(1, count - 1)) for i in range(count)])
    for corner in itertools.product(*starts):
        yield tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))


def _fits(size: tuple[int, ...], patch: tuple[int, ...]) -> bool:
    return all(n <= WHOLE_UP_TO * p for n, p in zip(size, patch, strict=True))


def _margins(size: tuple[int, ...], patch: tuple[int, ...]) -> list[tuple[int, int]]:
    """Voxels to add before and after each axis so that it reaches the patch size; centred, as in training."""
    missing = [max(0, p - n) for n, p in zip(size, patch, strict=True)]
    return [(m // 2, m - m // 2) for m in missing]


def _gaussian(patch: tuple[int, ...]) -> Tensor:
    """Weights (*patch), highest in the middle, never zero."""
    weight = torch.ones(())
    for n in patch:
        axis = torch.exp(-0.5 * ((torch.arange(n) - (n - 1) / 2) / (GAUSSIAN_SIGMA * n)) ** 2)
        weight = weight[..., None] * axis
    return weight.clamp_min(1e-3)

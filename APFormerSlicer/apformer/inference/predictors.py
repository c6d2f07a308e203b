"""Running a network over a volume: slice by slice, or in overlapping windows. Memory is bounded by the batch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..bundles import Bundle
from ..bundles.preprocessing import Preprocessing
from .devices import free_memory
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


class Predictor:
    """A network on a device with what its bundle says about input and output.

    Args:
        network: eval mode, on `device`.
        device: where it runs; on CUDA it runs in bfloat16 where the GPU has it.
    """

    def __init__(self, bundle: Bundle, network: nn.Module, device: torch.device) -> None:
        self.preprocessing: Preprocessing = bundle.preprocessing
        self.network, self.device = network, device
        self.largest_batch = MOST_SLICES[device.type]
        self.values = torch.tensor([0, *(label.value for label in bundle.labels)], dtype=torch.uint8)

    def logits(self, images: Tensor) -> Tensor:
        """(B, C, *size) -> (B, classes, *size) float32 on the device, padded inside up to the patch size."""
        size = tuple(images.shape[2:])
        margins = _margins(size, self.preprocessing.patch_size)
        images = images.to(self.device)
        if any(before or after for before, after in margins):
            images = F.pad(images, [n for margin in reversed(margins) for n in margin], mode="replicate")
        with self._precision():
            whole = _fits(size, self.preprocessing.patch_size)
            out = self.network(images).float() if whole else self._windows(images)
        for axis, ((before, _), n) in enumerate(zip(margins, size, strict=True), start=2):
            out = out.narrow(axis, before, n)
        return out

    def _precision(self) -> AbstractContextManager[object]:
        if self.device.type == "cuda" and torch.cuda.is_bf16_supported():
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()

    def _windows(self, images: Tensor) -> Tensor:
        """Overlapping windows, blended with Gaussian weights."""
        size, patch = tuple(images.shape[2:]), self.preprocessing.patch_size
        weight = _gaussian(patch).to(self.device)
        total: Tensor | None = None
        weights = torch.zeros((1, 1, *size), device=self.device)
        for window in window_slices(size, patch, self.preprocessing.overlap):
            where = (slice(None), slice(None), *window)
            part = self.network(images[where]).float() * weight
            if total is None:
                total = torch.zeros((part.shape[0], part.shape[1], *size), device=self.device)
            total[where] += part
            weights[where] += weight
        assert total is not None
        return total / weights

    def decide(self, logits: Tensor, with_uncertainty: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Logits (B, classes, *size) -> label values uint8 and, on request, entropy in 0..1, each (B, *size)."""
        labels = self.values[logits.argmax(1).cpu()].numpy()
        if not with_uncertainty:
            return labels, None
        log_p = F.log_softmax(logits, dim=1)
        entropy = -(log_p.exp() * log_p).sum(1) / math.log(logits.shape[1])
        return labels, entropy.clamp(0, 1).cpu().numpy()


def predict_slices(
    predictor: Predictor,
    array: np.ndarray,
    scaling: IntensityScaling,
    size: tuple[int, ...],
    uncertainty: bool,
    advance: Advance,
) -> tuple[np.ndarray, np.ndarray | None]:
    """A 2D model over every slice of (C, k, j, i); results are (k, j, i) on the stored grid.

    Only one batch of slices is float32 at a time.
    """
    shape = array.shape[1:]
    labels = np.zeros(shape, np.uint8)
    entropy = np.zeros(shape, np.float32) if uncertainty else None
    pixels = max(math.prod(size), math.prod(predictor.preprocessing.patch_size))
    batch = min(predictor.largest_batch, affordable_batch(predictor.device, pixels))
    for start in range(0, shape[0], batch):
        part = slice(start, min(shape[0], start + batch))
        images = scaling.apply(array[:, part]).transpose(0, 1)  # (B, C, rows, columns)
        logits = resize_logits(predictor.logits(resize(images, size)), shape[1:])
        labels[part], doubt = predictor.decide(logits, uncertainty)
        if entropy is not None and doubt is not None:
            entropy[part] = doubt
        advance(part.stop / shape[0])
    return labels, entropy


def predict_volume(
    predictor: Predictor,
    array: np.ndarray,
    scaling: IntensityScaling,
    size: tuple[int, ...],
    uncertainty: bool,
    advance: Advance,
) -> tuple[np.ndarray, np.ndarray | None]:
    """A 3D model over (C, k, j, i); results are (k, j, i) on the stored grid."""
    image = resize(scaling.apply(array)[None], size)
    advance(0.1)
    logits = resize_logits(predictor.logits(image), array.shape[1:])
    advance(0.9)
    labels, entropy = predictor.decide(logits, uncertainty)
    return labels[0], None if entropy is None else entropy[0]


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

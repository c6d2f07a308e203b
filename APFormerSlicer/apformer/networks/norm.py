"""Instance norm and leaky ReLU in one, for feature maps that lie channels last.

torch's instance norm copies a channels-last map to channels first and back, forward and backward, which takes longer
than the convolution before it. On the CPU this one works along the memory: a few passes over a (B, N, C) view.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

EPS = 1e-5
SLOPE = 0.01  # of the leaky ReLU
CHUNK = 512  # rows that are summed in the map's own precision; their sums are added in float32
SMALL = 1 << 18  # numbers: without gradients torch's is faster below, since it is one call
ROW = 256  # numbers: with shorter rows, broadcasting along them is slow


class InstanceNormAct(nn.Module):
    """leaky_relu(weight * (x - mean) / sqrt(variance + eps) + bias), mean and variance over an image's channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, *size), more than one voxel -> the same shape."""
        small = features.numel() < SMALL and not torch.is_grad_enabled()
        if features.device.type != "cpu" or small:
            normed = F.instance_norm(features, weight=self.weight, bias=self.bias, eps=EPS)
            return F.leaky_relu_(normed, SLOPE)
        out: Tensor = _NormAct.apply(features, self.weight, self.bias)
        return out


class _NormAct(torch.autograd.Function):
    """On rows (B, N, C), where N counts the voxels. Sums are (B, 1, C) and in float32, or finer where the map is."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        rows = _rows(features)
        mean = _sum(rows) / rows.shape[1]
        out = _affine(rows, None, -mean)  # centred before it is squared: no digits are lost to a large mean
        scale = (_sum(out * out) / rows.shape[1] + EPS).rsqrt()
        out = F.leaky_relu_(_affine(out, scale * weight, bias.expand_as(scale), into=out), SLOPE)
        ctx.save_for_backward(rows, out, mean, scale, weight)
        return _map(out, features)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, out, mean, scale, weight = ctx.saved_tensors
        # A leaky ReLU keeps the sign, so its output says on which side it was.
        inner = torch.ops.aten.leaky_relu_backward(_rows(gradient), out, SLOPE, True)
        total = _sum(inner)
        aligned = (_sum(inner * rows) - mean * total) * scale  # sum of gradient * normed
        towards = -weight * scale.square() * aligned / rows.shape[1]
        constant = -weight * scale * total / rows.shape[1] - towards * mean
        result = _affine(inner, weight * scale, constant, into=inner)
        result = _affine(rows, towards, result, into=result)
        return _map(result, gradient), aligned.sum((0, 1)), total.sum((0, 1))


def _rows(features: Tensor) -> Tensor:
    """(B, C, *size) -> (B, N, C), without a copy where channels lie last."""
    layout = torch.channels_last if features.ndim == 4 else torch.channels_last_3d
    return features.contiguous(memory_format=layout).flatten(2).transpose(1, 2)


def _map(rows: Tensor, like: Tensor) -> Tensor:
    """(B, N, C) -> (B, C, *size), channels last."""
    return rows.transpose(1, 2).unflatten(2, like.shape[2:])


def _sum(rows: Tensor) -> Tensor:
    """Over the voxels: (B, N, C) -> (B, 1, C). Half-precision rows are summed in chunks, which is faster."""
    if rows.dtype not in (torch.bfloat16, torch.float16):
        return rows.sum(1, keepdim=True)
    whole = rows.shape[1] // CHUNK * CHUNK
    chunks = rows[:, :whole].unflatten(1, (-1, CHUNK)).sum(2)  # (B, chunks, C)
    rest = rows[:, whole:].sum(1, keepdim=True, dtype=torch.float32)
    return chunks.sum(1, keepdim=True, dtype=torch.float32) + rest


def _affine(rows: Tensor, factor: Tensor | None, summand: Tensor, into: Tensor | None = None) -> Tensor:
    """rows * factor + summand; without a factor the sum alone. factor: (B, 1, C); summand: that, or as rows."""
    batch, count, channels = rows.shape
    beside = math.gcd(count, -(-ROW // channels)) if rows.is_contiguous() else 1  # voxels in one row of a wider view
    wide = (batch, count // beside, beside * channels)
    summand = summand.view(wide) if summand.shape == rows.shape else _beside(summand, beside, rows.dtype)
    if factor is None:
        return torch.add(rows.view(wide), summand).view(rows.shape)
    target = None if into is None else into.view(wide)
    return torch.addcmul(summand, rows.view(wide), _beside(factor, beside, rows.dtype), out=target).view(rows.shape)


def _beside(numbers: Tensor, times: int, dtype: torch.dtype) -> Tensor:
    """(B, 1, C) -> (B, 1, times * C)."""
    return numbers.to(dtype).repeat(1, 1, times)

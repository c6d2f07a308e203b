"""GRPE, the Gaussian-prior relative position embedding of APFormer (Lin et al., IEEE TMI 2023, section III-B).

The bias added to the content scores of head h between tokens i and j is

    bias_h(i, j) = RPB_h[rel(i, j)] + 0.01 * exp(-dis(i, j) / (2 s_h^2 + 1e-6))
    dis(i, j)    = sum over axes of ((p_i - p_j) / axis length)^2

RPB is a Swin-style learnable table over relative offsets; s_h is a learnable width per head. The released code bakes
one grid size into both terms. Here the table belongs to a base grid and is interpolated to any other grid, and the
Gaussian term is normalised by the grid as published, so a network accepts images of any size, in 2D and 3D.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GAUSSIAN_WEIGHT = 0.01  # released code: the prior is a nudge, far below the content scores
SIGMA_STEP = 0.1  # released code: head h starts at width 0.1 * (h + 1), so heads look at different ranges
SIGMA_EPS = 1e-6  # released code, pruned variant

CacheKey = tuple[object, ...]


def relative_index(grid: Sequence[int]) -> Tensor:
    """Flat index into a table of prod(2 g - 1) offsets, for every pair of tokens.

    Returns: int64 tensor (N, N) with N = prod(grid); entry (i, j) names the offset p_i - p_j.
    """
    axes = [torch.arange(g) for g in grid]
    positions = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)  # (dims, N)
    offsets = positions[:, :, None] - positions[:, None, :]  # (dims, N, N)
    index = torch.zeros_like(offsets[0])
    for axis, length in enumerate(grid):
        index = index * (2 * length - 1) + offsets[axis] + (length - 1)
    return index


def squared_distances(grid: Sequence[int]) -> Tensor:
    """Squared length of every offset, in the order of `relative_index`, each axis in units of the grid's length.

    Returns: float32 tensor (prod(2 g - 1),).
    """
    axes = [torch.arange(1 - g, g, dtype=torch.float32) / g for g in grid]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)  # (dims, offsets)
    return offsets.square().sum(0)


class GRPE(nn.Module):
    """Positional bias of one attention layer.

    Args:
        grid: token grid the table is learned on, (rows, columns) or (depth, rows, columns).
        heads: attention heads.
    """

    def __init__(self, grid: Sequence[int], heads: int) -> None:
        super().__init__()
        self.base_grid = tuple(int(g) for g in grid)
        self.heads = heads
        offsets = 1
        for length in self.base_grid:
            offsets *= 2 * length - 1
        self.table = nn.Parameter(torch.zeros(offsets, heads))
        # A list: `arange` on the meta device, where bundles are checked, loads all of torch._dynamo first.
        self.sigma = nn.Parameter(torch.tensor([SIGMA_STEP * head for head in range(1, heads + 1)]))
        self._geometry: tuple[CacheKey, Tensor, Tensor] | None = None
        self._bias: tuple[CacheKey, Tensor] | None = None

    def _table_on(self, grid: tuple[int, ...]) -> Tensor:
        """The table resized to the offsets of `grid`: (prod(2 g - 1), heads)."""
        if grid == self.base_grid:
            return self.table
        size = [2 * g - 1 for g in self.base_grid]
        image = self.table.t().reshape(1, self.heads, *size)
        mode = "bicubic" if len(grid) == 2 else "trilinear"
        target = [2 * g - 1 for g in grid]
        return F.interpolate(image, size=target, mode=mode, align_corners=True).reshape(self.heads, -1).t()

    def _geometry_on(self, grid: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
        """Flat relative index and squared distances, kept for the last grid: rebuilding them was a fifth of a layer."""
        key = (grid, device)
        if self._geometry is None or self._geometry[0] != key:
            with torch.inference_mode(False):  # a tensor made in inference mode could not serve training later
                index, distances = relative_index(grid).flatten(), squared_distances(grid)
                self._geometry = (key, index.to(device), distances.to(device))
        return self._geometry[1], self._geometry[2]

    def _build(self, grid: tuple[int, ...]) -> Tensor:
        """Both terms depend on the offset alone, of which there are far fewer than pairs; then every pair looks up its
        own: (1, heads, N, N). `index_select` is twice as fast as indexing, forward and backward."""
        index, distances = self._geometry_on(grid, self.table.device)
        width = 2 * self.sigma.square() + SIGMA_EPS
        gaussian = torch.exp(-distances[None] / width[:, None])  # (heads, offsets)
        bias = self._table_on(grid).t() + GAUSSIAN_WEIGHT * gaussian
        count = math.prod(grid)
        return bias.index_select(1, index).reshape(1, self.heads, count, count)

    def forward(self, grid: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Bias for tokens on `grid`: (1, heads, N, N) in `dtype`.

        Without gradients the result is cached until the grid, the device or a parameter changes (parameters are
        watched through their version counters, which every in-place update raises).
        """
        grid = tuple(int(g) for g in grid)
        if torch.is_grad_enabled() and (self.table.requires_grad or self.sigma.requires_grad):
            self._bias = None
            return self._build(grid).to(dtype)
        if self.table.is_inference():  # made in inference mode: no version counter tells of changes
            return self._build(grid).to(dtype)
        key = (grid, dtype, self.table.device, self.table._version, self.sigma._version, id(self.table), id(self.sigma))
        if self._bias is None or self._bias[0] != key:
            with torch.inference_mode(False), torch.no_grad():
                self._bias = (key, self._build(grid).to(dtype))
        return self._bias[1]

    def __getstate__(self) -> dict[str, object]:
        """Copies and pickles travel without the caches."""
        return {**self.__dict__, "_geometry": None, "_bias": None}

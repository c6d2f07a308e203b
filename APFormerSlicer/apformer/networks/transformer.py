"""The transformer of APFormer: pre-norm layers with GRPE whose tokens and keys gates can prune (Lin et al., IEEE TMI
2023, section III). Shared by the published network and our own form; how a pruned layer is computed is the `pruning`
room's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..pruning.attention import LayerCost, attend, masked_layer, ragged_layer
from ..pruning.budget import dense_macs
from ..pruning.gates import DependencyGate
from .grpe import GRPE


class LayerShape(NamedTuple):
    """Widths of one transformer layer: heads, width of a head's queries and keys, of its values, hidden FFN width."""

    heads: int
    key_dim: int
    value_dim: int
    ffn_dim: int


class LayerSetting(NamedTuple):
    """What all layers of a network have in common.

    width: of a token. grid: token grid the position tables are learned on. head_dim: scores are divided by its root.
    dropout: after the attention and the feed-forward part.
    """

    width: int
    grid: tuple[int, ...]
    head_dim: int
    dropout: float


class Attention(nn.Module):
    """Multi-head self-attention with GRPE. The inner width heads * value_dim need not equal the token width."""

    def __init__(self, setting: LayerSetting, shape: LayerShape, key_gate: bool = False) -> None:
        super().__init__()
        self.shape = shape
        self.scale = setting.head_dim**-0.5
        self.widths = (shape.heads * shape.key_dim, shape.heads * shape.key_dim, shape.heads * shape.value_dim)
        self.to_qkv = nn.Linear(setting.width, sum(self.widths), bias=False)
        self.position = GRPE(setting.grid, shape.heads)
        self.to_out = nn.Linear(self.widths[2], setting.width)
        self.dependency = DependencyGate(shape.key_dim) if key_gate else None

    def queries(self, rows: Tensor) -> Tensor:
        """(..., width) -> (..., heads, key_dim)."""
        return F.linear(rows, self.to_qkv.weight[: self.widths[0]]).unflatten(-1, (self.shape.heads, -1))

    def keys_values(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(..., width) -> (..., heads, key_dim) and (..., heads, value_dim)."""
        keys, values = F.linear(rows, self.to_qkv.weight[self.widths[0] :]).split(self.widths[1:], dim=-1)
        return keys.unflatten(-1, (self.shape.heads, -1)), values.unflatten(-1, (self.shape.heads, -1))

    def forward(self, tokens: Tensor, grid: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, N, width) -> attended (B, N, heads, value_dim), queries and keys (B, heads, N, key_dim)."""
        parts = self.to_qkv(tokens).split(self.widths, dim=-1)
        queries, keys, values = (part.unflatten(-1, (self.shape.heads, -1)).transpose(1, 2) for part in parts)
        bias = self.position(grid, queries.dtype)  # (1, heads, N, N)
        attended = attend(queries, keys, values, bias, self.scale)
        return attended.transpose(1, 2), queries, keys


class TransformerLayer(nn.Module):
    """Pre-norm attention and feed-forward part, each with a residual. Also a `pruning.attention.PrunableLayer`."""

    def __init__(self, setting: LayerSetting, shape: LayerShape, key_gate: bool = False) -> None:
        super().__init__()
        width = setting.width
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(setting, shape, key_gate)
        self.norm_ffn = nn.LayerNorm(width)
        self.ffn = nn.Sequential(
            nn.Linear(width, shape.ffn_dim),
            nn.ReLU(inplace=True),
            nn.Dropout(setting.dropout),
            nn.Linear(shape.ffn_dim, width),
            nn.Dropout(setting.dropout),
        )
        self.dropout = nn.Dropout(setting.dropout)
        self.scale = self.attention.scale
        heads, key_dim, value_dim, ffn_dim = shape
        self.cost = LayerCost(
            per_query=heads * (key_dim + value_dim) * width + 2 * width * ffn_dim,
            per_key=heads * (key_dim + value_dim) * width,
            per_pair=heads * (key_dim + value_dim),
        )

    def forward(self, tokens: Tensor, grid: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, N, width) -> the same shape, with this layer's queries and keys. Nothing is pruned."""
        attended, queries, keys = self.attention(self.norm_attention(tokens), grid)
        return self.finish(tokens, attended), queries, keys

    def queries(self, rows: Tensor) -> Tensor:
        """See `PrunableLayer`."""
        return self.attention.queries(self.norm_attention(rows))

    def keys_values(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `PrunableLayer`."""
        return self.attention.keys_values(self.norm_attention(rows))

    def finish(self, rows: Tensor, attended: Tensor) -> Tensor:
        """See `PrunableLayer`."""
        rows = rows + self.dropout(self.attention.to_out(attended.flatten(-2)))
        return rows + self.ffn(self.norm_ffn(rows))


class Transformed(NamedTuple):
    """What the layers made of a batch of tokens.

    tokens: (B, N, width). queries_keys: per layer, (B, heads, N, key_dim) each; none with hard gates, where not all of
    them are computed. kept: (B, N). macs: (B,) multiply-accumulates, with soft gates differentiable towards them.
    """

    tokens: Tensor
    queries_keys: list[tuple[Tensor, Tensor]]
    kept: Tensor
    macs: Tensor


def transform(
    layers: Iterable[nn.Module], tokens: Tensor, grid: Sequence[int], kept: Tensor | None, gating: str
) -> Transformed:
    """Tokens through the layers, pruned as `gating` says.

    Args:
        layers: `TransformerLayer`s, or what takes their place in `forward` (a search's blocks) where nothing is pruned.
        tokens: (B, N, width) on `grid`, row-major.
        kept: (B, N), 1 for tokens that are worked on; None keeps all of them.
        gating: "soft" or "hard", see `GATING`; without `kept` it does not matter.
    """
    if kept is None:
        return _dense(list(layers), tokens, grid)
    return (_soft if gating == "soft" else _hard)(prunable(layers), tokens, grid, kept)


def prunable(layers: Iterable[nn.Module]) -> list[TransformerLayer]:
    """Those that gates can prune."""
    return [layer for layer in layers if isinstance(layer, TransformerLayer)]


def _dense(layers: Sequence[nn.Module], tokens: Tensor, grid: Sequence[int]) -> Transformed:
    batch, count, _ = tokens.shape
    queries_keys = []
    for layer in layers:
        tokens, queries, keys = layer(tokens, grid)
        queries_keys.append((queries, keys))
    macs = dense_macs([layer.cost for layer in prunable(layers)], count)
    return Transformed(tokens, queries_keys, tokens.new_ones(batch, count), tokens.new_full((batch,), macs))


def _soft(layers: Sequence[TransformerLayer], tokens: Tensor, grid: Sequence[int], kept: Tensor) -> Transformed:
    alive = torch.ones_like(kept)
    macs = kept.new_zeros(kept.shape[0])
    queries_keys = []
    for layer in layers:
        gate = layer.attention.dependency
        macs = macs + layer.cost.macs(kept.sum(1), _unless_unused(alive, kept).sum(1))
        step = masked_layer(layer, tokens, kept, alive, layer.attention.position(grid), gate)
        tokens, alive = step.tokens, step.alive
        queries_keys.append((step.queries, step.keys))
    return Transformed(tokens, queries_keys, kept, macs)


def _hard(layers: Sequence[TransformerLayer], tokens: Tensor, grid: Sequence[int], kept: Tensor) -> Transformed:
    numbers = [sample.nonzero().flatten() for sample in kept]
    everything = torch.arange(tokens.shape[1], device=tokens.device)
    alive = [everything] * len(numbers)
    macs = [0.0] * len(numbers)
    for layer in layers:
        gate = layer.attention.dependency
        for sample, (queries, keys) in enumerate(zip(numbers, alive, strict=True)):
            macs[sample] += float(layer.cost.macs(queries.numel(), keys.numel() if queries.numel() else 0))
        if gate is None and all(queries.numel() == everything.numel() for queries in numbers):
            tokens, _, _ = layer(tokens, grid)  # nothing is pruned: spare the gathering
            continue
        precision = _precision(tokens) if gate is None else torch.float32  # what a gate decides is decided exactly
        bias = layer.attention.position(grid, precision)
        tokens, alive = ragged_layer(layer, tokens, numbers, alive, bias, gate)
    return Transformed(tokens, [], kept.detach(), tokens.new_tensor(macs, dtype=torch.float32))


def _precision(tokens: Tensor) -> torch.dtype:
    """In which linear layers give queries and keys."""
    kind = tokens.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tokens.dtype


def _unless_unused(alive: Tensor, kept: Tensor) -> Tensor:
    """Keys (B, N) of an image with no kept query cost nothing."""
    return alive * (kept.detach().amax(1, keepdim=True) > 0)

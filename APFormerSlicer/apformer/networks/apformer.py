"""APFormer: a hybrid CNN-transformer with adaptively pruned attention (Lin et al., IEEE TMI 2023).

A four-level U-shaped CNN whose deepest features pass through a few transformer layers with GRPE. This file holds the
dense network with the query-prune head; which tokens to drop at run time is decided by the `pruning` room.

Differences from the released code, all without effect at the published setting: any image size (positions are
interpolated, odd sizes are padded and cropped), 2D and 3D, attention through `scaled_dot_product_attention`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .grpe import GRPE

NORMS = ("batch", "instance")


@dataclass(frozen=True)
class APFormerConfig:
    """Shape of an APFormer. The defaults are the published network (256 x 256, 9 classes of Synapse).

    Args:
        spatial_dims: 2 or 3.
        in_channels, out_channels: image channels and classes, background included.
        image_size: size (rows, columns) or (depth, rows, columns) the position tables are learned on.
        channels: width of the four encoder levels; the last one is the token width.
        strides: downsampling before levels 2, 3, 4, each an int or one int per axis. The token stride is their
            product: 8 as published; an anisotropic stride such as (1, 2, 2) spares thin volumes.
        depth, heads, head_dim: transformer layers, heads, width of a head. Published: the inner width 6 x 128 = 768
            is six times the token width, where 84 % of the parameters are.
        ffn_dim: hidden width of the feed-forward part.
        dropout: after the embedding, the attention and the feed-forward part.
        norm: "batch" (published) or "instance".
        prune_head: predict, per token, whether its cell holds any foreground (258 parameters).
    """

    spatial_dims: int = 2
    in_channels: int = 1
    out_channels: int = 9
    image_size: tuple[int, ...] = (256, 256)
    channels: tuple[int, int, int, int] = (16, 32, 64, 128)
    strides: tuple[tuple[int, ...], ...] = ()
    depth: int = 4
    heads: int = 6
    head_dim: int = 128
    ffn_dim: int = 512
    dropout: float = 0.1
    norm: str = "batch"
    prune_head: bool = True

    def __post_init__(self) -> None:
        def settle(name: str, value: object) -> None:
            object.__setattr__(self, name, value)  # the dataclass is frozen; JSON and TOML bring lists

        if self.spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, not {self.spatial_dims!r}")
        for name in ("in_channels", "out_channels", "depth", "heads", "head_dim", "ffn_dim"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 4096:
                raise ValueError(f"{name} must be an integer from 1 to 4096, not {value!r}")
        if self.norm not in NORMS:
            raise ValueError(f"norm must be one of {NORMS}, not {self.norm!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), not {self.dropout!r}")
        settle("channels", tuple(int(c) for c in self.channels))
        if len(self.channels) != 4 or not all(1 <= c <= 4096 for c in self.channels):
            raise ValueError(f"channels must be four widths from 1 to 4096, not {self.channels!r}")
        raw = self.strides or (2, 2, 2)
        steps = tuple((s,) * self.spatial_dims if isinstance(s, int) else tuple(int(v) for v in s) for s in raw)
        if len(steps) != 3 or any(len(s) != self.spatial_dims or not all(v in (1, 2, 4) for v in s) for s in steps):
            raise ValueError(f"strides must be three steps of 1, 2 or 4 for {self.spatial_dims} axes, not {raw!r}")
        settle("strides", steps)
        settle("image_size", tuple(int(v) for v in self.image_size))
        if len(self.image_size) != self.spatial_dims or not all(8 <= v <= 1024 for v in self.image_size):
            raise ValueError(f"image_size must be {self.spatial_dims} sizes from 8 to 1024, not {self.image_size!r}")

    @property
    def token_stride(self) -> tuple[int, ...]:
        """Voxels per token along each axis."""
        total = [1] * self.spatial_dims
        for step in self.strides:
            total = [t * s for t, s in zip(total, step, strict=True)]
        return tuple(total)

    @property
    def base_grid(self) -> tuple[int, ...]:
        """Token grid of an image of `image_size`."""
        return tuple(-(-size // stride) for size, stride in zip(self.image_size, self.token_stride, strict=True))


class Auxiliaries(NamedTuple):
    """What the training losses need besides the logits.

    prune_logits: (B, 2, *token grid), channel 0 background and 1 any foreground in the cell; None without the head.
    queries_keys: per layer, the queries and keys (B, heads, N, head_dim) from which SSA computes content attention.
    token_stride: voxels per token along each axis.
    """

    prune_logits: Tensor | None
    queries_keys: list[tuple[Tensor, Tensor]]
    token_stride: tuple[int, ...]


def _conv(dims: int) -> type[nn.Module]:
    return nn.Conv2d if dims == 2 else nn.Conv3d


class DoubleConv(nn.Sequential):
    """(3x3 convolution without bias, norm, ReLU) twice."""

    def __init__(self, config: APFormerConfig, inputs: int, outputs: int, middle: int | None = None) -> None:
        dims, middle = config.spatial_dims, middle or outputs
        norms: dict[tuple[str, int], type[nn.Module]] = {
            ("batch", 2): nn.BatchNorm2d,
            ("batch", 3): nn.BatchNorm3d,
            ("instance", 2): nn.InstanceNorm2d,
            ("instance", 3): nn.InstanceNorm3d,
        }
        norm, conv = norms[config.norm, dims], _conv(dims)
        affine = {"affine": True}
        super().__init__(
            conv(inputs, middle, kernel_size=3, padding=1, bias=False),
            norm(middle, **affine),
            nn.ReLU(inplace=True),
            conv(middle, outputs, kernel_size=3, padding=1, bias=False),
            norm(outputs, **affine),
            nn.ReLU(inplace=True),
        )


class Attention(nn.Module):
    """Multi-head self-attention with GRPE. The inner width heads * head_dim need not equal the token width."""

    def __init__(self, config: APFormerConfig) -> None:
        super().__init__()
        width, inner = config.channels[-1], config.heads * config.head_dim
        self.heads = config.heads
        self.to_qkv = nn.Linear(width, 3 * inner, bias=False)
        self.position = GRPE(config.base_grid, config.heads)
        self.to_out = nn.Linear(inner, width)

    def forward(self, tokens: Tensor, grid: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, N, width) -> attended tokens (B, N, width), queries and keys (B, heads, N, head_dim)."""
        batch, count, _ = tokens.shape
        qkv = self.to_qkv(tokens).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        queries, keys, values = qkv.unbind(0)  # each (B, heads, N, head_dim)
        bias = self.position(grid, queries.dtype)  # (1, heads, N, N)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
        merged = attended.transpose(1, 2).reshape(batch, count, -1)  # (B, N, heads * head_dim)
        return self.to_out(merged), queries, keys


class TransformerLayer(nn.Module):
    """Pre-norm attention and feed-forward part, each with a residual."""

    def __init__(self, config: APFormerConfig) -> None:
        super().__init__()
        width = config.channels[-1]
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(config)
        self.norm_ffn = nn.LayerNorm(width)
        self.ffn = nn.Sequential(
            nn.Linear(width, config.ffn_dim),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Linear(config.ffn_dim, width),
            nn.Dropout(config.dropout),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor, grid: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, N, width) -> the same shape, with this layer's queries and keys."""
        attended, queries, keys = self.attention(self.norm_attention(tokens), grid)
        tokens = tokens + self.dropout(attended)
        return tokens + self.ffn(self.norm_ffn(tokens)), queries, keys


class UpBlock(nn.Module):
    """Upsample to the skip connection's size, concatenate, DoubleConv."""

    def __init__(self, config: APFormerConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mode = "bilinear" if config.spatial_dims == 2 else "trilinear"
        self.conv = DoubleConv(config, 2 * inputs, outputs, middle=inputs)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        deep = F.interpolate(deep, size=skip.shape[2:], mode=self.mode, align_corners=True)
        return self.conv(torch.cat([skip, deep], dim=1))


class APFormer(nn.Module):
    """The network. Arguments are those of `APFormerConfig`, as keywords.

    `forward(image)` maps (B, in_channels, *size) to logits (B, out_channels, *size) for any size; with
    `auxiliaries=True` it returns (logits, Auxiliaries) for the training losses.

    Example:
        >>> APFormer(spatial_dims=2, in_channels=1, out_channels=3)(torch.zeros(1, 1, 100, 90)).shape
        torch.Size([1, 3, 100, 90])
    """

    def __init__(self, **arguments: object) -> None:
        super().__init__()
        self.config = config = APFormerConfig(**arguments)  # type: ignore[arg-type]
        first, second, third, width = config.channels
        dims = config.spatial_dims
        conv, pool = _conv(dims), nn.MaxPool2d if dims == 2 else nn.MaxPool3d
        self.level1 = DoubleConv(config, config.in_channels, first)
        self.level2 = nn.Sequential(pool(config.strides[0]), DoubleConv(config, first, second))
        self.level3 = nn.Sequential(pool(config.strides[1]), DoubleConv(config, second, third))
        self.level4 = nn.Sequential(pool(config.strides[2]), DoubleConv(config, third, width))
        self.prune_head = conv(width, 2, kernel_size=1) if config.prune_head else None
        self.embedding = nn.Linear(width, width)
        self.embedding_dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.depth))
        self.bottleneck = conv(width, third, kernel_size=1, bias=False)
        self.up3 = UpBlock(config, third, second)
        self.up2 = UpBlock(config, second, first)
        self.up1 = UpBlock(config, first, first)
        self.head = conv(first, config.out_channels, kernel_size=1)

    def forward(self, image: Tensor, auxiliaries: bool = False) -> Tensor | tuple[Tensor, Auxiliaries]:
        """See the class."""
        size = image.shape[2:]
        image = self._pad(image)
        x1 = self.level1(image)  # (B, 16, H, W) in the published 2D setting
        x2 = self.level2(x1)  # (B, 32, H/2, W/2)
        x3 = self.level3(x2)  # (B, 64, H/4, W/4)
        x4 = self.level4(x3)  # (B, 128, H/8, W/8)
        deep, queries_keys = self._transform(x4)
        decoded = self.up1(self.up2(self.up3(self.bottleneck(deep), x3), x2), x1)
        logits = self.head(decoded)[(..., *(slice(0, n) for n in size))]
        if not auxiliaries:
            return logits
        prune_logits = None if self.prune_head is None else self.prune_head(x4)
        return logits, Auxiliaries(prune_logits, queries_keys, self.config.token_stride)

    def _transform(self, features: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Features (B, width, *grid) through the transformer layers, same shape."""
        grid = features.shape[2:]
        tokens = self.embedding_dropout(self.embedding(features.flatten(2).transpose(1, 2)))  # (B, N, width)
        queries_keys = []
        for layer in self.layers:
            tokens, queries, keys = layer(tokens, grid)
            queries_keys.append((queries, keys))
        return tokens.transpose(1, 2).reshape(features.shape), queries_keys

    def _pad(self, image: Tensor) -> Tensor:
        """Repeat the far edges until every axis is a multiple of the token stride."""
        padding: list[int] = []
        for size, stride in zip(reversed(image.shape[2:]), reversed(self.config.token_stride), strict=True):
            padding += [0, -size % stride]
        padded = [size + extra for size, extra in zip(image.shape[2:], reversed(padding[1::2]), strict=True)]
        if self.config.norm == "instance" and tuple(padded) == self.config.token_stride:
            padding[1] += self.config.token_stride[-1]  # instance norm has no statistics for a single token
        return F.pad(image, padding, mode="replicate") if any(padding) else image

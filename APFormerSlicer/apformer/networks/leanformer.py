"""LeanFormer: our own form of APFormer, made to learn in minutes and to cost what the organ is, not what the image is.

What it keeps of the published network: a U-shaped CNN whose deepest features pass through a few transformer layers with
GRPE, SSA, query gates and dependency gates (`transformer.py` is the same code). What differs, point by point, and what
was measured, is in docs/networks.md.

The way down never works at full size: it starts with a strided convolution. What full size is needed for, the detail
of edges, belongs to the way up; and with hard gates the way up is computed on the box of the kept cells alone, in
training and inference alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..pruning.attention import LayerCost
from ..pruning.auxiliaries import Auxiliaries, Coarser, Gated
from ..pruning.boxes import boxes_around, covers, cut, merged, paste
from ..pruning.gates import QueryGate
from .norm import InstanceNormAct
from .parts import checked_numbers, crop_to, pad_to_cells
from .transformer import LayerSetting, LayerShape, Transformed, TransformerLayer, prunable, transform

TAILS = ("sum", "concat")
POSITION_STD, POSITION_WAVES = 0.02, 0.5  # of the table of positions when it starts: noise, and the waves' height


@dataclass(frozen=True)
class LeanFormerConfig:
    """Shape of a LeanFormer. The defaults are for 2D images; for volumes (32, 64) and 128 wide tokens do.

    Args:
        spatial_dims: 2 or 3.
        in_channels, out_channels: image channels and classes, background included.
        image_size: size (rows, columns) or (depth, rows, columns) the position tables are learned on.
        channels: widths of the levels on the way down, and up again.
        strides: of each level, and at last of the patches that become tokens, each an int or one int per axis; all 2 by
            default. A first stride of 1 works at full size from the start, for structures of a few voxels; (1, 2, 2)
            spares a thin axis.
        detail: channels at full size, on the way up only; 0 where the first level is at full size already.
        tail: how the image and the deeper features meet at full size: "sum", before one norm, or "concat", as on the
            levels below, which takes longer.
        width: of a token. depth, heads, head_dim, ffn_dim: of the transformer.
        dropout: after the attention and the feed-forward part.
        positions: a learned table of where a token is, added to it, besides GRPE, which knows only where tokens are to
            each other.
        supervised: levels of the way up, from the second finest, that have outputs of their own in training.
        prune_head, prune_queries, prune_keys, safety_ring: as in APFormer.
        prune_decoder: with hard gates, compute the way up on the box of the kept cells.
        halo: cells around what is kept that belong to the box, beyond the safety ring.
    """

    spatial_dims: int = 2
    in_channels: int = 1
    out_channels: int = 9
    image_size: tuple[int, ...] = (256, 256)
    channels: tuple[int, ...] = (32, 64, 128)
    strides: tuple[tuple[int, ...], ...] = ()
    detail: int = 8
    tail: str = "sum"
    width: int = 192
    depth: int = 3
    heads: int = 6
    head_dim: int = 32
    ffn_dim: int = 384
    dropout: float = 0.0
    positions: bool = True
    supervised: int = 2
    prune_head: bool = True
    prune_queries: bool = False
    prune_keys: bool = False
    safety_ring: int = 1
    prune_decoder: bool = True
    halo: int = 0

    def __post_init__(self) -> None:
        if self.spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, not {self.spatial_dims!r}")
        for name in ("in_channels", "out_channels", "width", "depth", "heads", "head_dim", "ffn_dim"):
            checked_numbers(name, (getattr(self, name),), 1)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), not {self.dropout!r}")
        outputs = len(self.channels) - (self.detail == 0)  # coarser ones than the finest
        for name, most in {"detail": 4096, "supervised": outputs, "safety_ring": 8, "halo": 8}.items():
            if not isinstance(getattr(self, name), int) or not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be 0 to {most}, not {getattr(self, name)!r}")
        if self.tail not in TAILS:
            raise ValueError(f"tail must be one of {TAILS}, not {self.tail!r}")
        if not 1 <= len(self.channels) <= 6:
            raise ValueError(f"channels must be one to six widths, not {self.channels!r}")
        if self.prune_queries and not self.prune_head:
            raise ValueError("prune_queries needs the prune_head")
        if self.prune_keys and not self.prune_queries:
            raise ValueError("prune_keys needs prune_queries: a key is dropped when no kept query depends on it")
        object.__setattr__(self, "channels", checked_numbers("channels", self.channels, len(self.channels)))
        object.__setattr__(self, "strides", self._checked_strides())
        if not self.detail and max(self.strides[0]) > 1:
            raise ValueError("without detail nothing is at full size: the first of the strides must be 1")
        object.__setattr__(self, "image_size", tuple(int(v) for v in self.image_size))
        if len(self.image_size) != self.spatial_dims or not all(8 <= v <= 1024 for v in self.image_size):
            raise ValueError(f"image_size must be {self.spatial_dims} sizes from 8 to 1024, not {self.image_size!r}")

    def _checked_strides(self) -> tuple[tuple[int, ...], ...]:
        raw = self.strides or (2,) * (len(self.channels) + 1)
        steps = tuple((s,) * self.spatial_dims if isinstance(s, int) else tuple(int(v) for v in s) for s in raw)
        if len(steps) != len(self.channels) + 1:
            raise ValueError(f"strides must be one for each of {len(self.channels)} levels and one for the patches")
        if any(len(step) != self.spatial_dims or not all(v in (1, 2, 4) for v in step) for step in steps):
            raise ValueError(f"strides must be steps of 1, 2 or 4 for {self.spatial_dims} axes, not {raw!r}")
        if max(steps[-1]) == 1:
            raise ValueError("the patches, the last of the strides, must hold more than one voxel")
        return steps

    @property
    def token_stride(self) -> tuple[int, ...]:
        """Voxels per token along each axis."""
        return self.stride_of(len(self.channels))

    def stride_of(self, level: int) -> tuple[int, ...]:
        """Voxels of the image per voxel of a level's features along each axis; the last one are the tokens."""
        return tuple(math.prod(step[axis] for step in self.strides[: level + 1]) for axis in range(self.spatial_dims))

    @property
    def base_grid(self) -> tuple[int, ...]:
        """Token grid of an image of `image_size`."""
        return tuple(-(-size // stride) for size, stride in zip(self.image_size, self.token_stride, strict=True))


def _conv(dims: int) -> type[nn.Module]:
    return nn.Conv2d if dims == 2 else nn.Conv3d


def _widening(dims: int, inputs: int, outputs: int, stride: Sequence[int]) -> nn.Module:
    """A transposed convolution to `stride` times the size."""
    kind: type[nn.Module] = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
    return kind(inputs, outputs, tuple(stride), tuple(stride), bias=False)


class ConvBlock(nn.Sequential):
    """Convolution without bias, instance norm, leaky ReLU. A stride of 2 has a kernel of 5 where `wide`, else of 3."""

    def __init__(self, dims: int, inputs: int, outputs: int, stride: Sequence[int] = (), wide: bool = False) -> None:
        stride = stride or (1,) * dims
        kernel = tuple(2 * step + 1 if wide and step > 1 else 3 for step in stride)
        padding = tuple(k // 2 for k in kernel)
        conv = _conv(dims)(inputs, outputs, kernel, tuple(stride), padding, bias=False)
        super().__init__(conv, InstanceNormAct(outputs))


class Up(nn.Module):
    """Deep features to the size of the skip connection by a transposed convolution, both together through one block."""

    def __init__(self, dims: int, inputs: int, outputs: int, stride: Sequence[int]) -> None:
        super().__init__()
        self.widen = _widening(dims, inputs, outputs, stride)
        self.block = ConvBlock(dims, 2 * outputs, outputs)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        """(B, inputs, *small) and (B, outputs, *size) -> (B, outputs, *size)."""
        out: Tensor = self.block(torch.cat([skip, self.widen(deep)], dim=1))
        return out


class Edges(nn.Module):
    """Full size at little cost: deep features widened, what the image itself shows added, one norm behind both."""

    def __init__(self, dims: int, inputs: int, outputs: int, stride: Sequence[int], channels: int) -> None:
        super().__init__()
        self.widen = _widening(dims, inputs, outputs, stride)
        self.detail = _conv(dims)(channels, outputs, 3, padding=1, bias=False)
        self.norm = InstanceNormAct(outputs)

    def forward(self, deep: Tensor, image: Tensor) -> Tensor:
        """(B, inputs, *small) and (B, channels, *size) -> (B, outputs, *size)."""
        out: Tensor = self.norm(self.widen(deep).add_(self.detail(image)))
        return out


def _start_as_waves(table: Tensor) -> None:
    """Fill a table of positions (1, width, *grid) with sines and cosines along each axis, the longest first; where the
    grid can hold no more of them, with noise.

    From noise, where a token is has to be learned place by place; what waves are worth was not told apart from chance,
    see the trials in docs/networks.md.
    """
    nn.init.trunc_normal_(table, std=POSITION_STD)
    grid = table.shape[2:]
    channel = 0
    for halves in range(1, max(grid)):  # half periods across the grid
        for axis, count in enumerate(grid):
            if halves >= count or channel + 2 > table.shape[1]:
                continue
            angles = [(2 * place / (count - 1) - 1) * math.pi / 2 * halves for place in range(count)]
            shape = [-1 if other == axis else 1 for other in range(len(grid))]
            for offset, wave in enumerate((math.sin, math.cos)):
                table[0, channel + offset] = torch.tensor([POSITION_WAVES * wave(x) for x in angles]).reshape(shape)
            channel += 2


class LeanFormer(Gated, nn.Module):
    """The network. Arguments are those of `LeanFormerConfig`, as keywords.

    `forward(image)` maps (B, in_channels, *size) to logits (B, out_channels, *size) for any size; with
    `auxiliaries=True` it returns (logits, Auxiliaries), in training with the outputs of coarser levels.

    Example:
        >>> LeanFormer(spatial_dims=2, in_channels=1, out_channels=3)(torch.zeros(1, 1, 100, 90)).shape
        torch.Size([1, 3, 100, 90])

    Attributes:
        gating: see `APFormer`. With "hard" gates and `prune_decoder`, the way up sees the box of the kept cells of each
            image (its norms too); outside it, logits are the background's, see `pruning.boxes`.
        way_up: see `APFormer`.
    """

    way_up = ("up", "detail", "head", "heads")

    def __init__(self, **arguments: object) -> None:
        super().__init__()
        self.config = config = LeanFormerConfig(**arguments)  # type: ignore[arg-type]
        dims, widths = config.spatial_dims, config.channels
        conv = _conv(dims)
        self.down = nn.ModuleList()
        for level, (inputs, outputs) in enumerate(zip((config.in_channels, *widths), widths, strict=False)):
            first = ConvBlock(dims, inputs, outputs, config.strides[level], wide=level == 0)
            self.down.append(nn.Sequential(first, ConvBlock(dims, outputs, outputs)))
        stride = config.strides[-1]
        self.patches = conv(widths[-1], config.width, stride, stride)
        self.prune_head = conv(config.width, 2, 1) if config.prune_head else None
        self.query_gate = QueryGate(config.safety_ring) if config.prune_queries else None
        self.positions = nn.Parameter(torch.zeros(1, config.width, *config.base_grid)) if config.positions else None
        if self.positions is not None:
            _start_as_waves(self.positions.data)
        setting = LayerSetting(config.width, config.base_grid, config.head_dim, config.dropout)
        shape = LayerShape(config.heads, config.head_dim, config.head_dim, config.ffn_dim)
        self.layers = nn.ModuleList(TransformerLayer(setting, shape, config.prune_keys) for _ in range(config.depth))
        skips = (config.detail, *widths) if config.detail else widths
        steps = config.strides if config.detail else config.strides[1:]
        self.up = nn.ModuleList(
            Up(dims, inputs, outputs, step)
            for outputs, inputs, step in zip(skips, (*skips[1:], config.width), steps, strict=True)
        )  # finest first
        self.detail = None
        if config.detail and config.tail == "sum":
            self.up[0] = Edges(dims, skips[1], skips[0], steps[0], config.in_channels)
        elif config.detail:
            self.detail = ConvBlock(dims, config.in_channels, config.detail)
        self.head = conv(skips[0], config.out_channels, 3, padding=1)
        self.heads = nn.ModuleList(conv(width, config.out_channels, 1) for width in skips[1 : 1 + config.supervised])

    @property
    def token_stride(self) -> tuple[int, ...]:
        """Voxels per token along each axis."""
        return self.config.token_stride

    @property
    def token_width(self) -> int:
        """Numbers of a token."""
        return self.config.width

    @property
    def costs(self) -> list[LayerCost]:
        """What each transformer layer costs."""
        return [layer.cost for layer in prunable(self.layers)]

    def forward(self, image: Tensor, auxiliaries: bool = False) -> Tensor | tuple[Tensor, Auxiliaries]:
        """See the class."""
        size = image.shape[2:]
        layout = torch.channels_last if image.ndim == 4 else torch.channels_last_3d
        image = pad_to_cells(image, self.token_stride).contiguous(memory_format=layout)
        maps = [image]
        for level in self.down:
            maps.append(level(maps[-1]))  # (B, 32, H/2, W/2), (B, 64, H/4, W/4), (B, 128, H/8, W/8)
        cells = self.patches(maps[-1])  # (B, 192, H/16, W/16)
        prune_logits = None if self.prune_head is None else self.prune_head(cells)
        work = self._transform(cells, prune_logits)
        kept = work.kept.reshape(cells.shape[0], *cells.shape[2:])
        deep = work.tokens.transpose(1, 2).reshape(cells.shape)
        with_heads = auxiliaries and self.training
        logits, *coarser = self._outputs([*maps, deep], kept, with_heads)
        logits = crop_to(logits, size)
        if not auxiliaries:
            return logits
        first = 0 if self.config.detail else 1  # level of the coarser outputs
        steps = [self.config.stride_of(first + number) for number in range(len(coarser))]
        deeper = tuple(Coarser(*pair) for pair in zip(coarser, steps, strict=True))
        return logits, Auxiliaries(prune_logits, work.queries_keys, self.token_stride, kept, work.macs, deeper)

    def _transform(self, cells: Tensor, prune_logits: Tensor | None) -> Transformed:
        """Features (B, width, *grid) through the transformer layers."""
        if self.positions is not None:
            cells = cells + self._positions_on(tuple(cells.shape[2:]))
        tokens = cells.flatten(2).transpose(1, 2)  # (B, N, width)
        kept = None
        if self.query_gate is not None and prune_logits is not None and self.gating != "off":
            kept = self.query_gate(prune_logits).flatten(1)  # (B, N)
        return transform(self.layers, tokens, tuple(cells.shape[2:]), kept, self.gating)

    def _positions_on(self, grid: tuple[int, ...]) -> Tensor:
        """The table resized to a grid: (1, width, *grid)."""
        assert self.positions is not None
        if grid == self.config.base_grid:
            return self.positions
        mode = "bicubic" if len(grid) == 2 else "trilinear"
        return F.interpolate(self.positions, size=grid, mode=mode, align_corners=True)

    def _outputs(self, maps: list[Tensor], kept: Tensor, with_heads: bool) -> list[Tensor]:
        """Logits of the whole batch, finest first: on the boxes of what is kept where the gates are hard.

        Args:
            maps: the image, the levels on the way down, the tokens as features.
            kept: (B, *grid).
        """
        if not (self.config.prune_decoder and self.query_gate is not None and self.gating == "hard"):
            return self._decode(maps, with_heads)
        groups, grid = boxes_around(kept, self.config.halo), tuple(kept.shape[1:])
        if self.training:
            groups = merged(groups, grid)
        if covers(groups, kept):
            return self._decode(maps, with_heads)
        cells = [tuple(n // g for n, g in zip(m.shape[2:], grid, strict=True)) for m in maps]
        parts = zip(*(cut(m, groups, cell) for m, cell in zip(maps, cells, strict=True)), strict=True)
        decoded = [self._decode(list(each), with_heads) for each in parts]
        finest = 0 if self.config.detail else 1
        count = 1 + (len(self.heads) if with_heads else 0)
        return [
            paste(
                [outputs[number] for outputs in decoded],
                groups,
                maps[finest + number],
                self.config.out_channels,
                cells[finest + number],
            )
            for number in range(count)
        ]

    def _decode(self, maps: list[Tensor], with_heads: bool) -> list[Tensor]:
        """Logits of what `maps` show, finest first."""
        image, *skips, deep = maps
        if self.config.detail:
            skips = [image if self.detail is None else self.detail(image), *skips]
        coarser: list[Tensor] = []
        for number in reversed(range(len(self.up))):
            deep = self.up[number](deep, skips[number])
            if with_heads and 1 <= number <= len(self.heads):
                coarser.insert(0, self.heads[number - 1](deep))
        return [self.head(deep), *coarser]

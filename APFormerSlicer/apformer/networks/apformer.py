"""APFormer: a hybrid CNN-transformer with adaptively pruned attention (Lin et al., IEEE TMI 2023).

A four-level U-shaped CNN whose deepest features pass through a few transformer layers with GRPE. Tokens and keys are
pruned by gates; how gates decide and how pruned layers run is the `pruning` room's.

Differences from the released code, all without effect at the published setting: any image size (positions are
interpolated, odd sizes are padded and cropped), 2D and 3D, attention through `scaled_dot_product_attention`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..pruning.attention import LayerCost
from ..pruning.auxiliaries import Auxiliaries, Gated
from ..pruning.gates import QueryGate
from .transformer import LayerSetting, LayerShape, Transformed, TransformerLayer, prunable, transform

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
        prune_queries: skip tokens that the prune head finds no foreground in (one learnable threshold).
        prune_keys: drop keys that no kept query depends on (head_dim + 1 parameters); one flag for all layers, or one
            per layer.
        safety_ring: tokens kept around those that `prune_queries` keeps.
        layer_shapes: (heads, key_dim, value_dim, ffn_dim) of every layer, for networks from which dead heads and
            channels were removed; by default all layers are (heads, head_dim, head_dim, ffn_dim). Scores are scaled
            by the original head_dim.
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
    prune_queries: bool = False
    prune_keys: bool | tuple[bool, ...] = False
    safety_ring: int = 1
    layer_shapes: tuple[LayerShape, ...] = ()

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
        if self.prune_queries and not self.prune_head:
            raise ValueError("prune_queries needs the prune_head")
        if not isinstance(self.prune_keys, bool):
            settle("prune_keys", tuple(bool(flag) for flag in self.prune_keys))
        if len(self.key_gates) != self.depth:
            raise ValueError(f"prune_keys must be one flag, or one for each of {self.depth} layers")
        if any(self.key_gates) and not self.prune_queries:
            raise ValueError("prune_keys needs prune_queries: a key is dropped when no kept query depends on it")
        if not isinstance(self.safety_ring, int) or not 0 <= self.safety_ring <= 8:
            raise ValueError(f"safety_ring must be 0 to 8 tokens, not {self.safety_ring!r}")
        self._settle_layer_shapes(settle)
        settle("image_size", tuple(int(v) for v in self.image_size))
        if len(self.image_size) != self.spatial_dims or not all(8 <= v <= 1024 for v in self.image_size):
            raise ValueError(f"image_size must be {self.spatial_dims} sizes from 8 to 1024, not {self.image_size!r}")

    def _settle_layer_shapes(self, settle: Callable[[str, object], None]) -> None:
        shapes = self.layer_shapes or [(self.heads, self.head_dim, self.head_dim, self.ffn_dim)] * self.depth
        try:
            shapes = tuple(LayerShape(*(int(v) for v in shape)) for shape in shapes)
        except (TypeError, ValueError) as error:
            raise ValueError(f"layer_shapes must hold four widths per layer, not {self.layer_shapes!r}") from error
        if len(shapes) != self.depth or not all(1 <= v <= 4096 for shape in shapes for v in shape):
            raise ValueError(f"layer_shapes must hold four widths from 1 to 4096 for each of {self.depth} layers")
        settle("layer_shapes", shapes)

    @property
    def key_gates(self) -> tuple[bool, ...]:
        """Which layers have a dependency gate."""
        return (self.prune_keys,) * self.depth if isinstance(self.prune_keys, bool) else self.prune_keys

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


class UpBlock(nn.Module):
    """Upsample to the skip connection's size, concatenate, DoubleConv."""

    def __init__(self, config: APFormerConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mode = "bilinear" if config.spatial_dims == 2 else "trilinear"
        self.conv = DoubleConv(config, 2 * inputs, outputs, middle=inputs)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        deep = F.interpolate(deep, size=skip.shape[2:], mode=self.mode, align_corners=True)
        return self.conv(torch.cat([skip, deep], dim=1))


class APFormer(Gated, nn.Module):
    """The network. Arguments are those of `APFormerConfig`, as keywords.

    `forward(image)` maps (B, in_channels, *size) to logits (B, out_channels, *size) for any size; with
    `auxiliaries=True` it returns (logits, Auxiliaries) for the training losses.

    Example:
        >>> APFormer(spatial_dims=2, in_channels=1, out_channels=3)(torch.zeros(1, 1, 100, 90)).shape
        torch.Size([1, 3, 100, 90])

    Attributes:
        gating: "hard" (the default) skips what the gates prune; "soft" computes everything, so that gradients reach
            the gates; "off" ignores them. Without gates all three are the dense network.
        way_up: the modules from the deepest features to the logits, for who trains these alone.
    """

    way_up = ("bottleneck", "up3", "up2", "up1", "head")

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
        self.query_gate = QueryGate(config.safety_ring) if config.prune_queries else None
        self.embedding = nn.Linear(width, width)
        self.embedding_dropout = nn.Dropout(config.dropout)
        setting = LayerSetting(width, config.base_grid, config.head_dim, config.dropout)
        layers = zip(config.layer_shapes, config.key_gates, strict=True)
        self.layers = nn.ModuleList(TransformerLayer(setting, shape, key_gate) for shape, key_gate in layers)
        self.bottleneck = conv(width, third, kernel_size=1, bias=False)
        self.up3 = UpBlock(config, third, second)
        self.up2 = UpBlock(config, second, first)
        self.up1 = UpBlock(config, first, first)
        self.head = conv(first, config.out_channels, kernel_size=1)

    @property
    def token_stride(self) -> tuple[int, ...]:
        """Voxels per token along each axis."""
        return self.config.token_stride

    @property
    def token_width(self) -> int:
        """Numbers of a token."""
        return self.config.channels[-1]

    @property
    def costs(self) -> list[LayerCost]:
        """What each transformer layer costs."""
        return [layer.cost for layer in prunable(self.layers)]

    def forward(self, image: Tensor, auxiliaries: bool = False) -> Tensor | tuple[Tensor, Auxiliaries]:
        """See the class."""
        size = image.shape[2:]
        image = self._pad(image)
        x1 = self.level1(image)  # (B, 16, H, W) in the published 2D setting
        x2 = self.level2(x1)  # (B, 32, H/2, W/2)
        x3 = self.level3(x2)  # (B, 64, H/4, W/4)
        x4 = self.level4(x3)  # (B, 128, H/8, W/8)
        prune_logits = None if self.prune_head is None else self.prune_head(x4)
        work = self._transform(x4, prune_logits)
        deep = work.tokens.transpose(1, 2).reshape(x4.shape)
        decoded = self.up1(self.up2(self.up3(self.bottleneck(deep), x3), x2), x1)
        logits = self.head(decoded)[(..., *(slice(0, n) for n in size))]
        if not auxiliaries:
            return logits
        kept = work.kept.reshape(x4.shape[0], *x4.shape[2:])
        return logits, Auxiliaries(prune_logits, work.queries_keys, self.config.token_stride, kept, work.macs)

    def _transform(self, features: Tensor, prune_logits: Tensor | None) -> Transformed:
        """Features (B, width, *grid) through the transformer layers."""
        tokens = self.embedding_dropout(self.embedding(features.flatten(2).transpose(1, 2)))  # (B, N, width)
        kept = None
        if self.query_gate is not None and prune_logits is not None and self.gating != "off":
            kept = self.query_gate(prune_logits).flatten(1)  # (B, N)
        return transform(self.layers, tokens, tuple(features.shape[2:]), kept, self.gating)

    def _pad(self, image: Tensor) -> Tensor:
        """Repeat the far edges until every axis is a multiple of the token stride."""
        padding: list[int] = []
        for size, stride in zip(reversed(image.shape[2:]), reversed(self.config.token_stride), strict=True):
            padding += [0, -size % stride]
        padded = [size + extra for size, extra in zip(image.shape[2:], reversed(padding[1::2]), strict=True)]
        if self.config.norm == "instance" and tuple(padded) == self.config.token_stride:
            padding[1] += self.config.token_stride[-1]  # instance norm has no statistics for a single token
        return F.pad(image, padding, mode="replicate") if any(padding) else image

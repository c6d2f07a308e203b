"""TransUNet: a ResNet condenses the image, a vision transformer looks at the result, a decoder with skip connections
follows (Chen et al., arXiv 2102.04306). The network that DFTransUnet-slim searches.

The defaults are R50-ViT-B/16 with as many parameters as the released code; narrower ones are a matter of arguments.
Differences from it: 3D too, any image size (positions are interpolated, the image is padded and cropped), any number of
channels, the pooling behind the root is padded, where the released code pads its result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..pruning.adapters import TorchEncoderLayer
from ..pruning.attention import LayerCost
from ..pruning.auxiliaries import Auxiliaries
from ..pruning.budget import dense_macs
from .parts import checked_numbers, crop_to, pad_to_cells

CELL = 16  # voxels per token along each axis
GROUPS = 32  # of the group norms, as released
NORM_EPS = 1e-6  # of group norms in the ResNet and of layer norms, as released
STANDARDISATION_EPS = 1e-5
WIDENING = 4  # of a residual unit: its output is four times as wide as its 3x3 convolution


@dataclass(frozen=True)
class TransUnetConfig:
    """Shape of a TransUNet. The defaults are the published network: RGB, 224 x 224, 9 classes of Synapse.

    Args:
        spatial_dims: 2 or 3.
        in_channels, out_channels: image channels and classes, background included.
        image_size: size that the positions are learned on.
        width: of the ResNet at half resolution; its stages are 4, 8 and 16 times as wide.
        units: residual units of the three stages, at a quarter, an eighth and a sixteenth of the resolution.
        hidden_size, mlp_dim, num_heads, num_layers: of the transformer; the defaults are ViT-B.
        decoder_channels: width behind the transformer, then at an eighth, a quarter, half, and full resolution.
        dropout: of the embedding and the feed-forward parts.
    """

    spatial_dims: int = 2
    in_channels: int = 3
    out_channels: int = 9
    image_size: tuple[int, ...] = (224, 224)
    width: int = 64
    units: tuple[int, int, int] = (3, 4, 9)
    hidden_size: int = 768
    mlp_dim: int = 3072
    num_heads: int = 12
    num_layers: int = 12
    decoder_channels: tuple[int, int, int, int, int] = (512, 256, 128, 64, 16)
    dropout: float = 0.1

    def __post_init__(self) -> None:
        def settle(name: str, value: object) -> None:
            object.__setattr__(self, name, value)  # the dataclass is frozen; JSON and TOML bring lists

        if self.spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, not {self.spatial_dims!r}")
        for name in ("in_channels", "out_channels", "width", "hidden_size", "mlp_dim", "num_heads", "num_layers"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 8192:
                raise ValueError(f"{name} must be an integer from 1 to 8192, not {value!r}")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size must be a multiple of num_heads, not {self.hidden_size} / {self.num_heads}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), not {self.dropout!r}")
        settle("units", checked_numbers("units", self.units, 3))
        settle("decoder_channels", checked_numbers("decoder_channels", self.decoder_channels, 5))
        settle("image_size", tuple(int(v) for v in self.image_size))
        if len(self.image_size) != self.spatial_dims or not all(8 <= v <= 1024 for v in self.image_size):
            raise ValueError(f"image_size must be {self.spatial_dims} sizes from 8 to 1024, not {self.image_size!r}")

    @property
    def cell(self) -> tuple[int, ...]:
        """Voxels per token along each axis."""
        return (CELL,) * self.spatial_dims

    @property
    def base_grid(self) -> tuple[int, ...]:
        """Token grid of an image of `image_size`."""
        return tuple(-(-size // CELL) for size in self.image_size)

    def conv(self, inputs: int, outputs: int, kernel: int, bias: bool = True) -> nn.Module:
        """A convolution that keeps the size."""
        kind = nn.Conv2d if self.spatial_dims == 2 else nn.Conv3d
        return kind(inputs, outputs, kernel_size=kernel, padding=kernel // 2, bias=bias)

    def standardised(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
        """A convolution with standardised weights, without bias."""
        kind = StandardisedConv2d if self.spatial_dims == 2 else StandardisedConv3d
        return kind(inputs, outputs, kernel_size=kernel, stride=stride, padding=kernel // 2, bias=False)

    def conv_norm_relu(self, inputs: int, outputs: int) -> nn.Sequential:
        """3x3 convolution, batch norm, ReLU."""
        norm = nn.BatchNorm2d if self.spatial_dims == 2 else nn.BatchNorm3d
        return nn.Sequential(self.conv(inputs, outputs, 3, bias=False), norm(outputs), nn.ReLU(inplace=True))


def standardised(weight: Tensor) -> Tensor:
    """Every filter of (outputs, inputs, *kernel) with mean 0 and variance 1 (Qiao et al., arXiv 1903.10520)."""
    variance, mean = torch.var_mean(weight, dim=tuple(range(1, weight.ndim)), keepdim=True, correction=0)
    return (weight - mean) * torch.rsqrt(variance + STANDARDISATION_EPS)


class StandardisedConv2d(nn.Conv2d):
    """A convolution with standardised weights."""

    def forward(self, features: Tensor) -> Tensor:
        return F.conv2d(features, standardised(self.weight), None, self.stride, self.padding)


class StandardisedConv3d(nn.Conv3d):
    """A convolution with standardised weights."""

    def forward(self, features: Tensor) -> Tensor:
        return F.conv3d(features, standardised(self.weight), None, self.stride, self.padding)


def group_norm(channels: int) -> nn.GroupNorm:
    """With as many groups as released, or fewer where the network is narrower."""
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels, eps=NORM_EPS)


class ResidualUnit(nn.Module):
    """1x1, 3x3, 1x1 convolution, group norms, and a shortcut."""

    def __init__(self, config: TransUnetConfig, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        middle = outputs // WIDENING
        self.body = nn.Sequential(
            config.standardised(inputs, middle, 1),
            group_norm(middle),
            nn.ReLU(inplace=True),
            config.standardised(middle, middle, 3, stride),
            group_norm(middle),
            nn.ReLU(inplace=True),
            config.standardised(middle, outputs, 1),
            group_norm(outputs),
        )
        same = stride == 1 and inputs == outputs
        # as released: here the norm has one group per channel, and torch's own eps
        norm = nn.GroupNorm(outputs, outputs)
        self.shortcut = nn.Identity() if same else nn.Sequential(config.standardised(inputs, outputs, 1, stride), norm)

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, *size) -> (B, outputs, *size / stride)."""
        return F.relu(self.shortcut(features) + self.body(features))


class UpBlock(nn.Module):
    """Twice the size, concatenated with the skip connection if any, two convolutions."""

    def __init__(self, config: TransUnetConfig, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.mode = "bilinear" if config.spatial_dims == 2 else "trilinear"
        first = config.conv_norm_relu(inputs + skip, outputs)
        self.body = nn.Sequential(first, config.conv_norm_relu(outputs, outputs))

    def forward(self, deep: Tensor, skip: Tensor | None) -> Tensor:
        deep = F.interpolate(deep, scale_factor=2, mode=self.mode, align_corners=True)
        joined = deep if skip is None else torch.cat([deep, skip], dim=1)
        found: Tensor = self.body(joined)
        return found


class TransUnet(nn.Module):
    """The network. Arguments are those of `TransUnetConfig`, as keywords.

    `forward(image)` maps (B, in_channels, *size) to logits (B, out_channels, *size) for any size; with
    `auxiliaries=True` it returns (logits, Auxiliaries). There is no prune head and nothing is pruned there; give the
    network to `pruning.prune_attention` or to `pruning.joint_search` for that.

    Example:
        >>> small = {"width": 8, "units": (1, 1, 1), "hidden_size": 16, "mlp_dim": 32, "num_heads": 2}
        >>> small |= {"num_layers": 2, "decoder_channels": (16, 8, 8, 8, 8), "image_size": (64, 64)}
        >>> TransUnet(in_channels=1, out_channels=2, **small)(torch.zeros(1, 1, 50, 70)).shape
        torch.Size([1, 2, 50, 70])
    """

    def __init__(self, **arguments: object) -> None:
        super().__init__()
        self.config = config = TransUnetConfig(**arguments)  # type: ignore[arg-type]
        root, token = config.width, config.hidden_size
        stages = [4 * root, 8 * root, 16 * root]
        self.root = nn.Sequential(
            config.standardised(config.in_channels, root, 7, 2), group_norm(root), nn.ReLU(inplace=True)
        )
        pool = nn.MaxPool2d if config.spatial_dims == 2 else nn.MaxPool3d
        self.pool = pool(3, stride=2, padding=1)
        self.stages = nn.ModuleList(
            _stage(config, inputs, outputs, count, stride)
            for inputs, outputs, count, stride in zip([root, *stages], stages, config.units, (1, 2, 2), strict=False)
        )
        self.embedding = config.conv(stages[-1], token, 1)
        self.positions = nn.Parameter(torch.zeros(1, math.prod(config.base_grid), token))
        self.embedding_dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(token, eps=NORM_EPS)
        first, *decoder = config.decoder_channels
        self.widen = config.conv_norm_relu(token, first)
        skips = [stages[1], stages[0], root, 0]
        self.ups = nn.ModuleList(
            UpBlock(config, inputs, skip, outputs)
            for inputs, skip, outputs in zip([first, *decoder], skips, decoder, strict=False)
        )
        self.head = config.conv(decoder[-1], config.out_channels, 3)
        self.costs: list[LayerCost] = [TorchEncoderLayer("", block).cost for block in self.blocks]

    def forward(self, image: Tensor, auxiliaries: bool = False) -> Tensor | tuple[Tensor, Auxiliaries]:
        """See the class."""
        size = image.shape[2:]
        image = pad_to_cells(image, self.config.cell)
        half = self.root(image)  # (B, 64, H/2, W/2) in the published setting
        quarter = self.stages[0](self.pool(half))  # (B, 256, H/4, W/4)
        eighth = self.stages[1](quarter)  # (B, 512, H/8, W/8)
        features = self.embedding(self.stages[2](eighth))  # (B, 768, H/16, W/16)
        grid = tuple(features.shape[2:])
        tokens = features.flatten(2).transpose(1, 2) + self._positions_on(grid)  # (B, 196, 768)
        tokens = self.embedding_dropout(tokens).transpose(0, 1)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens.transpose(0, 1))
        deep = self.widen(tokens.transpose(1, 2).unflatten(2, grid))
        for up, skip in zip(self.ups, (eighth, quarter, half, None), strict=True):
            deep = up(deep, skip)
        logits = crop_to(self.head(deep), size)
        if not auxiliaries:
            return logits
        spent = tokens.new_full((len(tokens),), dense_macs(self.costs, math.prod(grid)), dtype=torch.float32)
        kept = tokens.new_ones((len(tokens), *grid), dtype=torch.float32)
        return logits, Auxiliaries(None, [], self.config.cell, kept, spent)

    def _positions_on(self, grid: Sequence[int]) -> Tensor:
        if tuple(grid) == self.config.base_grid:
            return self.positions
        cells = self.positions.transpose(1, 2).unflatten(2, self.config.base_grid)
        mode = "bicubic" if len(grid) == 2 else "trilinear"
        return F.interpolate(cells, size=tuple(grid), mode=mode, align_corners=True).flatten(2).transpose(1, 2)


def _stage(config: TransUnetConfig, inputs: int, outputs: int, count: int, stride: int) -> nn.Sequential:
    first = ResidualUnit(config, inputs, outputs, stride)
    return nn.Sequential(first, *(ResidualUnit(config, outputs, outputs, 1) for _ in range(count - 1)))


def _block(config: TransUnetConfig) -> nn.TransformerEncoderLayer:
    """Pre-norm, tokens first: see `sparse_unetr.transformer_block`. As released, the attention drops nothing."""
    layer = nn.TransformerEncoderLayer(
        config.hidden_size,
        config.num_heads,
        config.mlp_dim,
        dropout=config.dropout,
        activation="gelu",
        norm_first=True,
        layer_norm_eps=NORM_EPS,
    )
    layer.self_attn.dropout = 0.0
    layer.dropout1.p = 0.0
    return layer

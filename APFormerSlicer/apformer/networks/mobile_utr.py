"""MobileUtr, a light U-shaped network of convolutions and few tokens (Tang et al., arXiv 2312.01740).

ConvUtr blocks, convolutions in the shape of a transformer block, embed patches of 8; adaptive Local-Global-Local blocks
and a transformer bottleneck work on the tokens; a plain convolutional decoder takes max-pooled skip connections. Its
successor, Mobile U-ViT (Tang et al., ACM MM 2025, arXiv 2508.01064), is the same network, and adds the 3D form.

The papers' text was not at hand in full; sizes and formulas follow the authors' released code (2D and 3D). Differences
from it, all without effect at the published setting: any number of channels (the released 2D network repeats a single
channel to three, whatever it was built for, and fails), any image size (padded and cropped; odd token grids too),
attention through torch's fused kernels, and a bottleneck of `torch.nn.TransformerEncoderLayer`, which
`pruning.prune_attention` knows. docs/networks.md has the formulas and the counts.
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
from .parts import checked_numbers, crop_to, drop_path, pad_to_cells

NORMS = ("batch", "instance")
# size -> channels, depths, heads. "large" is as released: 6.2 M parameters, where the papers' figures show about 7.9 M.
SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    "base": ((16, 32, 64, 128), (1, 1, 3, 3, 3), 4),
    "large": ((32, 64, 128, 256), (1, 1, 3, 3, 4), 8),
}
WIDENING = 4  # hidden width of all feed-forward parts, times their own
LARGE_KERNEL = 9  # of the local aggregation, 72 voxels wide at one token per 8
CELL = 8  # voxels per token along each axis: three poolings by 2
SAMPLING = 2  # every second token along each axis takes part in the attention of an LGL block
LAYER_NORM_EPS = 1e-6  # released code, before attention and feed-forward parts


@dataclass(frozen=True)
class MobileUtrConfig:
    """Shape of a MobileUtr. The defaults are the published base network: RGB images, one logit.

    Args:
        spatial_dims: 2 or 3.
        in_channels, out_channels: image channels and logits. Published: 1 logit with a sigmoid; for a softmax give one
            per class, background included.
        size: "base" or "large", which give `channels`, `depths` and `heads` where these are empty.
        channels: width at full, half and quarter resolution, and of the bottleneck.
        depths: ConvUtr units at full, half and quarter resolution, LGL blocks, bottleneck layers.
        kernels: of the depth-wise convolutions in the ConvUtr units, per level.
        heads: of all attention. Published as embed_dim / 64, a width that nothing in the network has.
        drop_path: probability with which a branch of an LGL block is left out in training.
        norm: "batch" or "instance" (without parameters). Empty: batch in 2D, instance in 3D, as released.
    """

    spatial_dims: int = 2
    in_channels: int = 3
    out_channels: int = 1
    size: str = "base"
    channels: tuple[int, ...] = ()
    depths: tuple[int, ...] = ()
    kernels: tuple[int, ...] = (3, 3, 7)
    heads: int = 0
    drop_path: float = 0.1
    norm: str = ""

    def __post_init__(self) -> None:
        def settle(name: str, value: object) -> None:
            object.__setattr__(self, name, value)  # the dataclass is frozen; JSON and TOML bring lists

        if self.spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, not {self.spatial_dims!r}")
        if self.size not in SIZES:
            raise ValueError(f"size must be one of {tuple(SIZES)}, not {self.size!r}")
        channels, depths, heads = SIZES[self.size]
        settle("heads", self.heads or heads)
        settle("norm", self.norm or NORMS[self.spatial_dims - 2])
        for name in ("in_channels", "out_channels", "heads"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 4096:
                raise ValueError(f"{name} must be an integer from 1 to 4096, not {value!r}")
        for name, count, default in (("channels", 4, channels), ("depths", 5, depths), ("kernels", 3, ())):
            settle(name, checked_numbers(name, getattr(self, name) or default, count))
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ValueError(f"kernels must be odd, not {self.kernels!r}")
        if any(width % self.heads for width in self.channels[2:]):
            raise ValueError(f"the last two channels, {self.channels[2:]}, must be multiples of heads, {self.heads}")
        if self.norm not in NORMS:
            raise ValueError(f"norm must be one of {NORMS}, not {self.norm!r}")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path must be in [0, 1), not {self.drop_path!r}")

    @property
    def cell(self) -> tuple[int, ...]:
        """Voxels per token along each axis."""
        return (CELL,) * self.spatial_dims

    def conv(self, inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Module:
        """A convolution that keeps the size."""
        kind = nn.Conv2d if self.spatial_dims == 2 else nn.Conv3d
        return kind(inputs, outputs, kernel_size=kernel, padding=kernel // 2, groups=groups)

    def norm_of(self, channels: int) -> nn.Module:
        """A norm."""
        kinds: dict[tuple[str, int], type[nn.Module]] = {
            ("batch", 2): nn.BatchNorm2d,
            ("batch", 3): nn.BatchNorm3d,
            ("instance", 2): nn.InstanceNorm2d,
            ("instance", 3): nn.InstanceNorm3d,
        }
        return kinds[self.norm, self.spatial_dims](channels)

    def conv_norm_relu(self, inputs: int, outputs: int) -> nn.Sequential:
        """3x3 convolution, norm, ReLU."""
        return nn.Sequential(self.conv(inputs, outputs, 3), self.norm_of(outputs), nn.ReLU(inplace=True))


class Residual(nn.Sequential):
    """x + f(x)."""

    def forward(self, features: Tensor) -> Tensor:
        return features + super().forward(features)


class ConvUtr(nn.Sequential):
    """Units of (x + Norm(GELU(DW_k(x))), then x + FFN(x) of 1x1 convolutions), and a 3x3 convolution to `outputs`.

    FFN(x) = Norm(GELU(W_2 Norm(GELU(W_1 x)))), W_1 four times as wide as x: attention and feed-forward part of a
    transformer block, as convolutions.
    """

    def __init__(self, config: MobileUtrConfig, inputs: int, outputs: int, depth: int, kernel: int) -> None:
        hidden = WIDENING * inputs
        super().__init__()
        for _ in range(depth):
            mixing = config.conv(inputs, inputs, kernel, groups=inputs)
            self.append(Residual(mixing, nn.GELU(), config.norm_of(inputs)))
            wide = (config.conv(inputs, hidden, 1), nn.GELU(), config.norm_of(hidden))
            self.append(Residual(*wide, config.conv(hidden, inputs, 1), nn.GELU(), config.norm_of(inputs)))
        self.append(config.conv_norm_relu(inputs, outputs))


class LocalAggregation(nn.Module):
    """The first "local" of an LGL block: three gates of large and small kernels, each x + x (sigmoid(f(x)) - 1/2).

    f is a 9x9 depth-wise convolution; 1x1, 9x9 depth-wise, 1x1 behind a norm; two 3x3 convolutions per channel behind
    a norm, four times as wide between them.
    """

    def __init__(self, config: MobileUtrConfig, width: int) -> None:
        super().__init__()
        self.rate = config.drop_path
        self.position = config.conv(width, width, LARGE_KERNEL, groups=width)
        self.mixing = nn.Sequential(
            config.norm_of(width),
            config.conv(width, width, 1),
            config.conv(width, width, LARGE_KERNEL, groups=width),
            config.conv(width, width, 1),
        )
        self.ffn = nn.Sequential(
            config.norm_of(width),
            config.conv(width, WIDENING * width, 3, groups=width),
            nn.GELU(),
            config.conv(WIDENING * width, width, 3, groups=width),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, width, *grid) -> the same shape."""
        features = _gated(features, self.position(features))
        features = _gated(features, drop_path(self.mixing(features), self.rate, self.training))
        return _gated(features, drop_path(self.ffn(features), self.rate, self.training))


def _gated(features: Tensor, gate: Tensor) -> Tensor:
    return features + features * (torch.sigmoid(gate) - 0.5)


class SparseAttention(nn.Module):
    """The "global" and the second "local" of an LGL block: every second token attends, and hands on to its neighbours.

    Tokens on even places attend to each other; a depth-wise transposed convolution (kernel and stride 2) spreads what
    they found over the cells between them; LayerNorm and a linear layer follow.
    """

    def __init__(self, config: MobileUtrConfig, width: int) -> None:
        super().__init__()
        conv = nn.ConvTranspose2d if config.spatial_dims == 2 else nn.ConvTranspose3d
        self.heads = config.heads
        self.to_qkv = nn.Linear(width, 3 * width)
        self.spread = conv(width, width, kernel_size=SAMPLING, stride=SAMPLING, groups=width)
        self.norm = nn.LayerNorm(width)  # torch's own eps here, as released
        self.to_out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, grid: Sequence[int]) -> Tensor:
        """Tokens (B, N, width) on `grid` -> the same shape."""
        sampled = to_map(tokens, grid)
        for axis in range(2, sampled.ndim):
            sampled = sampled[(slice(None),) * axis + (slice(None, None, SAMPLING),)]
        few = to_tokens(sampled)  # (B, N / 4, width) in 2D, N / 8 in 3D
        parts = self.to_qkv(few).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, heads, n, d)
        attended = F.scaled_dot_product_attention(*parts.unbind(0)).transpose(1, 2).flatten(2)
        spread = self.spread(to_map(attended, sampled.shape[2:]))  # one cell more than the grid where that is odd
        found: Tensor = self.to_out(self.norm(to_tokens(crop_to(spread, grid))))
        return found


class LocalGlobalLocal(nn.Module):
    """Adaptive Local-Global-Local block on a map of tokens."""

    def __init__(self, config: MobileUtrConfig, width: int) -> None:
        super().__init__()
        self.rate = config.drop_path
        self.local = LocalAggregation(config, width)
        self.position = config.conv(width, width, 3, groups=width)
        self.norm_attention = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attention = SparseAttention(config, width)
        self.norm_ffn = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.ffn = nn.Sequential(nn.Linear(width, WIDENING * width), nn.GELU(), nn.Linear(WIDENING * width, width))

    def forward(self, features: Tensor) -> Tensor:
        """(B, width, *grid) -> the same shape."""
        grid = features.shape[2:]
        features = self.local(features)
        tokens = to_tokens(features + self.position(features))
        tokens = tokens + drop_path(self.attention(self.norm_attention(tokens), grid), self.rate, self.training)
        tokens = tokens + drop_path(self.ffn(self.norm_ffn(tokens)), self.rate, self.training)
        return to_map(tokens, grid)


class Bottleneck(nn.Module):
    """Pre-norm transformer layers among all tokens, each behind x + DW_3(x), which tells tokens where they are.

    The layers take tokens first, (N, B, width): with batch_first torch takes a fused layer in evaluation, which writes
    whole attention maps (1024 tokens, 4 heads of 32, one thread: 31 against 14 ms).
    """

    def __init__(self, config: MobileUtrConfig, width: int, depth: int) -> None:
        super().__init__()
        self.places = nn.ModuleList(config.conv(width, width, 3, groups=width) for _ in range(depth))
        widths, norm = (width, config.heads, WIDENING * width), {"norm_first": True, "layer_norm_eps": LAYER_NORM_EPS}
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(*widths, dropout=0.0, activation="gelu", **norm)  # type: ignore[arg-type]
            for _ in range(depth)
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, width, *grid) -> the same shape."""
        grid = features.shape[2:]
        for place, layer in zip(self.places, self.layers, strict=True):
            tokens = to_tokens(features + place(features)).transpose(0, 1)
            features = to_map(layer(tokens).transpose(0, 1), grid)
        return features


def to_tokens(features: Tensor) -> Tensor:
    """(B, width, *grid) -> (B, N, width)."""
    return features.flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, grid: Sequence[int]) -> Tensor:
    """(B, N, width) -> (B, width, *grid)."""
    return tokens.transpose(1, 2).unflatten(2, tuple(grid))


class MobileUtr(nn.Module):
    """The network. Arguments are those of `MobileUtrConfig`, as keywords.

    `forward(image)` maps (B, in_channels, *size) to logits (B, out_channels, *size) for any size; with
    `auxiliaries=True` it returns (logits, Auxiliaries). There is no prune head and nothing is pruned there; give the
    network to `pruning.prune_attention` for that, which finds the bottleneck.

    Example:
        >>> MobileUtr(in_channels=1, out_channels=2)(torch.zeros(1, 1, 100, 90)).shape
        torch.Size([1, 2, 100, 90])
    """

    def __init__(self, **arguments: object) -> None:
        super().__init__()
        self.config = config = MobileUtrConfig(**arguments)  # type: ignore[arg-type]
        first, second, third, width = config.channels
        flat = config.spatial_dims == 2
        conv_norm_relu = config.conv_norm_relu
        self.stem = conv_norm_relu(config.in_channels, first)
        self.level1 = ConvUtr(config, first, first, config.depths[0], config.kernels[0])
        self.level2 = ConvUtr(config, first, second, config.depths[1], config.kernels[1])
        self.level3 = ConvUtr(config, second, third, config.depths[2], config.kernels[2])
        self.pool = nn.MaxPool2d(2) if flat else nn.MaxPool3d(2)
        self.lgl = nn.Sequential(*(LocalGlobalLocal(config, third) for _ in range(config.depths[3])))
        self.widen = nn.Sequential(conv_norm_relu(third, width), conv_norm_relu(width, width))
        self.bottleneck = Bottleneck(config, width, config.depths[4])
        self.narrow = nn.Sequential(conv_norm_relu(width, third), conv_norm_relu(third, third))
        # as released: corners are aligned in 2D only
        self.finer = nn.Upsample(scale_factor=2, mode="bilinear" if flat else "trilinear", align_corners=flat)
        self.join3 = nn.Sequential(conv_norm_relu(2 * third, third), conv_norm_relu(third, third))
        self.up2 = conv_norm_relu(third, second)
        self.join2 = nn.Sequential(conv_norm_relu(2 * second, second), conv_norm_relu(second, second))
        self.up1 = conv_norm_relu(second, first)
        self.join1 = nn.Sequential(conv_norm_relu(2 * first, first), conv_norm_relu(first, first))
        self.up0 = conv_norm_relu(first, first)
        self.head = config.conv(first, config.out_channels, 1)
        self.costs: list[LayerCost] = [
            TorchEncoderLayer(f"bottleneck.layers.{n}", layer).cost for n, layer in enumerate(self.bottleneck.layers)
        ]

    def forward(self, image: Tensor, auxiliaries: bool = False) -> Tensor | tuple[Tensor, Auxiliaries]:
        """See the class."""
        size = image.shape[2:]
        image = pad_to_cells(image, self.config.cell)
        x1 = self.level1(self.stem(image))  # (B, 16, H, W) in the published setting
        x2 = self.level2(self.pool(x1))  # (B, 32, H/2, W/2)
        x3 = self.level3(self.pool(x2))  # (B, 64, H/4, W/4)
        tokens = self.lgl(self.pool(x3))  # (B, 64, H/8, W/8)
        tokens = self.narrow(self.bottleneck(self.widen(tokens)))  # 128 wide inside
        deep = self.join3(torch.cat([tokens, self.pool(x3)], dim=1))  # (B, 64, H/8, W/8)
        deep = self.up2(self.finer(deep))  # (B, 32, H/4, W/4)
        deep = self.up1(self.finer(self.join2(torch.cat([deep, self.pool(x2)], dim=1))))  # (B, 16, H/2, W/2)
        deep = self.up0(self.finer(self.join1(torch.cat([deep, self.pool(x1)], dim=1))))  # (B, 16, H, W)
        logits = crop_to(self.head(deep), size)
        if not auxiliaries:
            return logits
        grid = tokens.shape[2:]
        macs = dense_macs(self.costs, math.prod(grid))
        spent = tokens.new_full((tokens.shape[0],), macs, dtype=torch.float32)
        kept = tokens.new_ones((tokens.shape[0], *grid), dtype=torch.float32)
        return logits, Auxiliaries(None, [], self.config.cell, kept, spent)

"""The convolutional decoder of UNETR (Hatamizadeh et al., WACV 2022), layer for layer as in MONAI, in 2D and 3D.

Four maps of tokens and the image itself become logits. For patches of 16 it is UNETR's; for patches of 8 it is the
variant of Zhou et al. (IPMI 2023; "UNETRx8_decoderv2" in their code), which pools the deepest map to half its size so
that the number of levels stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .parts import crop_to

NORMS = ("instance", "batch")
PATCH_SIZES = (8, 16)
SLOPE = 0.01  # of the leaky ReLUs
EPS = 1e-5  # of the norms


@dataclass(frozen=True)
class DecoderShape:
    """What the decoder is built from.

    Args:
        spatial_dims: 2 or 3.
        in_channels, out_channels: image channels and classes.
        hidden_size: width of the tokens.
        feature_size: width at full resolution; 2, 4, 8 times that below.
        patch_size: voxels per token along every axis, one of `PATCH_SIZES`.
        norm: one of `NORMS`.
    """

    spatial_dims: int
    in_channels: int
    out_channels: int
    hidden_size: int
    feature_size: int
    patch_size: int
    norm: str

    def conv(self, inputs: int, outputs: int, kernel: int, bias: bool = False) -> nn.Module:
        """A convolution that keeps the size."""
        kind = nn.Conv2d if self.spatial_dims == 2 else nn.Conv3d
        return kind(inputs, outputs, kernel_size=kernel, padding=kernel // 2, bias=bias)

    def doubling(self, inputs: int, outputs: int) -> nn.Module:
        """A transposed convolution to twice the size along every axis."""
        kind = nn.ConvTranspose2d if self.spatial_dims == 2 else nn.ConvTranspose3d
        return kind(inputs, outputs, kernel_size=2, stride=2, bias=False)

    def norm_of(self, channels: int) -> nn.Module:
        """A norm."""
        if self.norm == "instance":
            return InstanceNorm()
        return nn.BatchNorm2d(channels, EPS) if self.spatial_dims == 2 else nn.BatchNorm3d(channels, EPS)


class InstanceNorm(nn.Module):
    """Instance norm without parameters, for feature maps that nobody else holds: without gradients it works in place.

    torch's copies a channels-last map there and back. 1 x 16 x 96 x 96 x 96, channels last, one thread of an AMD EPYC:
    113 ms of processor time by `instance_norm`, 39 ms by this.
    """

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, *size) -> the same shape, mean 0 and variance 1 over every image's channel."""
        plain = features.dtype == torch.float32 and features.device.type == "cpu"
        if torch.is_grad_enabled() or not plain:
            return F.instance_norm(features, eps=EPS)
        inner = tuple(range(3, features.ndim))  # summed first: one long float32 sum over a channel loses three digits
        features -= features.mean(inner, keepdim=True).mean(2, keepdim=True)
        squares = torch.linalg.vector_norm(features, dim=inner, keepdim=True).square().sum(2, keepdim=True)
        features *= (squares / features[0, 0].numel() + EPS).rsqrt()
        return features


class ResBlock(nn.Module):
    """Two 3x3 convolutions with norms, and a residual: MONAI's UnetResBlock."""

    def __init__(self, shape: DecoderShape, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            shape.conv(inputs, outputs, 3),
            shape.norm_of(outputs),
            nn.LeakyReLU(SLOPE, inplace=True),
            shape.conv(outputs, outputs, 3),
            shape.norm_of(outputs),
        )
        same = inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(shape.conv(inputs, outputs, 1), shape.norm_of(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, *size) -> (B, outputs, *size)."""
        out: Tensor = self.body(features)
        out += self.shortcut(features)
        return F.leaky_relu_(out, SLOPE)


class Projection(nn.Sequential):
    """Tokens as a map (B, hidden, *grid) -> a skip connection, `doublings` times finer: MONAI's UnetrPrUpBlock."""

    def __init__(self, shape: DecoderShape, outputs: int, doublings: int) -> None:
        if doublings == 0:
            super().__init__(ResBlock(shape, shape.hidden_size, outputs))
            return
        super().__init__(shape.doubling(shape.hidden_size, outputs))
        for _ in range(doublings - 1):
            self.append(shape.doubling(outputs, outputs))
            self.append(ResBlock(shape, outputs, outputs))


class UpBlock(nn.Module):
    """Twice the size, concatenated with the skip connection, residual block: MONAI's UnetrUpBlock."""

    def __init__(self, shape: DecoderShape, inputs: int, outputs: int) -> None:
        super().__init__()
        self.finer = shape.doubling(inputs, outputs)
        self.body = ResBlock(shape, 2 * outputs, outputs)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        """The finer map is cropped to the skip connection: one voxel, where a map of odd size was pooled."""
        joined = torch.cat([crop_to(self.finer(deep), skip.shape[2:]), skip], dim=1)
        found: Tensor = self.body(joined)
        return found


class Decoder(nn.Module):
    """See the module."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        width, pooled = shape.feature_size, shape.patch_size == 8
        flat = shape.spatial_dims == 2
        # padded by itself: torch refuses to pool maps smaller than the kernel, whatever its own padding
        pad, pool = (
            (nn.ZeroPad2d(1), nn.AvgPool2d(3, stride=2)) if flat else (nn.ZeroPad3d(1), nn.AvgPool3d(3, stride=2))
        )
        doublings = 2 if pooled else 3
        self.pool = nn.Sequential(pad, pool) if pooled else nn.Identity()
        self.skip1 = ResBlock(shape, shape.in_channels, width)
        self.skip2 = Projection(shape, 2 * width, doublings)
        self.skip3 = Projection(shape, 4 * width, doublings - 1)
        self.skip4 = Projection(shape, 8 * width, doublings - 2)
        self.up4 = UpBlock(shape, shape.hidden_size, 8 * width)
        self.up3 = UpBlock(shape, 8 * width, 4 * width)
        self.up2 = UpBlock(shape, 4 * width, 2 * width)
        self.up1 = UpBlock(shape, 2 * width, width)
        self.head = shape.conv(width, shape.out_channels, 1, bias=True)

    def forward(self, image: Tensor, early: Tensor, middle: Tensor, late: Tensor, last: Tensor) -> Tensor:
        """Image (B, C, *size) and four maps of tokens (B, hidden, *grid) -> logits (B, classes, *size)."""
        deep = self.up4(self.pool(last), self.skip4(late))  # 1/8 of the size
        deep = self.up3(deep, self.skip3(middle))  # 1/4
        deep = self.up2(deep, self.skip2(early))  # 1/2
        logits: Tensor = self.head(self.up1(deep, self.skip1(image)))
        return logits

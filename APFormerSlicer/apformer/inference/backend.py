"""3D convolutions through oneDNN on the CPU, also where torch would not choose it.

For a single float32 image torch takes oneDNN only if B * C * D * H exceeds 20480, a limit made for the four axes of 2D
(`use_mkldnn` in ATen's Convolution.cpp; `torch._C._select_conv_backend` of torch 2.13 shows the same). Smaller feature
maps go through its plain kernel, in the 3D network of hippocampus-mr all but those of 16 channels at full resolution.
Encoder and decoder on a 40 x 56 x 40 image, channels last, one thread of an AMD EPYC: 160 ms of processor time by
torch's choice, 57 ms through oneDNN (medians of 5 interleaved rounds).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class OneDnnConv3d(nn.Conv3d):
    """A 3D convolution that runs in oneDNN where it can: float32 on the CPU, no gradients, zero padding."""

    @classmethod
    def replacing(cls, conv: nn.Conv3d) -> OneDnnConv3d:
        """The same convolution with the same parameters, not copies of them."""
        widths = (conv.in_channels, conv.out_channels, conv.kernel_size)
        new = cls(*widths, conv.stride, conv.padding, conv.dilation, conv.groups, device="meta")  # type: ignore[arg-type]
        new.weight, new.bias = conv.weight, conv.bias
        return new.train(conv.training)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, *size) -> (B, out_channels, *size)."""
        fits = image.device.type == "cpu" and image.dtype == self.weight.dtype == torch.float32
        if not fits or isinstance(self.padding, str) or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            return super().forward(image)
        out: Tensor = torch.mkldnn_convolution(
            image, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups
        )
        return out


def accelerate(network: nn.Module) -> nn.Module:
    """Replace, in place, the 3D convolutions of `network` by ones that run in oneDNN; keys of the state stay.

    Where torch was built without oneDNN nothing changes. Counters of operations do not know oneDNN's, so count before.

    Returns: `network`.
    """
    if not torch.backends.mkldnn.is_available():
        return network
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Conv3d and child.padding_mode == "zeros" and not isinstance(child.padding, str):
                setattr(module, name, OneDnnConv3d.replacing(child))
    return network

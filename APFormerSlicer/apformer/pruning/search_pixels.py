"""The pixel classification module: looks at every pixel once more, to win back what a search costs.

DFTransUnet (Zheng et al., J. Imaging 2024, 10(9) 206) adds "pixel-level segmentation" to its framework for this; how it
is built is not in the parts of the paper that could be read, so this is a design of our own. Every class of every pixel
is judged by the same few weights, from what the network says of the class and from the image around the pixel. That
makes it independent of the number of classes, so that a model can be fine-tuned to others; and it begins as the
identity, so that it can be put behind a trained network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PixelClassifier(nn.Module):
    """logits_k + W_2 GELU(W_1 [logits_k, log softmax_k, image]), W_1 a 3x3 convolution, W_2 a linear map, 0 at first.

    Args:
        dims: 2 or 3.
        in_channels: of the image.
        hidden: channels between the two.
    """

    def __init__(self, dims: int, in_channels: int, hidden: int) -> None:
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.look = conv(2 + in_channels, hidden, kernel_size=3, padding=1)
        self.judge = conv(hidden, 1, kernel_size=1)
        nn.init.zeros_(self.judge.weight)
        nn.init.zeros_(self.judge.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor, logits: Tensor) -> Tensor:
        """Image (B, C, *size) and logits (B, classes, *size) -> logits."""
        batch, classes = logits.shape[:2]
        views = [logits, logits.log_softmax(1)]
        own = torch.stack(views, dim=2).flatten(0, 1)  # (B * classes, 2, *size)
        around = image.repeat_interleave(classes, dim=0).to(own.dtype)
        change: Tensor = self.judge(F.gelu(self.look(torch.cat([own, around], dim=1))))
        return logits + change.unflatten(0, (batch, classes))[:, :, 0]

"""Batch norms folded into the convolutions before them, once when a network is loaded."""

from __future__ import annotations

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Fold, in place, every batch norm that directly follows a convolution in an `nn.Sequential`.

    In evaluation mode a batch norm only scales and shifts each channel by fixed numbers, which a convolution can do by
    itself. Other norms, other places and pairs in training mode stay as they are. The folded network has the same
    outputs up to rounding but other weights: it is for running, not for saving or training.

    Returns: `network`. Its weights may have lost a memory format; set that afterwards.
    """
    for block in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for place, (conv, norm) in enumerate(pairwise(list(block))):
            if isinstance(conv, CONVOLUTIONS) and isinstance(norm, BATCH_NORMS) and _is_fixed(conv, norm):
                block[place] = fuse_conv_bn_eval(conv, norm)
                block[place + 1] = nn.Identity()
    return network


def _is_fixed(conv: nn.Module, norm: nn.BatchNorm2d | nn.BatchNorm3d) -> bool:
    """Whether the norm scales and shifts by fixed numbers; without running statistics it looks at the image at hand."""
    return not (conv.training or norm.training) and norm.running_var is not None

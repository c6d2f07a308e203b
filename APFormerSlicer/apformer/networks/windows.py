"""Windows of an image, seen as what they are: a part of it at its place, and not a small image of their own.

Networks stretch what they know of positions to any image. A window that is cut from an image must not be stretched so:
what is learned there would not hold for the image.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .grpe import GRPE
from .leanformer import LeanFormer


def look_through(network: nn.Module, whole: Sequence[int] | None, start: Sequence[int] = ()) -> None:
    """Tell a network with GRPE that the images to come are windows of one of the size `whole`; others do not mind.

    Args:
        whole: its size as the network would see it, (rows, columns) or (depth, rows, columns); None: whole images come.
        start: first voxel of the window, a multiple of the voxels per token.

    Raises:
        ValueError: it is not.
    """
    stride = getattr(network, "token_stride", None)
    if stride is None:
        return
    grid = corner = None
    if whole is not None:
        if any(first % step for first, step in zip(start, stride, strict=True)):
            raise ValueError(f"a window must start at a multiple of {stride}, not at {tuple(start)}")
        grid = tuple(-(-size // step) for size, step in zip(whole, stride, strict=True))
        corner = tuple(first // step for first, step in zip(start, stride, strict=True))
    for module in network.modules():
        if isinstance(module, GRPE):
            module.whole = grid
        elif isinstance(module, LeanFormer):
            module.whole, module.corner = grid, corner

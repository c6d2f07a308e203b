"""How a LeanFormer for a model from nothing goes down: at full size or at half of it first, how often, how wide.

A network that begins with a stride of two loses what is a few voxels wide: at 3.9 mm, a first trial of this form did
not find brainstem and spinal cord, two to five voxels wide, in a time in which MONAI's DynUNet, which begins at full
size, did. Full size costs most of a step, though. Where between the two the border lies was not measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

FINE = 5.0  # voxels across: what is thinner needs a first level at full size
MOST_TOKENS = 1024  # attention, and its table of positions, grow with their square
FEWEST_LEVELS = {2: 3, 3: 2}
WIDTHS = (16, 32, 64, 128)  # of the level at full size, at half of it, ...
# Tokens in volumes are narrower: there are more of them.
TOKENS: dict[int, dict[str, int]] = {
    2: {"width": 192, "depth": 3, "heads": 6, "head_dim": 32, "ffn_dim": 384},
    3: {"width": 128, "depth": 3, "heads": 4, "head_dim": 32, "ffn_dim": 256},
}


def lean_arguments(patch: Sequence[int], across: float = math.inf) -> dict[str, Any]:
    """Arguments of a LeanFormer, without channels and classes.

    Args:
        patch: its size, (j, i) or (k, j, i).
        across: voxels across the thinnest structure; see `layout`.
    """
    dims, fine = len(patch), across < FINE
    first = 0 if fine else 1
    widths, strides = [WIDTHS[first]], [2**first]
    grid = [-(-size // 2**first) for size in patch]
    while len(widths) < FEWEST_LEVELS[dims] + fine or math.prod(-(-size // 2) for size in grid) > MOST_TOKENS:
        widths.append(min(2 * widths[-1], WIDTHS[-1]))
        strides.append(2)
        grid = [-(-size // 2) for size in grid]
    arguments: dict[str, Any] = {
        "spatial_dims": dims,
        "image_size": list(patch),
        "channels": widths,
        "strides": [*strides, 2],
        **TOKENS[dims],
    }
    return {**arguments, "detail": 0} if fine else arguments

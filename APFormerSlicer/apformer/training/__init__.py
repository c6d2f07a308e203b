"""Training: cases, augmentation, losses, the loop, selection on a frozen validation set.

The loop, and with it MONAI, is loaded when it is first used: what learns from a few slices needs neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .config import TrainingConfig, parse_config, read_config

if TYPE_CHECKING:
    from .run import train

__all__ = ["TrainingConfig", "parse_config", "read_config", "train"]


def __getattr__(name: str) -> Any:
    if name == "train":
        from .run import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

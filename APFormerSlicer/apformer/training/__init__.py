"""Training: cases, augmentation, losses, the loop, selection on a frozen validation set."""

from .config import TrainingConfig, parse_config, read_config
from .run import train

__all__ = ["TrainingConfig", "parse_config", "read_config", "train"]

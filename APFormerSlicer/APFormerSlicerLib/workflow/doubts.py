"""How unsure the model was of a case, kept on its segmentation and saved with the scene; the worker found it."""

from __future__ import annotations

import math
from typing import Any

from .result_notes import keep, kept

_DOUBT = "APFormer.Doubt"  # attribute of the segmentation


def set_doubt(segmentation_node: Any, told: Any) -> None:
    """Keep what the worker told with the present result; None: it made no map of uncertainty."""
    keep(segmentation_node, _DOUBT, "doubt", read_doubt(told))


def doubt_of(segmentation_node: Any) -> float | None:
    """Of the present result, 0 to 1, as `apformer.case_doubt` defines it; None where it is not known."""
    return read_doubt(kept(segmentation_node, _DOUBT, "doubt"))


def read_doubt(told: Any) -> float | None:
    """A number from 0 to 1; None for anything else."""
    if isinstance(told, bool) or not isinstance(told, int | float) or not math.isfinite(told):
        return None
    return float(told) if 0.0 <= told <= 1.0 else None

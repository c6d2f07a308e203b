"""How unsure the model was of a case, kept on its segmentation and saved with the scene; the worker found it."""

from __future__ import annotations

import json
import math
from typing import Any

from .places import result_of

_DOUBT = "APFormer.Doubt"  # attribute of the segmentation


def set_doubt(segmentation_node: Any, told: Any) -> None:
    """Keep what the worker told with the present result; None: it made no map of uncertainty."""
    segmentation_node.SetAttribute(_DOUBT, json.dumps({"of": result_of(segmentation_node), "doubt": read_doubt(told)}))


def doubt_of(segmentation_node: Any) -> float | None:
    """Of the present result, 0 to 1, as `apformer.case_doubt` defines it; None where it is not known."""
    try:
        kept = json.loads(segmentation_node.GetAttribute(_DOUBT) or "{}")
        return read_doubt(kept["doubt"]) if kept["of"] == result_of(segmentation_node) else None
    except (ValueError, TypeError, KeyError):  # edited by hand, or none
        return None


def read_doubt(told: Any) -> float | None:
    """A number from 0 to 1; None for anything else."""
    if isinstance(told, bool) or not isinstance(told, int | float) or not math.isfinite(told):
        return None
    return float(told) if 0.0 <= told <= 1.0 else None

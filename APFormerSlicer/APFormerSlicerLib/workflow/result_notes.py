"""What is kept on a segmentation about the result that it shows, and saved with the scene; another result ends it."""

from __future__ import annotations

import json
from typing import Any

from ..scene.provenance import of_node


def keep(segmentation_node: Any, attribute: str, name: str, value: Any) -> None:
    """Keep a value, plain data, with the present result."""
    segmentation_node.SetAttribute(attribute, json.dumps({"of": _result_of(segmentation_node), name: value}))


def kept(segmentation_node: Any, attribute: str, name: str) -> Any:
    """What was kept with the present result; None where nothing was, or somebody edited it by hand."""
    try:
        found = json.loads(segmentation_node.GetAttribute(attribute) or "{}")
        return found[name] if found["of"] == _result_of(segmentation_node) else None
    except (ValueError, TypeError, KeyError):
        return None


def _result_of(segmentation_node: Any) -> str:
    made_by = of_node(segmentation_node)
    return "" if made_by is None else f"{made_by.model_checksum[:16]} {made_by.date}"

"""What the network proposed, kept until a person has corrected it: the difference is what a training learns most from.

It lives as long as the program. After the scene was loaded again, a correction is still a training case, without it.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from apformer.bundles import Label

from ..scene import Result
from .scene_watch import SceneWatch

_FAST = 1  # zlib level: label maps are mostly one value


@dataclass(frozen=True)
class Proposal:
    """A label map as it came from the model. `model`: "liver-ct 1.1.0"."""

    model: str
    labels: tuple[Label, ...]
    shape_kji: tuple[int, ...]
    packed: bytes

    @property
    def array(self) -> np.ndarray:
        """uint8, (k, j, i)"""
        return np.frombuffer(zlib.decompress(self.packed), np.uint8).reshape(self.shape_kji)


class Proposals:
    """The last proposal for each segmentation and volume of a scene."""

    def __init__(self, watch: SceneWatch) -> None:
        self._kept: dict[tuple[Any, Any], Proposal] = {}
        watch.removed.connect(self._forget)
        watch.closing.connect(self._kept.clear)

    def keep(self, segmentation_node: Any, volume_node: Any, result: Result) -> None:
        array = np.ascontiguousarray(result.array, dtype=np.uint8)
        made_by = f"{result.provenance.model} {result.provenance.model_version}"
        packed = zlib.compress(array.tobytes(), _FAST)
        self._kept[segmentation_node, volume_node] = Proposal(made_by, tuple(result.labels), array.shape, packed)

    def of(self, segmentation_node: Any, volume_node: Any) -> Proposal | None:
        return self._kept.get((segmentation_node, volume_node))

    def _forget(self, node: Any) -> None:
        for key in [key for key in self._kept if node in key]:
            del self._kept[key]

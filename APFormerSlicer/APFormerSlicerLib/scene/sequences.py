"""Volumes over time: frames of a sequence as volumes, and a segmentation for each frame.

A vtkMRMLSequenceBrowserNode shows one frame at a time in a node of the scene, its proxy. The proxy, not the frames, has
the parent transform, and segmentations are made for the proxy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from apformer.errors import InputError
from apformer.volume import Volume

from .volumes import to_volume


@dataclass(frozen=True)
class Frames:
    """The frames that a volume node of the scene stands for, one at a time."""

    browser: Any
    sequence: Any
    proxy: Any

    @property
    def count(self) -> int:
        return int(self.sequence.GetNumberOfDataNodes())

    def read(self, number: int) -> Volume:
        """Frame `number` (from 0), placed as the proxy is; the view does not change. Raises as `to_volume` does, and
        InputError when there is no such frame."""
        self._check(number)
        return to_volume(self.sequence.GetNthDataNode(number), placed_by=self.proxy)

    def keep(self, number: int, segmentation_node: Any) -> Any:
        """Keep the segmentation as it is now as that of frame `number`, and return its sequence node.

        The first time, a sequence of segmentations is made that the browser plays along with the images, with
        `segmentation_node` as its proxy.

        Raises:
            InputError: there is no such frame.
        """
        self._check(number)
        kept = self.browser.GetSequenceNode(segmentation_node) or self._new_sequence(segmentation_node)
        kept.SetDataNodeAtValue(segmentation_node, self.sequence.GetNthIndexValue(number))
        return kept

    def _new_sequence(self, segmentation_node: Any) -> Any:
        scene = self.proxy.GetScene()
        name = scene.GenerateUniqueName(f"{segmentation_node.GetName()} sequence")
        kept = scene.AddNewNodeByClass("vtkMRMLSequenceNode", name)
        kept.SetIndexType(self.sequence.GetIndexType())
        kept.SetIndexName(self.sequence.GetIndexName())
        kept.SetIndexUnit(self.sequence.GetIndexUnit())
        self.browser.AddSynchronizedSequenceNodeID(kept.GetID())
        self.browser.AddProxyNode(segmentation_node, kept, False)
        return kept

    def _check(self, number: int) -> None:
        if not 0 <= number < self.count:
            raise InputError(
                f"{self.sequence.GetName()} has no frame {number}.",
                "There is nothing to segment.",
                f"Choose a frame from 0 to {self.count - 1}.",
            )


def frames_of(volume_node: Any) -> Frames | None:
    """The frames of which `volume_node` shows one; None for a volume that is not part of a sequence."""
    scene = volume_node.GetScene()
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLSequenceBrowserNode")):
        browser = scene.GetNthNodeByClass(number, "vtkMRMLSequenceBrowserNode")
        sequence = browser.GetSequenceNode(volume_node)
        if sequence is not None:
            return Frames(browser, sequence, volume_node)
    return None

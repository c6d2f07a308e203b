"""What is to be segmented: the nodes that can be chosen, and a choice turned into an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from apformer.errors import InputError
from apformer.volume import Volume

from ..scene import as_text, frames_of, to_roi, to_volume
from ..scene.provenance import of_node
from ..scene.segmentations import check_segmentation_node
from ..scene.segments import check_target
from .frames import shown_frame

DEFAULT_MAPS = ("uncertainty",)


@dataclass(frozen=True)
class Choice:
    """What a user asks to be segmented.

    Attributes:
        volume_node: a scalar or colour volume; of a sequence, its proxy.
        model: a reference, such as "liver-ct".
        roi_node: segment only within this box.
        segmentation_node: where to write; None for a new one.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        maps: those wanted beside the labels: "uncertainty", "kept_tokens".
        frame: of a sequence; None for the one that is shown.
    """

    volume_node: Any
    model: str
    roi_node: Any = None
    segmentation_node: Any = None
    device: str = "auto"
    maps: tuple[str, ...] = DEFAULT_MAPS
    frame: int | None = None


@dataclass(frozen=True)
class About:
    """What goes with the voxels of a choice. `roi` is as the worker reads it; `frame` is None outside of sequences."""

    roi: str | None
    notes: tuple[str, ...]
    frame: int | None


def segmentable(scene: Any) -> list[Any]:
    """The volumes that a user may want to segment: no label maps, no maps of ours, nothing hidden or empty."""
    return [node for node in _nodes(scene, "vtkMRMLScalarVolumeNode") if _is_offered(node)]


def regions(scene: Any) -> list[Any]:
    """The regions of interest."""
    return [node for node in _nodes(scene, "vtkMRMLMarkupsROINode") if not node.GetHideFromEditors()]


def read_image(choice: Choice, scene: Any) -> tuple[Volume, About]:
    """The voxels to segment, a view of the node's memory, and what goes with them.

    Raises:
        InputError: no volume, one that is not in the scene, or that cannot be segmented; the region lies outside.
    """
    node = choice.volume_node
    if node is not None and node.GetScene() is not scene:
        raise _gone(node)
    frames = None if node is None else frames_of(node)
    if frames is None:
        volume, frame = to_volume(node), None
    else:
        frame = shown_frame(frames) if choice.frame is None else choice.frame
        volume = frames.read(frame)
    if choice.roi_node is None:
        return volume, About(None, volume.notes, frame)
    if choice.roi_node.GetScene() is not scene:
        raise InputError(
            f"The region of interest {choice.roi_node.GetName()} was removed.",
            "It is not known where to segment.",
            "Choose another one, or none.",
        )
    roi, notes = to_roi(choice.roi_node, volume)
    return volume, About(as_text(roi), (*volume.notes, *notes), frame)


def check_place(choice: Choice) -> None:
    """Raises InputError or OutputError when the result could not be written where it is wanted."""
    target = choice.segmentation_node
    if target is None:
        return
    check_segmentation_node(target, choice.volume_node)
    check_target(target, choice.volume_node)


def _gone(node: Any) -> InputError:
    return InputError(
        f"{node.GetName()} is not in the scene any more.", "There is nothing to segment.", "Choose another volume."
    )


def _nodes(scene: Any, kind: str) -> list[Any]:
    return [scene.GetNthNodeByClass(number, kind) for number in range(scene.GetNumberOfNodesByClass(kind))]


def _is_offered(node: Any) -> bool:
    if node.IsA("vtkMRMLLabelMapVolumeNode") or node.GetHideFromEditors() or of_node(node) is not None:
        return False
    image = node.GetImageData()
    return image is not None and image.GetNumberOfPoints() > 0

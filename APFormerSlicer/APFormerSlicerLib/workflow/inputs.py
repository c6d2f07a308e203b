"""What is to be segmented: the nodes that can be chosen, and a choice turned into an image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from apformer.errors import InputError
from apformer.volume import Volume

from ..scene import as_text, frames_of, to_roi, to_volume
from ..scene.overlays import LOOKS
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
        overwrite: replace segments that a person made or accepted, too; see `precious`.
    """

    volume_node: Any
    model: str
    roi_node: Any = None
    segmentation_node: Any = None
    device: str = "auto"
    maps: tuple[str, ...] = DEFAULT_MAPS
    frame: int | None = None
    overwrite: bool = False


class PreciousError(InputError):
    """A result would replace segments that a person made or accepted: ask, then choose `overwrite`.

    Attributes:
        names: of the segments -> "accepted" or "made by hand".
    """

    def __init__(self, segmentation_name: str, names: Mapping[str, str]) -> None:
        told = ", ".join(f"{name} ({why})" for name, why in names.items())
        super().__init__(
            f"{segmentation_name} has segments of the model's names that are more than a proposal: {told}.",
            "The result would replace them.",
            "Choose another segmentation or a new one, rename them, or agree to replace them (overwrite=True).",
        )
        self.names = dict(names)


@dataclass(frozen=True)
class About:
    """What goes with the voxels of a choice. `roi` is as the worker reads it; `frame` is None outside of sequences."""

    roi: str | None
    notes: tuple[str, ...]
    frame: int | None


def segmentable(scene: Any) -> list[Any]:
    """The volumes that a user may want to segment: no label maps, no maps of ours, nothing hidden or empty."""
    return [node for node in _nodes(scene, "vtkMRMLScalarVolumeNode") if _is_offered(node)]


def images_of(scene: Any, nodes: Iterable[Any]) -> tuple[list[Any], tuple[str, ...]]:
    """Of the nodes that somebody asks to be segmented those that are `segmentable`, and the names of the others: maps
    of ours, label maps, what is hidden or empty. What is no node, or not in the scene, stays, to be refused in turn.

    Raises:
        InputError: none is left.
    """
    offered = segmentable(scene)
    wanted: list[Any] = []
    left_out: list[str] = []
    for node in nodes:
        if any(node is one for one in offered) or not hasattr(node, "GetScene") or node.GetScene() is not scene:
            wanted.append(node)
        else:
            left_out.append(str(node.GetName()))
    if not wanted:
        raise InputError(
            f"There is no image to segment in {', '.join(left_out)}." if left_out else "No volume is chosen.",
            "There is nothing to segment.",
            "Choose one volume or more.",
        )
    return wanted, tuple(left_out)


def regions(scene: Any) -> list[Any]:
    """The regions of interest."""
    return [node for node in _nodes(scene, "vtkMRMLMarkupsROINode") if not node.GetHideFromEditors()]


def read_image(choice: Choice, scene: Any) -> tuple[Volume, About]:
    """The voxels to segment, a view of the node's memory, and what goes with them.

    Raises:
        InputError: no volume, one that is not in the scene, or that cannot be segmented; the region lies outside;
            something else than a node, a model's name, a device or a map was passed.
    """
    check_kinds(choice)
    node = choice.volume_node
    if node is not None and node.GetScene() is not scene:
        raise _gone(node)
    if node is not None and of_node(node) is not None and not node.IsA("vtkMRMLLabelMapVolumeNode"):
        raise InputError(
            f"{node.GetName()} is a map that a model made.",
            "It shows where the network was unsure or looked; segmenting it gives a meaningless result.",
            "Choose the image it was made of.",
        )
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


def check_kinds(choice: Choice) -> None:
    """Raises InputError when a script passed something of another kind, such as a node's name for a node."""
    for value, what, kind, example in (
        (choice.volume_node, "volume", None, "slicer.util.getNode('CTLiver')"),
        (choice.roi_node, "region of interest", "vtkMRMLMarkupsROINode", "slicer.util.getNode('R')"),
        (choice.segmentation_node, "segmentation", None, "slicer.util.getNode('Segmentation')"),
    ):
        if value is not None and (not hasattr(value, "IsA") or (kind is not None and not value.IsA(kind))):
            raise _wrong(f"The {what} {_shown(value)} is no node of that kind.", f"Pass the node, as by {example}.")
    if not isinstance(choice.model, str):
        raise _wrong(f"The model {_shown(choice.model)} is no text.", "Pass its name, such as 'liver-ct'.")
    if not isinstance(choice.device, str):
        raise _wrong(
            f"The device {_shown(choice.device)} is no text.", "Pass 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'."
        )
    if choice.frame is not None and (not isinstance(choice.frame, int) or isinstance(choice.frame, bool)):
        raise _wrong(f"The frame {_shown(choice.frame)} is no whole number.", "Pass its number, from 0.")
    maps: Any = choice.maps
    unknown = [maps] if isinstance(maps, str) or not isinstance(maps, list | tuple | set | frozenset) else [
        name for name in maps if name not in LOOKS
    ]  # fmt: skip
    if unknown:
        known = ", ".join(repr(name) for name in LOOKS)
        raise _wrong(
            f"There is no map {_shown(unknown[0])}.", f"Pass a list of some of these, or an empty one: {known}."
        )


def _wrong(what: str, remedy: str) -> InputError:
    return InputError(what, "Nothing was started.", remedy)


def _shown(value: object) -> str:
    return repr(value)[:80]


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

"""A segmentation that came as a file: laid over the chosen image where it fits, asked about where that is uncertain,
and refused where it is certain to be of another one."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from apformer.errors import InputError
from apformer.volume import Source

from ..scene import read_segmentation
from ..scene.origin import is_of_another_frame, is_of_another_image, lies_on_grid, reaches_outside
from ..workflow.signals import Signal


class Doubtful:
    """The one that waits for the user's answer; until then it is nobody's, and not seen.

    Attributes:
        why: what speaks against it; "" where none waits.
        changed: another one waits, or none any more.
    """

    def __init__(self) -> None:
        self.why = ""
        self.changed: Signal[()] = Signal()
        self._node: Any = None
        self._volume: Any = None

    def of(self, volume_node: Any) -> Any:
        """The one that may be laid over that image, or None: an answer counts for the image that was asked about."""
        return self._node if volume_node is self._volume else None

    def ask(self, segmentation_node: Any, volume_node: Any, why: str) -> None:
        self.leave_out()
        segmentation_node.SetHideFromEditors(True)
        self._node, self._volume, self.why = segmentation_node, volume_node, why
        self.changed.emit()

    def take(self) -> Any:
        """The user agrees: its node."""
        node = self._node
        node.SetHideFromEditors(False)
        self._node, self._volume, self.why = None, None, ""
        self.changed.emit()
        return node

    def leave_out(self) -> None:
        """Remove the one that waits, if any."""
        node, self._node, self._volume, self.why = self._node, None, None, ""
        if node is not None:
            if node.GetScene() is not None:
                node.GetScene().RemoveNode(node)
            self.changed.emit()


def read_for(path: Path, volume_node: Any, source: Source | None) -> tuple[Any, str]:
    """The segmentation in a file, unseen, and what speaks against its being of the volume; "" where nothing does.

    Args:
        source: the files that the volume came from, where they are still there.

    Raises:
        InputError: it cannot be read, or is of another image for certain.
    """
    node = read_segmentation(path, volume_node.GetScene())
    node.GetDisplayNode().SetVisibility(False)
    image = volume_node.GetName()
    against = _against(node, volume_node, source)
    if against is not None:
        volume_node.GetScene().RemoveNode(node)
        raise InputError(
            f"{path.name} is not of {image}: {against}.",
            "Over this image its structures would lie in the wrong place, or be those of another patient.",
            "Choose the image that it was drawn on, then upload it again.",
        )
    if is_of_another_image(node, volume_node):
        return node, f"it was drawn on an image with other voxels than {image}"
    if not lies_on_grid(node, volume_node):
        return node, f"its voxels are not those of {image}: size, spacing or place differ"
    return node, ""


def _against(node: Any, volume_node: Any, source: Source | None) -> str | None:
    if is_of_another_frame(node, frame_of_reference(source)):
        return "it was drawn in another frame of reference (DICOM)"
    if reaches_outside(node, volume_node):
        return "parts of it lie outside of the image"
    return None


def frame_of_reference(source: Source | None) -> str | None:
    """DICOM's Frame of Reference UID of the files; None where there are none, or they do not say."""
    from apformer.files.dicom.file import open_dicom

    if source is None or not source.dicom_files:
        return None
    with suppress(InputError, OSError):
        return open_dicom(source.dicom_files[0]).text("FrameOfReferenceUID") or None
    return None

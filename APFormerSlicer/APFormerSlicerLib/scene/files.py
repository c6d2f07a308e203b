"""Segmentations on disk (.seg.nrrd), through Slicer's own reader and writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
from apformer.errors import InputError, OutputError


def write_segmentation(path: Path | str, segmentation_node: Any) -> None:
    """Write the segmentation, completely or not at all; where Slicer would save the node is not changed.

    Raises:
        OutputError: not a .seg.nrrd path; the file cannot be written.
    """
    from apformer.files import atomic_path, suffix_of

    if suffix_of(path) != ".seg.nrrd":
        raise OutputError(f"{path} is no .seg.nrrd file.", "Segments would lose their names.", "End it in .seg.nrrd.")
    with atomic_path(path) as temporary:
        if not _storage(temporary).WriteData(segmentation_node):
            raise OutputError(
                f"{segmentation_node.GetName()} could not be written to {path}.",
                "Nothing was saved.",
                "See Slicer's error log, and check that there is space on the disk.",
            )


def read_segmentation(path: Path | str, scene: Any) -> Any:
    """A new vtkMRMLSegmentationNode in `scene`, named after the file.

    Raises:
        InputError: missing, damaged, or not a segmentation.
    """
    from apformer.files import nrrd, suffix_of
    from apformer.files.formats import require_file

    require_file(Path(path))
    if suffix_of(path) != ".seg.nrrd":
        raise InputError(f"{path} is not a .seg.nrrd file.", "Its segments are not known.", "Choose a segmentation.")
    nrrd.read(Path(path))  # a damaged file ends the process in Slicer's reader: teem's error is thrown, not caught
    name = scene.GenerateUniqueName(Path(path).name.removesuffix(".seg.nrrd"))
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    if not _storage(path).ReadData(node):
        scene.RemoveNode(node)
        raise InputError(
            f"{path} could not be read.",
            "The file is damaged, truncated, or not a segmentation.",
            "Export or copy it again, and check that it opens elsewhere.",
        )
    node.CreateDefaultDisplayNodes()
    return node


def _storage(path: Path | str) -> Any:
    """A storage node outside the scene."""
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    return storage

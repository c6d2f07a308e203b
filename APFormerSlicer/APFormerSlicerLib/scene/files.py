"""Segmentations on disk (.seg.nrrd), through Slicer's own reader and writer."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
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

    Slicer's reader, which follows what a header names and ends the process on a damaged one (teem's error is thrown,
    not caught), sees a copy that the engine wrote from what it had checked.

    Raises:
        InputError: missing, damaged, or not a segmentation.
    """
    from apformer.files import nrrd, suffix_of
    from apformer.files.formats import require_file

    path = Path(path)
    require_file(path)
    if suffix_of(path) != ".seg.nrrd":
        raise InputError(f"{path} is not a .seg.nrrd file.", "Its segments are not known.", "Choose a segmentation.")
    header = nrrd.read_header(path)
    checked = nrrd.read_voxels(header, nrrd.layer_axes(header), "seg.nrrd")
    name = scene.GenerateUniqueName(path.name.removesuffix(".seg.nrrd"))
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    with TemporaryDirectory(prefix="apformer-read-") as folder:
        copy = Path(folder) / "checked.seg.nrrd"
        nrrd.write_voxels(copy, checked.array, checked.ijk_to_ras, header.pairs, level=0)
        read = _storage(copy).ReadData(node)
    if not read:
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

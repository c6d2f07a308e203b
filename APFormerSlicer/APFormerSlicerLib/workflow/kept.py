"""What the worker found, kept in its files until somebody asks for it: maps that were not looked at yet, and what the
network proposed. The difference to what a person made of it is what a training learns most from.

It lives as long as the program. After the scene was loaded again, a correction is still a training case, without it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from apformer.bundles import Label
from apformer.errors import InputError
from apformer.part import Part

from ..scene.overlays import is_shown, overlay, write_overlay
from ..scene.provenance import of_node, record_on_node
from .hosts import Worker
from .scene_watch import SceneWatch

_LABELS = "labels"
# A file that is mapped is read where it is looked at, and keeps its content when it is removed; not so on Windows.
_MAPPED = os.name != "nt"


@dataclass(frozen=True)
class Kept:
    """A result's files.

    Attributes:
        model: such as "liver-ct 1.1.0".
        paths, places: by output, "labels" and maps; see `Part.place`.
    """

    model: str
    labels: tuple[Label, ...]
    folder: Path
    paths: Mapping[str, Path]
    places: Mapping[str, Mapping[str, Any]]

    @property
    def shape_kji(self) -> tuple[int, ...]:
        """Of the volume that was segmented."""
        return tuple(self.places[_LABELS]["shape_kji"])

    @property
    def proposal(self) -> tuple[Path, Mapping[str, Any]]:
        """The file with the label map as it came from the model, and where it lies."""
        return self.paths[_LABELS], self.places[_LABELS]

    @property
    def maps(self) -> tuple[str, ...]:
        return tuple(name for name in self.paths if name != _LABELS)

    def read(self, name: str, mapped: bool = False) -> Part:
        """An output. `mapped`: with its memory in the file, where the system allows that.

        Raises:
            InputError: the file cannot be read.
        """
        return read_part(self.paths[name], self.places[name], mapped)


def read_part(path: Path, place: Mapping[str, Any], mapped: bool = False) -> Part:
    """A file of the worker's; raises InputError when it cannot be read."""
    try:
        # "c": what is written to the memory stays out of the file
        array = np.load(path, mmap_mode="c" if mapped and _MAPPED else None, allow_pickle=False)
        return Part.at(np.asarray(array), place)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"The result could not be read ({type(error).__name__}).",
            "Its files were removed or damaged before they could be shown.",
            "Segment again; if it happens again, check that the disk is not full.",
        ) from error


class KeptResults:
    """The last result for each segmentation and volume of a scene."""

    def __init__(self, watch: SceneWatch, worker: Worker) -> None:
        self._worker = worker
        self._kept: dict[tuple[Any, Any], Kept] = {}
        self._unseen: dict[tuple[Any, Any], set[str]] = {}  # maps that are no nodes yet
        watch.removed.connect(self._forget)
        watch.closing.connect(self.clear)
        watch.saving.connect(self._show_all)

    def keep(self, segmentation_node: Any, volume_node: Any, kept: Kept) -> None:
        """Take over the files of a result that is on the scene. Maps of an earlier one that somebody looks at are
        brought up to date, others are removed: they would be of another result."""
        replaced = self.swap(segmentation_node, volume_node, kept)
        if replaced is not None:
            self._worker.discard(replaced.folder)

    def swap(self, segmentation_node: Any, volume_node: Any, kept: Kept) -> Kept | None:
        """As `keep`; the files of the result whose place it takes are the caller's to discard, or to swap in again."""
        key = segmentation_node, volume_node
        for other in [other for other in self._kept if other[0] is segmentation_node]:
            self._unseen[other].clear()  # a segmentation has one map of each kind
        replaced = self._kept.get(key)
        self._kept[key], self._unseen[key] = kept, set(kept.maps)
        for name in ("uncertainty", "kept_tokens"):
            node = overlay(segmentation_node, name)
            if node is None:
                continue
            if name in kept.maps and is_shown(node):
                self.overlay(segmentation_node, name)
            else:
                segmentation_node.GetScene().RemoveNode(node)
        return replaced

    def of(self, segmentation_node: Any, volume_node: Any) -> Kept | None:
        return self._kept.get((segmentation_node, volume_node))

    def unseen(self, segmentation_node: Any) -> set[str]:
        """The maps of the segmentation that are no nodes of the scene yet."""
        return {name for key, names in self._unseen.items() if key[0] is segmentation_node for name in names}

    def overlay(self, segmentation_node: Any, name: str) -> Any:
        """The node of a map, which is made now if it was not looked at before; None when there is no such map.

        Raises:
            InputError: its file cannot be read, or the volume was changed.
        """
        for key, names in self._unseen.items():
            if key[0] is segmentation_node and name in names:
                part = self._kept[key].read(name, mapped=True)
                node = write_overlay(segmentation_node, key[1], name, part)
                made_by = of_node(segmentation_node)
                if made_by is not None:
                    record_on_node(node, made_by)
                names.discard(name)
                return node
        return overlay(segmentation_node, name)

    def clear(self) -> None:
        for key in list(self._kept):
            self._drop(key)

    def _show_all(self) -> None:
        """The scene is about to be saved, with all maps of its results."""
        for segmentation_node, _ in list(self._kept):
            for name in list(self.unseen(segmentation_node)):
                self.overlay(segmentation_node, name)

    def _forget(self, node: Any) -> None:
        for key in [key for key in self._kept if node in key]:
            self._drop(key)

    def _drop(self, key: tuple[Any, Any]) -> None:
        del self._unseen[key]
        self._worker.discard(self._kept.pop(key).folder)

"""What a user uploaded: which files belong to which open image, and the series that wait to be chosen."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apformer.errors import InputError

from ..workflow.signals import Signal
from .quota import Quota, Upload


@dataclass(frozen=True)
class Offered:
    """A DICOM series that the user may load. It stays here: the page knows its number and the words to show."""

    uid: str
    title: str
    line: str
    upload: Upload


class Uploads:
    """Of one session. All methods are called on the main thread.

    Attributes:
        offered: the series of the last upload that held several; a page names one by its place in this list.
        offers_changed: others are offered, or none any more.
    """

    def __init__(self, folder: Path, quota: Quota) -> None:
        self.quota = quota
        self.offered: list[Offered] = []
        self.offers_changed: Signal[()] = Signal()
        self._folder = folder
        self._files: dict[str, Upload] = {}  # node ID -> what it came from
        self._voxel_bytes: dict[str, int] = {}

    def begin(self) -> Upload:
        """A new, empty upload."""
        self._folder.mkdir(exist_ok=True)
        return Upload(Path(tempfile.mkdtemp(dir=self._folder)), self.quota)

    def add_image(self, node: Any, upload: Upload | None = None) -> None:
        """An image is on the scene; `upload` stays until it is closed.

        Raises:
            InputError: its voxels are more than the session may still hold. It is not counted then.
        """
        size = node.GetImageData().GetActualMemorySize() * 1024
        self.quota.hold(size)
        self._voxel_bytes[node.GetID()] = size
        if upload is not None:
            upload.use(node.GetID())
            self._files[node.GetID()] = upload

    def close_image(self, node_id: str) -> None:
        """An image was closed: its files go, unless another image came with them."""
        self.quota.release(self._voxel_bytes.pop(node_id, 0))
        upload = self._files.pop(node_id, None)
        if upload is not None:
            upload.leave(node_id)

    def offer(self, series: Sequence[Offered]) -> None:
        """Keep these for a choice; those that were offered before and not chosen are gone, with their files."""
        before, self.offered = self.offered, list(series)
        for one in series:
            one.upload.use(_OFFER)
        kept = {id(one.upload) for one in series}
        for upload in {id(one.upload): one.upload for one in before if id(one.upload) not in kept}.values():
            upload.leave(_OFFER)
        self.offers_changed.emit()

    def take(self, number: int) -> Offered:
        """One of those offered, for loading: end with `offer([])`, once its image is there. Raises InputError."""
        if not 0 <= number < len(self.offered):
            raise InputError(
                "This series is not offered any more.",
                "Another one was loaded, or other files were uploaded.",
                "Upload the series again.",
            )
        return self.offered[number]


_OFFER = "offered"  # as a user of an upload; node IDs begin with "vtk"

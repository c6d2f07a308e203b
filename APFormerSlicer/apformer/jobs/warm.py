"""What stays loaded between jobs: torch, and the last model that was used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..allocator import give_back
from ..errors import BundleError

if TYPE_CHECKING:
    from ..bundles import ModelLibrary
    from ..inference import Segmenter


class Warm:
    """The last Segmenter, kept by its model's folder and checksum and by the device."""

    def __init__(self) -> None:
        self._segmenter: Segmenter | None = None
        self._device = ""

    @staticmethod
    def prepare() -> None:
        """Import what nearly every job needs, before it is needed."""
        from .. import files, inference  # noqa: F401

    def segmenter(self, model: str, device: str) -> Segmenter:
        """A Segmenter for the model of that name or in that folder.

        The one that is kept serves again while the model's SHA256SUMS is unchanged; then nothing else is read.

        Raises:
            BundleError: no such model, or it is unsound.
            DeviceError: the device is absent.
        """
        from ..bundles import ModelLibrary
        from ..inference import Segmenter, choose_device

        place = str(choose_device(device))  # an absent device is told before weights are read
        library = ModelLibrary()
        kept = self._segmenter
        if kept is not None and self._device == place and _is_unchanged(kept, _folder_of(library, model)):
            return kept
        bundle = library.find(model)
        self._segmenter = kept = None  # before the next one is loaded: two may not fit
        self._segmenter, self._device = Segmenter(bundle, place), place
        return self._segmenter

    def release(self) -> None:
        """Give back the memory of the model that is kept, on the GPU too: another kind of job needs all there is."""
        import torch

        self._segmenter = None
        give_back()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        elif self._device == "mps":
            torch.mps.empty_cache()


def _folder_of(library: ModelLibrary, model: str) -> Path:
    """The folder that `ModelLibrary.find` loads; raises as it does when no version is active."""
    return library.directory(model) or Path(model).expanduser().absolute()


def _is_unchanged(segmenter: Segmenter, folder: Path) -> bool:
    from ..bundles.manifest import read_manifest

    if segmenter.bundle.directory != folder:
        return False
    try:
        return read_manifest(folder).checksum == segmenter.bundle.checksum
    except BundleError:  # loading it will say what is wrong
        return False

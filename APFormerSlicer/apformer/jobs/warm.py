"""What stays loaded between jobs: torch, and the last model that was used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BundleError

if TYPE_CHECKING:
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
        if kept is not None and self._device == place and _is_unchanged(kept, _folder_of(library.roots, model)):
            return kept
        bundle = library.find(model)
        self._segmenter = kept = None  # before the next one is loaded: two may not fit
        self._segmenter, self._device = Segmenter(bundle, place), place
        return self._segmenter


def _folder_of(roots: tuple[Path, ...], model: str) -> Path:
    """Where `ModelLibrary.find` looks first that exists; a wrong guess only costs a reload."""
    named = next((root / model for root in roots if (root / model).is_dir()), None)
    return Path(model).expanduser().absolute() if named is None else named


def _is_unchanged(segmenter: Segmenter, folder: Path) -> bool:
    from ..bundles.manifest import read_manifest

    if segmenter.bundle.directory != folder:
        return False
    try:
        return read_manifest(folder).checksum == segmenter.bundle.checksum
    except BundleError:  # loading it will say what is wrong
        return False

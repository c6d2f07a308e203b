"""The models installed on this computer: find, list, import, export, remove."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import BundleError
from .archive import extract_archive, write_archive
from .bundle import Bundle, check_name, load_bundle
from .swap import put_in_place, recover_all, remove_folder, staging

MODELS_VARIABLE = "APFORMER_MODELS"


@dataclass(frozen=True)
class ModelEntry:
    """One installed model; `problem` says why it cannot be used, and is None for a sound one (then `bundle` is set)."""

    name: str
    version: str | None
    directory: Path
    read_only: bool
    problem: str | None = None
    bundle: Bundle | None = None


def user_models() -> Path:
    """Where a user's models are kept: $APFORMER_MODELS, else the place this system has for a program's data."""
    chosen = os.environ.get(MODELS_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return base / "APFormerSlicer" / "Models"


def bundled_models() -> list[Path]:
    """Where the models that come with this program are: in a source tree, and in an installed module."""
    package = Path(__file__).resolve().parents[1]
    places = (package.parents[1] / "Resources" / "Models", package.parent / "Resources" / "Models")
    return [place for place in places if place.is_dir()]


class ModelLibrary:
    """Models in folders, one folder per model, named as the model.

    Args:
        roots: folders that hold models, searched in this order. The first one is the user's: models are imported to
            it and removed from it, and it need not exist yet. The others are read-only. Default: `user_models`, then
            `bundled_models`.
    """

    def __init__(self, roots: Sequence[str | Path] | None = None) -> None:
        chosen = [user_models(), *bundled_models()] if roots is None else roots
        if not chosen:
            raise ValueError("a model library needs at least one folder")
        self.roots: tuple[Path, ...] = tuple(Path(root).expanduser().absolute() for root in chosen)

    @property
    def user_root(self) -> Path:
        """The folder that models are imported to."""
        return self.roots[0]

    def find(self, name_or_directory: str | Path) -> Bundle:
        """The model of that name, or the one in that folder. A name is looked up in the library first.

        Raises:
            BundleError: there is none, or it is unsound.
        """
        directory = self._locate(str(name_or_directory)) if isinstance(name_or_directory, str) else None
        if directory is not None:
            return _load_named(directory)
        if os.path.isdir(os.path.expanduser(name_or_directory)):
            return load_bundle(name_or_directory)
        raise self._not_found(str(name_or_directory))

    def list(self) -> list[ModelEntry]:
        """What `find` can reach by name, sorted by name; unsound models too, with the reason."""
        recover_all(self.user_root)
        entries: dict[str, ModelEntry] = {}
        for root in self.roots:
            for directory in _folders(root):
                if directory.name not in entries:
                    entries[directory.name] = self._entry(directory)
        return [entries[name] for name in sorted(entries)]

    def import_zip(self, path: str | Path, *, replace: bool = False) -> Bundle:
        """Verify the model in a zip file and install it.

        Raises:
            BundleError: the zip or the model in it is unsound, or a model of that name is there and `replace` is False.
            OutputError: the user's folder cannot be written.
        """
        with staging(self.user_root / "import") as stage:
            extract_archive(Path(path).expanduser().absolute(), stage)
            bundle = load_bundle(stage)
            bundle.build_network()
            target = self.user_root / bundle.name
            if not replace and self._locate(bundle.name) is not None:
                raise BundleError(
                    f"A model named {bundle.name} is installed already.",
                    "Importing would hide or replace it, so nothing was changed.",
                    "Remove it first, or import again and ask to replace it.",
                )
            put_in_place(stage, target)
        return load_bundle(target)

    def export_zip(self, name_or_directory: str | Path, path: str | Path) -> Path:
        """Write a model to the zip file `path` (or into the folder `path`) and return the zip's path.

        Raises:
            BundleError: there is no such model, or it is unsound.
            OutputError: the file cannot be written.
        """
        return write_archive(self.find(name_or_directory), Path(path))

    def remove(self, name: str) -> None:
        """Remove the user's model of that name, sound or not.

        Raises:
            BundleError: there is none, or it came with the program.
            OutputError: it cannot be removed.
        """
        directory = self._locate(name)
        if directory is None:
            raise self._not_found(name)
        if self._read_only(directory):
            raise BundleError(
                f"The model {name} came with this program.",
                "It is shared by everyone who uses this installation and is not removed.",
                "Only models that you imported or trained can be removed.",
            )
        remove_folder(directory)

    def _locate(self, name: str) -> Path | None:
        """The folder of the model `name`; None when there is none, or when `name` cannot be a name."""
        try:
            check_name(name)
        except BundleError:
            return None
        recover_all(self.user_root)
        return next((root / name for root in self.roots if (root / name).is_dir()), None)

    def _read_only(self, directory: Path) -> bool:
        return directory.parent != self.user_root

    def _entry(self, directory: Path) -> ModelEntry:
        read_only = self._read_only(directory)
        try:
            bundle = _load_named(directory)
        except BundleError as error:
            return ModelEntry(directory.name, None, directory, read_only, problem=str(error))
        return ModelEntry(bundle.name, bundle.version, directory, read_only, bundle=bundle)

    def _not_found(self, name: str) -> BundleError:
        names = ", ".join(entry.name for entry in self.list() if entry.problem is None)
        return BundleError(
            f"There is no model '{name[:200]}'.",
            "It is neither the name of an installed model nor a folder.",
            f"Choose one of: {names}." if names else f"Import one; models are kept in {self.user_root}.",
        )


def _folders(root: Path) -> list[Path]:
    """Folders in `root` that may be models; hidden ones are being written or were left by a crash."""
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:  # a root that is missing or unreadable holds no models for this user
        return []


def _load_named(directory: Path) -> Bundle:
    bundle = load_bundle(directory)
    if bundle.name != directory.name:
        raise BundleError(
            f"The folder {directory} holds the model {bundle.name}.",
            "Models in the library are found by their folder's name, so the two must agree.",
            f"Rename the folder to {bundle.name}.",
        )
    return bundle

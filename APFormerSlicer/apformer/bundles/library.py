"""The user's models: imported, exported and removed; versions added, made active, and rolled back."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from ..errors import BundleError
from .archive import extract_archive, write_archive
from .bundle import Bundle, load_bundle
from .catalogue import Catalogue
from .record import ACTIVATED, IMPORTED, REMOVED, ROLLED_BACK
from .swap import put_in_place, remove_folder, staging, unwritable
from .versions import BUNDLED, split_reference, tidy

MODELS_VARIABLE = "APFORMER_MODELS"
LOCK_FILE = ".lock"
# Longer than a large model takes to write and prove: what was trained must not be lost to a short wait for the lock.
_WAIT_S = 60.0


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


class InstalledError(BundleError):
    """A model called `name` is there; importing again, with `replace`, takes its place."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"A model named {name} is installed already.",
            "Importing would hide or replace it, so nothing was changed.",
            "Remove it first, or import again and ask to replace it.",
        )
        self.name = name


class ModelLibrary(Catalogue):
    """The catalogue of all models, and every change to those of the user, by one process at a time.

    Args:
        roots: folders that hold models, searched in this order. The first one is the user's: models are imported to
            it, trained in it and removed from it, and it need not exist yet. The others are read-only. Default:
            `user_models`, then `bundled_models`.
    """

    def __init__(self, roots: Sequence[str | Path] | None = None) -> None:
        super().__init__([user_models(), *bundled_models()] if roots is None else roots)
        self._tidied = False

    def add_version(self, write: Callable[[Path], object]) -> Bundle:
        """Take in a new version, which is not active yet: wholly or not at all, whenever the process is killed.

        Args:
            write: writes the bundle to the folder it is given, which does not exist yet. The library is locked
                meanwhile: a number that `write` gets from `next_version` is taken by no other process. It must not
                change the library itself.

        Raises:
            BundleError: the bundle is unsound, or a model of that name and version exists.
            OutputError: the user's folder cannot be written, or another process changes it for too long.
        """
        with self._locked(), staging(self._versions_root / "adding") as stage:
            write(stage / "bundle")
            bundle = load_bundle(stage / "bundle")
            self._refuse_taken(bundle)
            directory = self._versions(bundle.name).add(stage / "bundle", bundle.version)
        return replace(bundle, directory=directory)

    def activate(self, name: str, version: str, why: str = "") -> Bundle:
        """Make a version, proved sound, what `find` gives for `name`; `why` goes into the log.

        Args:
            version: a number, "bundled" or "imported".

        Raises:
            BundleError: there is no such version, it is unsound, or an imported model hides it.
            OutputError: the user's folder cannot be written; nothing changed.
        """
        self._known(name)
        with self._locked():
            directory = self.directory(f"{name}@{version}")
            if directory is None:
                raise self._not_found(f"{name}@{version}")
            bundle = self._load(directory)
            self._versions(name).activate(self._number(directory), ACTIVATED, why)
        return bundle

    def rollback(self, name: str, why: str = "") -> Bundle:
        """Make active again what was active before; the version that is active now stays in the library.

        Raises:
            BundleError: nothing was active before, or it is not there any more, or unsound; nothing changed.
            OutputError: the user's folder cannot be written; nothing changed.
        """
        self._known(name)
        with self._locked():
            versions = self._versions(name)
            earlier = versions.record().earlier()
            number = earlier[-1] if earlier else None
            directory = self._base(name) if number is None else versions.directory(number)
            if not earlier or directory is None:
                raise BundleError(
                    f"There is no earlier {name} to go back to.",
                    "Nothing else was active before, or it was removed since.",
                    f"Choose a version: {versions.choice()}",
                )
            if number is not None and not directory.is_dir():
                raise versions.missing(number)
            bundle = self._load(directory)
            versions.note(ROLLED_BACK, number, why)
        return bundle

    def import_zip(self, path: str | Path, *, replace: bool = False) -> Bundle:
        """Verify the model in a zip file and install it.

        Where versions of that name were trained, replacing loses nothing: the model becomes one more version, and the
        active one.

        Raises:
            InstalledError: a model of that name is there and `replace` is False.
            BundleError: the zip or the model in it is unsound; another model of that name and version is there beside
                trained ones.
            OutputError: the user's folder cannot be written.
        """
        path = Path(path).expanduser().absolute()
        with staging(self.user_root / "import") as stage:
            extract_archive(path, stage)
            bundle = load_bundle(stage)
            bundle.build_network()
            with self._locked():
                if not replace and self._directories(bundle.name):
                    raise InstalledError(bundle.name)
                if self._versions(bundle.name).numbers():
                    return self._import_version(stage, bundle, f"from {path.name}")
                target = self.user_root / bundle.name
                put_in_place(stage, target)
        return load_bundle(target)

    def export_zip(self, reference_or_directory: str | Path, path: str | Path, *, pictures: bool = False) -> Path:
        """Write a model to the zip file `path` (or into the folder `path`) and return the zip's path.

        Pictures of cases stay behind, since they are of patients, unless `pictures` says otherwise.

        Raises:
            BundleError: there is no such model, or it is unsound.
            OutputError: the file cannot be written.
        """
        return write_archive(self.find(reference_or_directory), Path(path), pictures)

    def remove(self, reference: str, *, all_versions: bool = False) -> None:
        """Remove the user's model NAME, sound or not, or one version of it, NAME@VERSION, that is not active.

        Args:
            all_versions: remove a model that has trained versions, and all of these; what came with the program stays.

        Raises:
            BundleError: there is none, it came with the program, it is the active version, or it has trained versions
                and `all_versions` is False.
            OutputError: it cannot be removed.
        """
        name, version = split_reference(reference) or ("", None)
        if version is None:
            self._known(reference)
            with self._locked():
                self._remove_model(name, all_versions)
        else:
            self._known(name)
            with self._locked():
                self._remove_version(name, version)

    def _remove_model(self, name: str, all_versions: bool) -> None:
        versions, base = self._versions(name), self._base(name)
        kept = versions.numbers()
        if kept and not all_versions:
            raise BundleError(
                f"{name} has versions that are kept: {', '.join(kept)}.",
                "They would be lost for good, so nothing was removed.",
                f"Remove one with `apformer models remove {name}@VERSION`, or everything with --all-versions; "
                "`apformer models export` keeps a copy.",
            )
        imported = base is not None and self._origin(base) != BUNDLED
        if not kept and not imported:
            raise _came_with_the_program(name)
        if versions.folder.is_dir():
            remove_folder(versions.folder)
            with suppress(OSError):  # of other names there may be versions
                self._versions_root.rmdir()
        if base is not None and imported:
            remove_folder(base)

    def _remove_version(self, name: str, version: str) -> None:
        directory = self._exact(name, version)
        if directory is None:
            raise self._not_found(f"{name}@{version}")
        if self._origin(directory) == BUNDLED:
            raise _came_with_the_program(f"{name} {version}")
        if directory == self._active(name):
            raise BundleError(
                f"{name} {version} is the active version.",
                "Removing it would leave open which other one to use, so nothing was removed.",
                f"Make another one active first (`apformer models activate {name} VERSION`), or remove all of {name}.",
            )
        number = self._number(directory)
        if self._versions(name).numbers():  # noted first: what is noted and still there can be removed again
            self._versions(name).note(REMOVED, number, f"{name} {version}")
        remove_folder(directory)

    def _import_version(self, stage: Path, bundle: Bundle, why: str) -> Bundle:
        """Add the bundle in `stage` to the versions of its name, unless the very same is there, and make it active."""
        versions, present = self._versions(bundle.name), self._exact(bundle.name, bundle.version)
        if present is None:
            directory = versions.add(stage, bundle.version)
            versions.activate(bundle.version, IMPORTED, why)
            return replace(bundle, directory=directory)
        if self._load(present).checksum != bundle.checksum:
            raise _taken(bundle)
        versions.activate(self._number(present), ACTIVATED, why)
        return replace(bundle, directory=present)

    def _number(self, directory: Path) -> str | None:
        """What the record calls the version in `directory`: its number, or None for the imported or bundled model."""
        if self._is_trained(directory):
            return directory.name
        base = self._base(directory.name)
        if directory != base:
            raise BundleError(
                f"The imported model in {base} hides the one in {directory}.",
                "Only one of them can be what the versions of that name started from.",
                f"Remove the imported one first: `apformer models remove {directory.name}@imported`.",
            )
        return None

    def _refuse_taken(self, bundle: Bundle) -> None:
        """A version is also a folder's name: 1.0.0-A and 1.0.0-a are one on some systems, and a last dot is lost."""
        kept = [number.lower() for number in self._versions(bundle.name).numbers()]
        if self._exact(bundle.name, bundle.version) is not None or bundle.version.lower() in kept:
            raise _taken(bundle)
        if bundle.version.endswith("."):
            raise BundleError(
                f"The version {bundle.version} ends with a dot.", "No folder can have that name.", "Choose another."
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Be the only process that changes the user's models."""
        from ..files.lock import folder_lock, sweep_claims

        try:
            self.user_root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.user_root, error) from error
        with folder_lock(self.user_root / LOCK_FILE, _WAIT_S) as taken_over:
            if taken_over or not self._tidied:
                tidy(self._versions_root)
                sweep_claims(self.user_root / LOCK_FILE)
                self._tidied = True
            yield


def _taken(bundle: Bundle) -> BundleError:
    return BundleError(
        f"There is a {bundle.name} {bundle.version} already.",
        "A version is never changed once it is there, so nothing was written.",
        "Give the new one another version, or another name.",
    )


def _came_with_the_program(name: str) -> BundleError:
    return BundleError(
        f"The model {name} came with this program.",
        "It is shared by everyone who uses this installation and is not removed.",
        "Only models that you imported or trained can be removed.",
    )

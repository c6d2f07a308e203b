"""What models there are on this computer, and which version of each is active. Nothing is changed here.

<root>/<name>/                           one model per folder; the first root is the user's, others are read-only
<user root>/.versions/<name>/<version>/  versions that were trained here (versions.py)
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import BundleError
from .bundle import Bundle, check_name, load_bundle
from .record import Change
from .swap import recover_all
from .versions import (
    BUNDLED,
    IMPORTED_MODEL,
    ORIGINS,
    TRAINED,
    Versions,
    described_version,
    load_as,
    split_reference,
    version_above,
    version_key,
)

VERSIONS_FOLDER = ".versions"


@dataclass(frozen=True)
class ModelEntry:
    """One model, as `find` gives it by name.

    Attributes:
        problem: why it cannot be used; None for a sound one (then `bundle` is set).
        origin: "bundled", "imported" or "trained" (the site's own).
        versions: how many there are of that name, this one included.
    """

    name: str
    version: str | None
    directory: Path
    read_only: bool
    problem: str | None = None
    bundle: Bundle | None = None
    origin: str = IMPORTED_MODEL
    versions: int = 1


@dataclass(frozen=True)
class VersionEntry:
    """One version of a model; `problem` says why it cannot be used, and is None for a sound one (`bundle` is set).

    Attributes:
        version: None for a bundled or imported model whose description cannot be read.
        reference: what `find` takes for exactly this one.
        origin: "bundled", "imported" or "trained".
        date: when it was made, ISO 8601; for people: versions are never ordered by it.
        metrics: label -> measure -> value on the validation cases, as in {"Liver": {"mean_dice": 0.91}}.
    """

    version: str | None
    reference: str
    directory: Path
    origin: str
    active: bool
    parent_version: str | None = None
    date: str | None = None
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    problem: str | None = None
    bundle: Bundle | None = None


class Catalogue:
    """Models in folders, and the versions of them that were trained here.

    A model is named by a reference: NAME is its active version, NAME@VERSION exactly that one, wherever it is (of two
    with the same number, the one trained here), NAME@bundled and NAME@imported the one of that origin.

    Args:
        roots: folders that hold models, searched in this order; they need not exist.
    """

    def __init__(self, roots: Sequence[str | Path]) -> None:
        if not roots:
            raise ValueError("a model library needs at least one folder")
        self.roots: tuple[Path, ...] = tuple(Path(root).expanduser().absolute() for root in roots)

    @property
    def user_root(self) -> Path:
        """The folder that models are imported to and trained in."""
        return self.roots[0]

    def find(self, reference_or_directory: str | Path) -> Bundle:
        """The model of that reference, or the one in that folder. A reference is looked up in the library first.

        Raises:
            BundleError: there is none, no version of it is active, or it is unsound. Nothing else is taken instead.
        """
        asked = reference_or_directory
        directory = self.directory(asked) if isinstance(asked, str) else None
        if directory is not None:
            return self._load(directory) if "@" in str(asked) else self._load_active(directory)
        if os.path.isdir(os.path.expanduser(asked)):
            return load_bundle(asked)
        raise self._not_found(str(asked))

    def directory(self, reference: str) -> Path | None:
        """The folder of the model that `find` loads for this reference, unverified; None when the library has none.

        Raises:
            BundleError: it cannot be told which version is active, or none is.
        """
        split = split_reference(reference)
        if split is None:
            return None
        name, version = split
        recover_all(self.user_root)
        if version is not None:
            return self._exact(name, version)
        directory, kept = self._active(name), self._versions(name).numbers()
        if directory is None and kept:
            raise BundleError(
                f"No version of {name} is active.",
                f"Those trained here are kept ({', '.join(kept)}), and none was adopted.",
                f"Adopt one with `apformer models activate {name} {kept[-1]}`, or ask for {name}@{kept[-1]}.",
            )
        return directory

    def list(self) -> list[ModelEntry]:
        """What `find` can reach by name, sorted by name; unsound models too, with the reason."""
        recover_all(self.user_root)
        entries = (self._entry(name) for name in self._names())
        return [entry for entry in entries if entry is not None]

    def inactive(self) -> builtins.list[str]:
        """Names of models that were trained here and of which no version is active; `history` shows what there is."""
        names = []
        for name in self._names():
            with suppress(BundleError):  # `list` shows those whose state cannot be told
                if self._active(name) is None and self._versions(name).numbers():
                    names.append(name)
        return names

    def history(self, name: str) -> builtins.list[VersionEntry]:
        """Every version of that name, lowest first; unsound ones too, with the reason.

        None is marked active when it cannot be told which one is; `directory` says why.

        Raises:
            BundleError: there is no model of that name.
        """
        directories = self._known(name)
        active = None
        with suppress(BundleError):
            active = self._active(name)
        entries = [self._version_entry(name, directory, directory == active) for directory in directories]
        return sorted(entries, key=lambda entry: (version_key(entry.version or "0.0.0-0"), ORIGINS.index(entry.origin)))

    def changes(self, name: str) -> tuple[Change, ...]:
        """What was done to the versions of that name, in order; empty when nothing was, or it cannot be told.

        Raises:
            BundleError: there is no model of that name.
        """
        self._known(name)
        return self._versions(name).changes()

    def next_version(self, name: str, base: Bundle | None = None) -> str:
        """The number for a new version of `name`: above all that are or were there; 1.0.0 for a new name.

        Args:
            base: what it is trained from. Its version counts when it has this name, even if the library lacks it.
        """
        check_name(name)
        outside = [base.version] if base is not None and base.name == name else []
        described = [described_version(directory) for directory in self._roots_of(name)]
        return version_above([*self._versions(name).ever(), *filter(None, described), *outside])

    @property
    def _versions_root(self) -> Path:
        return self.user_root / VERSIONS_FOLDER

    def _versions(self, name: str) -> Versions:
        return Versions(self._versions_root, name)

    def _names(self) -> builtins.list[str]:
        """Every name that has a folder, in a root or for its versions."""
        return sorted({path.name for root in (*self.roots, self._versions_root) for path in _folders(root)})

    def _roots_of(self, name: str) -> builtins.list[Path]:
        """Folders of that name in the roots; the first is the model that was there before any version."""
        return [root / name for root in self.roots if (root / name).is_dir()]

    def _base(self, name: str) -> Path | None:
        return next(iter(self._roots_of(name)), None)

    def _directories(self, name: str) -> builtins.list[Path]:
        """All bundles of that name, those trained here first."""
        versions = self._versions(name)
        return [*map(versions.directory, versions.numbers()), *self._roots_of(name)]

    def _known(self, name: str) -> builtins.list[Path]:
        """All bundles of that name; a BundleError when there is none, or `name` is not a name alone."""
        split = split_reference(name)
        if split is not None and split[1] is not None:
            what = f"'{name}' names one version of {split[0]}."
            raise BundleError(what, "A model as a whole is meant here.", f"Say {split[0]} alone.")
        directories = [] if split is None else self._directories(name)
        if not directories:
            raise self._not_found(name)
        return directories

    def _active(self, name: str) -> Path | None:
        """The folder that NAME stands for, None for none; a BundleError when it cannot be told."""
        versions = self._versions(name)
        number = versions.active()
        return self._base(name) if number is None else versions.directory(number)

    def _exact(self, name: str, version: str) -> Path | None:
        """The folder that NAME@VERSION stands for."""
        if version in (BUNDLED, IMPORTED_MODEL):
            return next((place for place in self._roots_of(name) if self._origin(place) == version), None)
        trained = self._versions(name).directory(version)
        if trained.is_dir():
            return trained
        return next((place for place in self._roots_of(name) if described_version(place) == version), None)

    def _is_trained(self, directory: Path) -> bool:
        return directory.parent.parent == self._versions_root

    def _origin(self, directory: Path) -> str:
        if self._is_trained(directory):
            return self._versions(directory.parent.name).origin(directory.name)
        return IMPORTED_MODEL if directory.parent == self.user_root else BUNDLED

    def _load(self, directory: Path) -> Bundle:
        """The bundle in one of the library's folders; a BundleError when it is not what the folder's name says."""
        if self._is_trained(directory):
            return load_as(directory, directory.parent.name, directory.name)
        return load_as(directory, directory.name)

    def _load_active(self, directory: Path) -> Bundle:
        """The same for an active version; the error says how to make another one active."""
        try:
            return self._load(directory)
        except BundleError as error:
            if self._is_trained(directory):
                raise self._versions(directory.parent.name).unsound(error) from error
            raise

    def _entry(self, name: str) -> ModelEntry | None:
        """What NAME stands for; None when no version is active."""
        try:
            directory = self._active(name)
        except BundleError as error:
            versions = self._versions(name)
            count = len(self._directories(name))
            return ModelEntry(name, None, versions.folder, False, str(error), origin=TRAINED, versions=count)
        if directory is None:
            return None
        origin, count = self._origin(directory), len(self._directories(name))
        version, problem, bundle = None, None, None
        try:
            bundle = self._load_active(directory)
            version = bundle.version
        except BundleError as error:
            problem = str(error)
        return ModelEntry(name, version, directory, origin == BUNDLED, problem, bundle, origin, count)

    def _version_entry(self, name: str, directory: Path, active: bool) -> VersionEntry:
        origin = self._origin(directory)
        version = directory.name if self._is_trained(directory) else described_version(directory)
        words = [word for word in (version, origin) if word is not None and self._exact(name, word) == directory]
        exact = f"{name}@{words[0]}" if words else str(directory)
        try:
            bundle = self._load(directory)
        except BundleError as error:
            return VersionEntry(version, exact, directory, origin, active, problem=str(error))
        parent, date = bundle.metadata.get("parent_version"), bundle.metadata["training"].get("date")
        return VersionEntry(
            version=version,
            reference=exact,
            directory=directory,
            origin=origin,
            active=active,
            parent_version=parent if isinstance(parent, str) else None,
            date=date if isinstance(date, str) else self._versions(name).date(directory.name),
            metrics=headline_metrics(bundle.metadata["metrics"]),
            bundle=bundle,
        )

    def _not_found(self, reference: str) -> BundleError:
        name, at, version = reference.partition("@")
        kept = self.history(name) if at and split_reference(name) and self._directories(name) else []
        if kept:
            return BundleError(
                f"There is no version {version[:80]} of {name}.",
                "Another version is not taken in its place.",
                f"Choose one of: {', '.join(f'{entry.reference} ({entry.origin})' for entry in kept)}.",
            )
        names = ", ".join(entry.name for entry in self.list() if entry.problem is None)
        return BundleError(
            f"There is no model '{reference[:200]}'.",
            "It is neither the name of an installed model nor a folder.",
            f"Choose one of: {names}." if names else f"Import one; models are kept in {self.user_root}.",
        )


def headline_metrics(metrics: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Label -> measure -> value, from the metrics of a bundle; empty when it has none by label."""
    labels = metrics.get("labels")
    if not isinstance(labels, dict):
        return {}
    return {
        label: {
            measure: value
            for measure, value in measures.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        for label, measures in labels.items()
        if isinstance(measures, dict)
    }


def _folders(root: Path) -> list[Path]:
    """Folders in `root` that may be models; hidden ones are being written or were left by a crash."""
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:  # a root that is missing or unreadable holds no models for this user
        return []

"""The versions of a model: listed, adopted, rolled back, exported, imported.

What changes or copies a version here proves it first, weights and all: that loads torch into this process and takes
seconds. `changes.Changes` has the worker do it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from apformer.bundles import Bundle, ModelLibrary
from apformer.bundles.catalogue import VERSIONS_FOLDER
from apformer.bundles.versions import Versions as Kept
from apformer.errors import BundleError

from .cards import Card
from .models import Models
from .signals import Signal
from .wording import Checked, checked


@dataclass(frozen=True)
class VersionRow:
    """A version as a table shows it. `active`: whether it is what the model's name stands for."""

    card: Card
    active: bool
    date: str | None


class Versions:
    """Every version is kept; one of them is active.

    Attributes:
        changed: another version is active, or there are others, of the model of that name.
    """

    def __init__(self, library: ModelLibrary, models: Models) -> None:
        self.changed: Signal[str] = Signal()
        self._library, self._models = library, models

    def rows(self, name: str) -> list[VersionRow]:
        """The versions of a model, lowest first; none for a name that no model has."""
        active, kept = self._models.active_directory(name), self._kept(name)
        return [
            VersionRow(card, str(card.directory) == active, card.date or kept.date(card.version))
            for card in self._models.versions(name)
        ]

    def adopt(self, reference: str, why: str = "") -> Bundle:
        """Make a version, NAME@VERSION, what its name stands for.

        Raises:
            BundleError: there is no such version, or it is unsound. OutputError: nothing changed.
        """
        name, at, version = reference.partition("@")
        if not at:
            raise BundleError(f"{name} names no version.", "It is not known which one to adopt.", "Choose a version.")
        bundle = self._library.activate(name, version, why)
        self.changed.emit(name)
        return bundle

    def can_roll_back(self, name: str) -> Checked:
        """Whether there was a version before the active one."""
        return checked(lambda: self._require_earlier(name))

    def roll_back(self, name: str, why: str = "") -> Bundle:
        """Make active again what was before; the version that is active now is kept.

        Raises:
            BundleError: there is nothing to go back to. OutputError: nothing changed.
        """
        bundle = self._library.rollback(name, why)
        self.changed.emit(name)
        return bundle

    def export(self, reference: str, path: Path | str) -> Path:
        """Write a version to a zip file, or into a folder, to be imported elsewhere.

        Raises:
            BundleError: it is unsound. OutputError: the file cannot be written.
        """
        return self._library.export_zip(reference, path)

    def import_zip(self, path: Path | str, *, replace: bool = False) -> Bundle:
        """Install the model in a zip file.

        Raises:
            BundleError: it is unsound; or a model of that name is there, and `replace` is False: ask, then repeat.
            OutputError: it cannot be written.
        """
        bundle = self._library.import_zip(path, replace=replace)
        self.changed.emit(bundle.name)
        return bundle

    def remove(self, reference: str) -> None:
        """Remove a model that was imported, or a version that is not active.

        Raises:
            BundleError: it is active, came with the program, or has versions. OutputError: it cannot be removed.
        """
        self._library.remove(reference)
        self.changed.emit(reference.partition("@")[0])

    def _require_earlier(self, name: str) -> None:
        if not self._kept(name).record().earlier():
            raise BundleError(
                f"There is no earlier {name} to go back to.",
                "Nothing else was active before, or it was removed since.",
                "Choose a version from the list.",
            )

    def _kept(self, name: str) -> Kept:
        return Kept(self._library.user_root / VERSIONS_FOLDER, name)

"""The models that a user can choose from: listed, searched, found again by their reference."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from apformer.bundles import ModelLibrary
from apformer.bundles.catalogue import VERSIONS_FOLDER
from apformer.bundles.versions import BUNDLED, IMPORTED_MODEL, ORIGINS, Versions, split_reference, version_key
from apformer.errors import BundleError

from .cards import TODAY, Card, read_card
from .timings import Timings
from .wording import sentence


class Models:
    """Cards of the models in a library: nothing is changed there, and each call looks at the disk. Beside them, what
    learned from a patient of today; see `add_today`."""

    def __init__(self, library: ModelLibrary) -> None:
        self.library = library
        self.timings = Timings(library.user_root)
        self._today: dict[str, Path] = {}  # by reference

    def add_today(self, directory: Path) -> Card:
        """Offer the model in that folder, which learned from one patient, until the program ends; an earlier one of its
        name is not offered any more.

        Raises:
            BundleError: it cannot be used.
        """
        name = read_card(directory, TODAY, TODAY).name
        reference = f"{name}@{TODAY}"
        self._today[reference] = directory
        return self.find(reference)

    def todays(self) -> list[Card]:
        """What was added so."""
        return [read_card(directory, reference, TODAY) for reference, directory in self._today.items()]

    def lasting_reference(self, reference: str) -> str:
        """`reference`, or the name of the model that one of today's was."""
        return reference.partition("@")[0] if reference in self._today else reference

    def cards(self) -> list[Card]:
        """What can be chosen: `lasting` ones, and before them today's."""
        return [*self.todays(), *self.lasting()]

    def lasting(self) -> list[Card]:
        """What each name stands for, the site's own first, then by name; models that cannot be used last."""
        seconds = self.timings.seconds()
        found = [card for card in map(self._active, self._names()) if card is not None]
        cards = [replace(card, seconds=seconds.get(f"{card.name} {card.version}")) for card in found]
        return sorted(cards, key=lambda card: (card.problem is not None, not card.is_own, card.name))

    def search(self, text: str) -> list[Card]:
        """Cards in whose name, labels, modality or description all words of `text` occur; all for no words."""
        words = text.casefold().split()
        return [card for card in self.cards() if all(word in _searchable(card) for word in words)]

    def find(self, reference: str) -> Card:
        """The card of NAME or NAME@VERSION.

        Raises:
            BundleError: none was chosen, there is none, or it cannot be used.
        """
        if not reference:
            raise BundleError("No model is chosen.", "There is nothing to segment with.", "Choose a model.")
        directory = self._today.get(reference) or self.library.directory(reference)
        if directory is None:
            raise BundleError(
                f"The model {reference[:80]} is not installed any more.",
                "It was removed, or the scene comes from another computer.",
                "Choose another model, or import it again.",
            )
        card = read_card(directory, reference, self._origin(reference.partition("@")[0], directory.name, directory))
        if card.problem is not None:
            raise BundleError(card.problem, "", "Choose another model.")
        return card

    def versions(self, name: str) -> list[Card]:
        """All versions of a model, lowest first; each reference names exactly one."""
        kept = self._kept(name)
        cards = [read_card(kept.directory(n), f"{name}@{n}", kept.origin(n)) for n in kept.numbers()]
        for root in self.library.roots:
            if split_reference(name) is not None and (root / name).is_dir():
                origin = IMPORTED_MODEL if root == self.library.user_root else BUNDLED
                cards.append(read_card(root / name, f"{name}@{origin}", origin))
        return sorted(cards, key=lambda card: (version_key(card.version or "0.0.0-0"), ORIGINS.index(card.origin)))

    def active_directory(self, name: str) -> str | None:
        """Where the active version lies; None when none is, or it cannot be told."""
        with suppress(BundleError):
            directory = self.library.directory(name)
            return None if directory is None else str(directory)
        return None

    def _active(self, name: str) -> Card | None:
        """The card of NAME; None when no version of it is active."""
        kept = self._kept(name)
        try:
            directory = self.library.directory(name)
        except BundleError as error:
            if name in self.library.inactive():
                return None
            return Card(name, name, kept.folder, ORIGINS[-1], problem=sentence(error))
        return None if directory is None else read_card(directory, name, self._origin(name, directory.name, directory))

    def _origin(self, name: str, number: str, directory: object) -> str:
        if directory in self._today.values():
            return TODAY
        kept = self._kept(name)
        if directory == kept.directory(number):
            return kept.origin(number)
        return IMPORTED_MODEL if directory == self.library.user_root / name else BUNDLED

    def _kept(self, name: str) -> Versions:
        return Versions(self.library.user_root / VERSIONS_FOLDER, name)

    def _names(self) -> list[str]:
        """Every name that has a folder, in a root or for its versions."""
        names = set()
        for root in (*self.library.roots, self.library.user_root / VERSIONS_FOLDER):
            with suppress(OSError):  # a root that is missing or unreadable holds no models for this user
                names |= {path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")}
        return sorted(names)


def _searchable(card: Card) -> str:
    texts = [card.name, card.description, card.modality, *card.label_names]
    texts += [label.type.meaning for label in card.labels]
    return " ".join(texts).casefold()

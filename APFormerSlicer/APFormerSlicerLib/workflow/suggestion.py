"""Which model suits a volume, from what is known of it: kind of image, modality, size, and the words of its name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from apformer.errors import InputError
from apformer.volume import Volume

from .cards import Card

AIR_BELOW = -200  # only CT stores such values, as in apformer.inference.fitness, which loads torch
_MUCH_LARGER = 1.6  # times the training images: also that module's bound
_SAMPLE = 100_000  # voxels
_SHORTEST_WORD = 3
_OF_MANY = {"left", "right", "cavity"}  # words that name no organ


@dataclass(frozen=True)
class Suggestion:
    """A model that can segment a volume.

    Attributes:
        points: only order suggestions. reason: for the user.
        needs_region: the volume is much larger than what it was trained on.
    """

    card: Card
    points: int
    reason: str
    needs_region: bool = False

    @property
    def suits(self) -> bool:
        """Whether nothing that is known of the image speaks against it."""
        return self.points >= 0

    @property
    def why(self) -> str:
        """The reason, and what is to be done about it."""
        return (
            f"{self.reason}, but it was trained on crops: give a region of interest"
            if self.needs_region
            else self.reason
        )


def check_fits(card: Card, volume: Volume, name: str) -> None:
    """Raises InputError when the model cannot segment such an image at all; the engine's rules, told before a job."""
    if volume.channels != card.channels:
        kind, wanted = ("colour", "gray") if volume.channels > card.channels else ("gray", "colour")
        raise InputError(
            f"{name} is a {kind} image; the model {card.name} needs {wanted} ones.",
            "The network cannot read it.",
            f"Choose a model for {kind} images, or convert the image.",
        )
    if card.spatial_dims == 3 and min(volume.spatial_shape) == 1:
        raise InputError(
            f"{name} is a single slice; the model {card.name} works on volumes.",
            "The network needs neighbouring slices.",
            "Choose a model that works on slices, or the whole volume.",
        )


def suggest(cards: Iterable[Card], volume: Volume, words: str = "") -> list[Suggestion]:
    """The models that can segment the volume, best first.

    Args:
        words: what the scanner or user called the image, such as "3: CT abdomen".
    """
    modality = volume.modality or modality_of(volume)
    found = []
    for card in cards:
        if card.problem is None and _fits(card, volume):
            found.append(_judge(card, volume, modality, words))
    return sorted(found, key=lambda suggestion: -suggestion.points)  # stable: the site's own stay first


def best(suggestions: list[Suggestion]) -> Suggestion | None:
    """The one to choose for the user; None when the image's modality speaks for none."""
    return suggestions[0] if suggestions and suggestions[0].points > 0 else None


def _fits(card: Card, volume: Volume) -> bool:
    try:
        check_fits(card, volume, "")
    except InputError:
        return False
    return True


def _judge(card: Card, volume: Volume, modality: str | None, words: str) -> Suggestion:
    points, why = 0, []
    if modality == card.modality:
        points, why = 100, [f"it is for {card.modality} images"]
    elif modality is not None:
        points, why = -1000, [f"it is for {card.modality}, the image is {modality}"]
    named = [name for name in (*card.label_names, card.name) if _mentions(words, name)]
    if named:
        points, why = points + 20, [*why, f"the image's name says {named[0]}"]
    if card.is_own:
        points, why = points + 10, [*why, "it was trained on our cases"]
    needs_region = card.field_of_view_mm is not None and _is_larger(volume, card.field_of_view_mm)
    return Suggestion(card, points - 50 * needs_region, ", ".join(why) or "it can read the image", needs_region)


def modality_of(volume: Volume) -> str | None:
    """The modality that the values speak for; MR has no values of its own, so only CT and colour are known."""
    if volume.channels == 3:
        return "RGB"
    if volume.source.kind == "picture":
        return None
    sample = volume.array.reshape(-1)
    sample = sample[:: max(1, sample.size // _SAMPLE)]
    return "CT" if sample.size and float(np.min(sample)) < AIR_BELOW else None


def _mentions(words: str, name: str) -> bool:
    """Whether a word of `name` stands in `words`: "Left ventricle" in "cine LV left-ventricle"."""
    said = set(re.findall(r"\w+", words.casefold().replace("_", " ")))
    words_of_name = set(re.findall(r"\w+", name.casefold())) - _OF_MANY
    return any(len(word) >= _SHORTEST_WORD and word in said for word in words_of_name)


def _is_larger(volume: Volume, expected: tuple[float, ...]) -> bool:
    extent = [n * s for n, s in zip(reversed(volume.spatial_shape), volume.spacing_ijk, strict=True)]
    return any(have > _MUCH_LARGER * want for have, want in zip(sorted(extent), sorted(expected), strict=True))

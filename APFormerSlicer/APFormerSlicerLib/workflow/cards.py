"""What a list of models shows of each, read from its description alone.

Weights are neither read nor checked here: that takes seconds and torch, and the worker does it before a model is used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from apformer.bundles import Label, Preprocessing
from apformer.bundles.bundle import MOST_CHANNELS, check_name, check_version
from apformer.bundles.catalogue import headline_metrics
from apformer.bundles.fields import Fields, parse_json
from apformer.bundles.labels import HIGHEST_LABEL, check_labels
from apformer.bundles.manifest import METADATA, WEIGHTS, read_manifest
from apformer.bundles.versions import TRAINED
from apformer.commands.durations import in_words
from apformer.errors import BundleError

from .wording import sentence

TODAY = "today"
_PICTURES = ("overlay.png", "worst-1.png")
_FOLDERS = ("configs", "models", "docs")
_State = tuple[tuple[str, str, int, int], ...]
_read: dict[Path, tuple[_State, Card]] = {}  # by folder, for all panels of this program


@dataclass(frozen=True)
class Card:
    """One version of a model, as a list shows it.

    Attributes:
        reference: what `ModelLibrary.find` takes for it.
        directory: where it lies, which a `segment` request names.
        origin: "bundled", "imported", "trained" (the site's own) or "today" (learned from one patient's corrections).
        modality: "CT", "MR" or "RGB".
        field_of_view_mm: extent of the training images; None when they were whole images.
        window: the values between which it sees differences, lowest and highest; None where they go by the image.
        cases: how many it was measured on, and the mean Dice of each label there; 0 and empty when it was not.
        date, parent: when it was made, ISO 8601, and from which version; None when that is not known.
        picture: validation cases as the model segments them, a PNG file; None when it has none.
        size_bytes: of the weights.
        seconds: what the last image took on this computer; None before the first.
        problem: why it cannot be used; then only the name and the directory mean anything.
    """

    name: str
    reference: str
    directory: Path
    origin: str
    version: str = ""
    description: str = ""
    modality: str = ""
    channels: int = 0
    spatial_dims: int = 0
    labels: tuple[Label, ...] = ()
    field_of_view_mm: tuple[float, ...] | None = None
    window: tuple[float, float] | None = None
    licence: str = ""
    intended_use: str = ""
    cases: int = 0
    dice: Mapping[str, float] = field(default_factory=dict)
    date: str | None = None
    parent: str | None = None
    picture: Path | None = None
    size_bytes: int = 0
    seconds: float | None = None
    problem: str | None = None

    @property
    def is_own(self) -> bool:
        """Whether the site trained it."""
        return self.origin == TRAINED

    @property
    def is_todays(self) -> bool:
        """Whether it learned from a patient of today, and goes when the program ends."""
        return self.origin == TODAY

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @property
    def mean_dice(self) -> float | None:
        """Over the labels; None when it was not measured."""
        return sum(self.dice.values()) / len(self.dice) if self.dice else None

    @property
    def title(self) -> str:
        """ "liver-ct 1.1.0", with what a user must know at once."""
        told = (("our own", self.is_own), ("for today", self.is_todays), ("cannot be used", self.problem))
        marks = [mark for mark, holds in told if holds]
        return " ".join(filter(None, (self.name, self.version))) + (f" ({', '.join(marks)})" if marks else "")

    @property
    def summary(self) -> str:
        """ "CT: Liver. Dice 0.89" """
        if self.problem is not None:
            return self.problem
        dice = "" if self.mean_dice is None else f". Dice {self.mean_dice:.2f}"
        return f"{self.modality}: {', '.join(self.label_names)}{dice}"

    @property
    def line(self) -> str:
        """ "CT, slices: Liver. Dice 0.89 in 138 cases; 4.4 MB; 2.3 s for the last image here. CC-BY-SA 4.0." """
        if self.problem is not None:
            return self.problem
        kind = "slices" if self.spatial_dims == 2 else "volumes"
        dice = self.mean_dice
        where = f" in {self.cases} cases" if self.cases else ""
        figures = [
            "Dice not measured" if dice is None else f"Dice {dice:.2f}{where}",
            f"{self.size_bytes / 1e6:.1f} MB",
        ]
        if self.seconds is not None:
            figures.append(f"{in_words(self.seconds)} for the last image here")
        return f"{self.modality}, {kind}: {', '.join(self.label_names)}. {'; '.join(figures)}. {self.licence}"


def read_card(directory: Path, reference: str, origin: str) -> Card:
    """The card of the model in `directory`; with `problem` set when its description cannot be relied on.

    What was read is kept while no file of the model has another size or time of change: a panel asks often. The worker
    compares every checksum before it uses a model.
    """
    state = _state_of(directory)
    kept = _read.get(directory)
    if kept is not None and state is not None and kept[0] == state:
        return replace(kept[1], reference=reference, origin=origin)
    name = reference.partition("@")[0]
    try:
        fields = Fields(parse_json(read_manifest(directory).read(METADATA), METADATA), METADATA)
        card = _described(fields, directory, reference, origin)
    except BundleError as error:
        return Card(name, reference, directory, origin, problem=sentence(error))
    if state is not None:
        _read[directory] = state, card
    return card


def _state_of(directory: Path) -> _State | None:
    """Path, size and time of change of all that is in the folder; None where it cannot be listed."""
    found = []
    try:
        for folder in (directory, *(directory / name for name in _FOLDERS)):
            with os.scandir(folder) as entries:
                stats = ((entry.name, entry.stat(follow_symlinks=False)) for entry in entries)
                found += [(folder.name, name, told.st_mtime_ns, told.st_size) for name, told in stats]
    except OSError:
        return None
    return tuple(sorted(found))


def _described(fields: Fields, directory: Path, reference: str, origin: str) -> Card:
    settings = Preprocessing.from_dict(fields.value("preprocessing"))
    metrics: dict[str, Any] = fields.section("metrics").data
    listed = enumerate(fields.items("labels", HIGHEST_LABEL))
    labels = [Label.from_fields(Fields(item, f"{METADATA}, labels[{place}]")) for place, item in listed]
    dice = {name: found["mean_dice"] for name, found in headline_metrics(metrics).items() if "mean_dice" in found}
    use, parent, date = (fields.data.get("intended_use"), fields.data.get("parent_version"), _date(fields))
    return Card(
        name=check_name(fields.text("name", 64)),
        reference=reference,
        directory=directory,
        origin=origin,
        version=check_version(fields.text("version", 64)),
        description=fields.text("description"),
        modality=fields.text("modality"),
        channels=fields.integer("channels", 1, MOST_CHANNELS),
        spatial_dims=settings.spatial_dims,
        labels=check_labels(labels),
        field_of_view_mm=settings.field_of_view_mm,
        window=_window(settings.intensity),
        licence=fields.text("data_licence"),
        intended_use=use if isinstance(use, str) else "",
        cases=_count(metrics.get("cases")),
        dice=dice,
        date=date,
        parent=parent if isinstance(parent, str) else None,
        picture=_picture(directory),
        size_bytes=_size(directory / WEIGHTS),
    )


def _window(intensity: Mapping[str, Any]) -> tuple[float, float] | None:
    if intensity["kind"] != "window":
        return None
    return float(intensity["lower"]), float(intensity["upper"])


def _picture(directory: Path) -> Path | None:
    """Of the validation cases, or of the worst one, as `apformer train` and `apformer finetune` keep it."""
    found = (directory / "docs" / name for name in _PICTURES)
    return next((path for path in found if path.is_file()), None)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # told by the worker, which reads it
        return 0


def _date(fields: Fields) -> str | None:
    date = fields.section("training").data.get("date")
    return date if isinstance(date, str) else None


def _count(cases: object) -> int:
    """Bundles tell a number, or name the cases."""
    if isinstance(cases, list):
        return len(cases)
    return cases if isinstance(cases, int) and not isinstance(cases, bool) else 0

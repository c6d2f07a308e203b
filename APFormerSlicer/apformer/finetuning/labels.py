"""Which labels the new model has, and how the values of the site and of the base become its values. Always by name, as
`names` tells what is the same."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..bundles import Bundle
from ..bundles.labels import Label
from ..datasets.case import UNKNOWN
from ..errors import ConfigError
from ..names import find, paired, plain
from .request import Request


def _refuse(what: str, remedy: str) -> ConfigError:
    return ConfigError(what, "It is not clear what the new model should learn.", remedy)


@dataclass(frozen=True)
class LabelPlan:
    """Labels of the new model; their values are 1, 2, 3 ..., its output channels.

    Attributes:
        site_values: value in the site's label maps -> value of the new model; others are background.
        base_channels: output channel of the base -> value of the new model; background and dropped labels left out.
        trained: values that the site's cases label. The others are the base's, kept.
        how: for each label, where it comes from, in words.
        dropped: names of the base's labels that the new model does not have.
        unknown: value in the site's label maps of voxels that nobody knows; None where the table has it as a label.
    """

    labels: tuple[Label, ...]
    site_values: dict[int, int]
    base_channels: dict[int, int]
    trained: frozenset[int]
    how: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    unknown: int | None = UNKNOWN

    @property
    def unlabelled(self) -> frozenset[int]:
        """Values that the new model keeps from the base and no case of the site labels."""
        return frozenset(label.value for label in self.labels) - self.trained

    @property
    def judged(self) -> dict[int, str]:
        """Value -> name of the labels that the site's cases can judge."""
        return {label.value: label.name for label in self.labels if label.value in self.trained}

    @property
    def sided(self) -> bool:
        """Whether labels are told apart by their side alone."""
        return paired(label.name for label in self.labels)

    @property
    def has_new(self) -> bool:
        """Whether the new model has labels that the base does not know."""
        return len(set(self.base_channels.values())) < len(self.labels)

    def remembered(self, base: Bundle | None) -> Bundle | None:
        """The base, where the new model keeps labels of it: it is measured before, rehearsed, and gone back towards.
        None from scratch, and for a base of other structures, which gives nothing but the weights to begin with."""
        return base if self.base_channels else None

    def known_to(self, bundle: Bundle) -> dict[int, int]:
        """Value in the results of `bundle` -> value of the new model, for the labels that are the same by name."""
        ours = {plain(label.name): label.value for label in self.labels}
        return {label.value: ours[plain(label.name)] for label in bundle.labels if plain(label.name) in ours}

    def of_base(self, base: Bundle) -> dict[int, int]:
        """Value in the results of the base -> value of the new model."""
        return {base.labels[channel - 1].value: value for channel, value in self.base_channels.items()}

    def describe(self) -> list[dict[str, Any]]:
        """For the report."""
        return [
            {"name": label.name, "color": list(label.color), "how": how, "trained": label.value in self.trained}
            for label, how in zip(self.labels, self.how, strict=True)
        ]


def plan_labels(table: Sequence[Label], occurring: Collection[int], base: Bundle | None, request: Request) -> LabelPlan:
    """The labels of the new model. Those of the base are kept, unless they are to be dropped or are other structures:
    the site's table has none of them, whether it occurs or not.

    Args:
        table: the site's label table; occurring: the values that its completed cases hold.

    Raises:
        ConfigError: a name that does not exist, nothing to learn, two labels that would be one, or a version of the
            base that would know nothing of what the base does.
    """
    chosen = _chosen(table, occurring, request)
    theirs = {label.name: channel for channel, label in enumerate(base.labels, 1)} if base else {}
    mapping = {}
    for site, name in request.mapping.items():
        if find(site, (label.name for label in table)) is None:
            raise _refuse(f"The data set has no label {site!r} to map.", f"It has: {_names(table)}.")
        if find(name, theirs) is None:
            raise _refuse(f"The base has no label {name!r}.", f"It has: {', '.join(theirs)}.")
        mapping[plain(site)] = name
    partners: dict[str, Label] = {}  # name in the base -> the site's label of the same structure
    for label in chosen:
        partner = find(mapping.get(plain(label.name), label.name), theirs)
        if partner in partners:
            what = f"{partners[partner].name} and {label.name} would both be {partner}."
            raise _refuse(what, "Map each label to one of its own.")
        if partner is not None:
            partners[partner] = label
    meant = {find(mapping.get(plain(label.name), label.name), theirs) for label in table} - {None}
    drops = request.replace or not meant
    labels: list[Label] = []
    how: list[str] = []
    site_values: dict[int, int] = {}
    base_channels: dict[int, int] = {}
    for label in base.labels if base else ():
        ours = partners.get(label.name)
        if ours is None and drops:
            continue
        labels.append(replace(label, value=len(labels) + 1))
        base_channels[theirs[label.name]] = len(labels)
        if ours is not None:
            site_values[ours.value] = len(labels)
        how.append("kept" if ours is None or ours.name == label.name else f"same as the site's {ours.name}")
    for label in chosen:
        if label not in partners.values():
            labels.append(replace(label, value=len(labels) + 1))
            site_values[label.value] = len(labels)
            how.append("new")
    if base is not None and not base_channels:
        _refuse_same_name(base, labels, request)
    dropped = tuple(name for name, channel in theirs.items() if channel not in base_channels)
    unknown = None if UNKNOWN in {label.value for label in table} else UNKNOWN
    trained = frozenset(site_values.values())
    return LabelPlan(tuple(labels), site_values, base_channels, trained, tuple(how), dropped, unknown)


def _refuse_same_name(base: Bundle, labels: Sequence[Label], request: Request) -> None:
    """Whoever uses a model by its name relies on what it finds."""
    if request.name == base.name:
        raise ConfigError(
            f"The new model would be a version of {base.name} that finds {_names(labels)} and nothing of what "
            f"{base.name} {base.version} does ({_names(base.labels)}).",
            "Whoever uses that name would get other structures without a word.",
            "Write the new model under another name; it begins with the same weights.",
        )


def _chosen(table: Sequence[Label], occurring: Collection[int], request: Request) -> list[Label]:
    unknown = [name for name in request.labels if find(name, (label.name for label in table)) is None]
    if unknown:
        raise _refuse(f"The data set has no label {unknown[0]!r}.", f"Choose from: {_names(table)}.")
    chosen = [label for label in table if not request.labels or find(label.name, request.labels) is not None]
    present = [label for label in chosen if label.value in occurring]
    if not present:
        raise _refuse(
            f"None of the completed cases holds a voxel of {_names(chosen) or 'any label'}.",
            "Paint the structure in the cases and complete them again, or choose other labels.",
        )
    missing = [label for label in chosen if label not in present]
    if missing and request.labels:
        raise _refuse(
            f"None of the completed cases holds a voxel of {_names(missing)}.",
            "Leave it out, or complete cases that show it.",
        )
    return present


def _names(labels: Sequence[Label]) -> str:
    return ", ".join(label.name for label in labels)


def relabelled(array: np.ndarray, values: dict[int, int]) -> np.ndarray:
    """uint8 array of the same shape with each value replaced; values that are not named become 0."""
    table = np.zeros(256, np.uint8)
    for old, new in values.items():
        table[old] = new
    return table[array.astype(np.uint8)]

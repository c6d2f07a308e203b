"""The labels of a data set, and how the labels of a file become them: by name, never by order."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..bundles.labels import HIGHEST_LABEL, Code, Label, check_labels
from ..errors import BundleError, ConfigError, InputError
from ..label_maps import WHITE, whole_numbers
from ..names import alike, plain, same, twice
from ..volume import Volume
from .case import UNKNOWN

# What Slicer gives a segment that nobody described; a model brings better codes (see `apformer dataset init --base`).
_TISSUE = Code("SCT", "85756007", "Tissue")
_GOLDEN_RATIO = 0.618034
BACKGROUND = "background"
IGNORE = "ignore"  # as nnU-Net calls voxels of which nobody knows what they are; they are kept as UNKNOWN


def parse_names(texts: Sequence[str]) -> dict[int | None, list[str]]:
    """ "Liver,Tumor" or "1=Liver,2=Tumor" (also one by one) as value -> names; None for names without a value.

    Raises:
        ConfigError: a value that is no number from 1 to 255.
    """
    named: dict[int | None, list[str]] = {}
    for item in (part.strip() for text in texts for part in text.split(",")):
        value, equals, name = item.rpartition("=")
        if equals and not (value.strip().isdigit() and 1 <= int(value) <= HIGHEST_LABEL):
            raise ConfigError(
                f"{item!r} is no label.",
                f"A label is a name, or a value from 1 to {HIGHEST_LABEL} and a name.",
                "Write, for example, Liver,Tumor or 1=Liver,2=Tumor.",
            )
        named.setdefault(int(value) if equals else None, []).append(name.strip())
    return named


def make_table(texts: Sequence[str]) -> tuple[Label, ...]:
    """A table of the labels that `texts` name (see `parse_names`), with free values and colours.

    Raises:
        ConfigError: a name or value twice, or not usable.
    """
    table: tuple[Label, ...] = ()
    named = parse_names(texts)
    for value in sorted(named, key=lambda value: (value is None, value or 0)):
        for name in named[value]:
            table = with_label(table, name, value)
    return table


def with_label(
    table: Sequence[Label], name: str, value: int | None = None, color: tuple[int, int, int] | None = None
) -> tuple[Label, ...]:
    """The table and one more label; the lowest free value and a colour of its own unless they are given.

    Raises:
        ConfigError: the name or value is taken, cannot be one, or no value is free.
    """
    free = [number for number in range(1, UNKNOWN) if number not in {label.value for label in table}]
    value = value if value is not None else next(iter(free), HIGHEST_LABEL)
    similar = find(table, name)
    if similar is not None or same(name, BACKGROUND):
        raise ConfigError(
            f"The label table already has {similar.name if similar else 'a background, which is 0'}.",
            "Labels are matched by name, whatever its case and blanks, so a name stands for one thing.",
            "Choose another name, or use the label that is there.",
        )
    if value == UNKNOWN or same(name, IGNORE):
        raise ConfigError(
            f"{name!r} cannot be label {value}.",
            f"Label {UNKNOWN}, {IGNORE!r}, stands for voxels of which nobody knows what they are.",
            f"Choose another name, and a value from 1 to {UNKNOWN - 1}.",
        )
    hue = (value * _GOLDEN_RATIO) % 1.0
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.6, 0.9))
    try:
        return check_labels([*table, Label(value, name, color or (red, green, blue), _TISSUE, _TISSUE)])
    except BundleError as error:
        raise ConfigError(
            error.what, "It cannot become a label of the data set.", "Choose another name or value."
        ) from error


def find(table: Sequence[Label], name: str) -> Label | None:
    """The label of that name, as `names` tells what is the same."""
    return next((label for label in table if same(label.name, name)), None)


def with_unknown(table: Sequence[Label]) -> tuple[Label, ...]:
    """The table, and what stands for voxels that nobody knows, where a label does not have its value or name."""
    if find(table, IGNORE) is not None or UNKNOWN in {label.value for label in table}:
        return tuple(table)
    return (*table, Label(UNKNOWN, IGNORE, (128, 128, 128), _TISSUE, _TISSUE))


def values_of(table: Sequence[Label], names: Iterable[str]) -> frozenset[int]:
    """The values of the labels of these names.

    Raises:
        ConfigError: the table does not have one.
    """
    found = {name: find(table, name) for name in names}
    missing = [name for name, label in found.items() if label is None]
    if missing:
        close = alike(missing[0], [label.name for label in table])
        raise ConfigError(
            f"The label table has no {missing[0]!r}, so it cannot have been outlined.",
            f"It has: {', '.join(label.name for label in table) or 'none'}.",
            f"Write {close!r}." if close else "Correct the name, or add it with `apformer dataset add-label`.",
        )
    return frozenset(label.value for label in found.values() if label is not None)


def labelled(table: Sequence[Label], array: np.ndarray, outlined: Sequence[str] | None) -> tuple[int, ...] | None:
    """Values of the structures that were outlined in a label map: those of these names and those that occur. None when
    that is the whole table, as without `outlined`.

    Raises:
        ConfigError: as `values_of`.
    """
    if outlined is None:
        return None
    known = {label.value for label in table}
    found = known & (values_of(table, outlined) | set(count_labels(array)))
    return None if found == known else tuple(sorted(found))


def read_mapping(texts: Sequence[str]) -> dict[str, str | None]:
    """ "1=Liver", "Leber=Liver", "3=" as what the file calls a label -> its name in the table; None leaves it out.

    Raises:
        ConfigError: a part without "=".
    """
    mapping: dict[str, str | None] = {}
    for item in (part for text in texts for part in text.split(",")):
        theirs, equals, ours = item.partition("=")
        if not equals or not theirs.strip():
            raise ConfigError(
                f"{item!r} does not map a label.",
                "A mapping says what the file's label is called in the data set.",
                "Write FILE=TABLE, for example 1=Liver or Leber=Liver; 3= leaves label 3 out.",
            )
        mapping[theirs.strip()] = ours.strip() or None
    return mapping


def to_table(
    labels: Volume,
    table: Sequence[Label],
    *,
    names: Mapping[int, str] | None = None,
    mapping: Mapping[str, str | None] | None = None,
) -> np.ndarray:
    """The label map with the values of the table, uint8 (k, j, i).

    Args:
        names: what the file calls its values; None: they are those of the table.
        mapping: see `read_mapping`; it goes before `names`. Keys are names or values of the file.

    Raises:
        InputError: not a label map, two values of one name, or voxels that are marked as not labelled.
        ConfigError: a label that is not in the table; the text says what to do.
    """
    array = whole_numbers(labels).array
    counts = _counts(array)
    mapping = {plain(key): ours for key, ours in (mapping or {}).items()}
    lookup, unknown = {}, []
    present = sorted(set(counts) - {0})
    _refuse_twins(labels, {value: (names or {}).get(value) for value in present}, mapping)
    for value in present:
        theirs = None if names is None else names.get(value)
        wanted = _wanted(value, theirs, table, mapping, names is not None)
        if wanted is None:
            continue
        label = find(table, wanted)
        if label is None and same(wanted, IGNORE):
            lookup[value] = _unknown_value(labels, value, table)
        elif label is None:
            unknown.append(f"{value} ({wanted})" if wanted != str(value) else str(value))
        else:
            lookup[value] = label.value
    if len(table) == 1 and set(counts) <= {0, WHITE} and unknown == [str(WHITE)]:
        lookup, unknown = {WHITE: table[0].value}, []  # a picture of a mask: black and white, and one thing to be white
    if unknown:
        raise _unknown(labels, unknown, table)
    result = np.zeros(array.shape, np.uint8)
    for value, ours in lookup.items():
        result[array == value] = ours
    return result


def _refuse_twins(labels: Volume, names: Mapping[int, str | None], mapping: Mapping[str, str | None]) -> None:
    """InputError when two values have the same name, unless a mapping tells them apart by value."""
    repeated = twice(name for value, name in names.items() if name is not None and str(value) not in mapping)
    if repeated is not None:
        raise InputError(
            f"{labels.source.path or 'The label map'} has two labels named {repeated[0]!r} and {repeated[1]!r}.",
            "Labels are matched by name, whatever its case and blanks, so these two would be one.",
            "Rename one of them where the file was made, or say by value what they are, as in --map 2=NAME.",
        )


def _unknown_value(labels: Volume, value: int, table: Sequence[Label]) -> int:
    taken = next((label for label in table if label.value == UNKNOWN), None)
    if taken is None:
        return UNKNOWN
    raise InputError(
        f"{labels.source.path or 'The label map'} has voxels marked as {IGNORE!r} (label {value}).",
        f"They would be kept as {UNKNOWN}, which in this data set is {taken.name}.",
        f"Import into a new data set; or --map {IGNORE}= takes them as background, which teaches that nothing is "
        "there.",
    )


def _wanted(
    value: int, theirs: str | None, table: Sequence[Label], mapping: Mapping[str, str | None], named: bool
) -> str | None:
    """The name in the table that a value of the file asks for; None leaves it out, "7" is a value nobody names."""
    for key in (theirs, str(value)):
        if key is not None and plain(key) in mapping:
            return mapping[plain(key)]
    if theirs is not None or named:
        return theirs if theirs is not None else str(value)
    return next((label.name for label in table if label.value == value), str(value))


def _counts(array: np.ndarray) -> set[int]:
    return {int(value) for slab in array for value in np.unique(slab)}


def count_labels(array: np.ndarray) -> dict[int, int]:
    """Label value -> voxels of a uint8 label map, background left out."""
    totals = sum((np.bincount(slab.ravel(), minlength=256) for slab in array), np.zeros(256, np.int64))
    return {value: int(totals[value]) for value in range(1, 256) if totals[value]}


def _unknown(labels: Volume, unknown: Sequence[str], table: Sequence[Label]) -> ConfigError:
    known = ", ".join(f"{label.value} {label.name}" for label in table) or "none"
    first = unknown[0].split()[0]
    named = unknown[0].partition(" (")[2].removesuffix(")")
    close = alike(named, [label.name for label in table]) if named else None
    return ConfigError(
        f"{labels.source.path or 'The label map'} has labels that the data set does not have: {', '.join(unknown)}.",
        f"Labels are matched by name; the data set has: {known}.",
        f"Say what each is, as in --map {first}={close or 'NAME'} (or {first}= to leave it out), or add the name to "
        "the table with `apformer dataset add-label`.",
    )

"""A prediction beside its reference: on one grid, and with one value for each structure, matched by name.

Numbers say nothing across programs: 1 is the liver here and the spleen there. Where both files name their labels (a
.seg.nrrd does; a model's or a user's table can), names decide; where one does not, numbers do, and `notes` say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .errors import InputError
from .grid import check_same_grid, put_on_grid
from .label_maps import names_in, read_label_map
from .names import alike, find, plain, same
from .volume import Volume

Names = Mapping[int, str]


@dataclass(frozen=True)
class Pair:
    """What can be compared voxel by voxel.

    Attributes:
        prediction, reference: label maps on one grid, in which a value stands for the same label.
        names: value -> name of the labels to compare, those of the reference first.
        notes: what the user should know.
    """

    prediction: Volume
    reference: Volume
    names: dict[int, str]
    notes: tuple[str, ...]


def read_pair(
    prediction: Path,
    reference: Path,
    *,
    table: Names | None = None,
    only: Sequence[str] | None = None,
    mapping: Mapping[str, str] | None = None,
    by_number: bool = False,
    threshold: bool = False,
) -> Pair:
    """Two files as a pair.

    Args:
        table: names for the values of a file that has none of its own.
        only: names to compare; by default all.
        mapping: the prediction's name of a label -> the reference's, where these differ.
        by_number: values decide although there are names.
        threshold: see `read_label_map`.

    Raises:
        InputError: a file cannot be read; the grids differ; both have names and none is the same; a mapping names a
            label that is not there.
    """
    ours, theirs = (read_label_map(path, threshold=threshold) for path in (prediction, reference))
    names = [names_in(path) for path in (prediction, reference)]
    own = [found or table for found in names]
    ours, theirs = _on_one_grid(ours, theirs)
    if by_number or own[0] is None or own[1] is None:
        if mapping:
            raise InputError(
                "Labels are mapped by name, and the names of one file are not known.",
                "Its values cannot be told apart by name.",
                "Name the labels of files without names with --labels or --model, or leave out --map.",
            )
        pair = _by_number(ours, theirs, own[1] or own[0] or {}, "" if by_number else _nameless(own))
    else:
        pair = _by_name(ours, theirs, own[0], own[1], mapping or {})
    pair = replace(pair, notes=tuple(dict.fromkeys([*ours.notes, *theirs.notes, *pair.notes])))
    return pair if only is None else _limited(pair, only)


def _on_one_grid(ours: Volume, theirs: Volume) -> tuple[Volume, Volume]:
    """Both on the grid of the reference, or of the prediction where the reference is cut to its segments."""
    small, large = sorted((ours, theirs), key=lambda labels: labels.array.size)
    if small.array.size == large.array.size:
        return put_on_grid(ours, theirs), theirs
    if small.source.kind != "seg.nrrd":  # Slicer saves segmentations without what is empty around them; others do not
        check_same_grid(ours, theirs)
    whole = put_on_grid(small, large)
    return (whole, theirs) if small is ours else (ours, whole)


def _nameless(own: Sequence[Names | None]) -> str:
    who = "Neither file" if own[0] is own[1] is None else "The prediction" if own[0] is None else "The reference"
    verb = "names its labels" if who == "Neither file" else "does not name its labels"
    return f"{who} {verb}: they were compared by number."


def _by_number(ours: Volume, theirs: Volume, named: Names, note: str) -> Pair:
    values = sorted(_values(ours) | _values(theirs))
    names = dict(named) | {value: f"label {value}" for value in values if value not in named}
    notes = [note] if note else []
    if named:
        notes += _unnamed("The label maps have", values, named)
    return Pair(ours, theirs, names, tuple(notes))


def _by_name(ours: Volume, theirs: Volume, our_names: Names, their_names: Names, mapping: Mapping[str, str]) -> Pair:
    """The prediction with the reference's values."""
    in_ours, in_theirs = _values(ours), _values(theirs)
    notes = _unnamed("The prediction has", in_ours, our_names) + _unnamed("The reference has", in_theirs, their_names)
    names = dict(their_names) | {value: f"label {value}" for value in sorted(in_theirs) if value not in their_names}
    _check_mapping(mapping, our_names, their_names)
    by_name = {plain(name): value for value, name in their_names.items()}
    values, alone = {}, []
    for value in sorted(in_ours | set(our_names)):
        name = our_names.get(value)
        mapped = None if name is None else next((to for of, to in mapping.items() if same(of, name)), name)
        if mapped is None and value in names and value not in their_names:
            values[value] = value  # a number that neither side explains is compared as such
        elif mapped is not None and plain(mapped) in by_name:
            values[value] = by_name[plain(mapped)]
        else:
            values[value] = value if value not in names else max([255, *names, *values.values()]) + 1
            if value in in_ours:
                names[values[value]] = name or f"label {value}"
                alone += [name] if name else []
    met = set(values.values()) & set(their_names)
    if our_names and their_names and not met:
        raise _nothing_in_common(our_names, their_names)
    missing = [name for value, name in their_names.items() if value not in met and value in in_theirs]
    if alone:
        notes.append(f"Only the prediction has {_listed(alone)}: nothing judges it.")
    if missing:
        notes.append(f"Only the reference has {_listed(missing)}: it counts as not found.")
    if alone and missing:
        notes.append(
            f"If some are the same, say so, as in --map {_option(alone, missing)}, or compare with --by-number."
        )
    changed = np.zeros(ours.array.shape, np.min_scalar_type(max(values.values(), default=0)))
    for old, new in values.items():
        changed[ours.array == old] = new
    return Pair(ours.with_array(changed), theirs, names, tuple(notes))


def _check_mapping(mapping: Mapping[str, str], our_names: Names, their_names: Names) -> None:
    for of, to in mapping.items():
        for name, side, known in ((of, "prediction", our_names), (to, "reference", their_names)):
            if find(name, known.values()) is None:
                raise InputError(
                    f"The {side} has no label {name!r}.",
                    "A mapping says which label of the prediction is which of the reference.",
                    f"It has: {_listed(list(known.values()))}.",
                )


def _limited(pair: Pair, only: Sequence[str]) -> Pair:
    """Only the labels of these names, in their order; a name that neither has stays, with nothing to show."""
    kept = {}
    free = max([255, *pair.names]) + 1
    for name in only:
        value = next((value for value, other in pair.names.items() if same(name, other)), None)
        if value is None:
            value, free = free, free + 1
        kept[value] = pair.names.get(value, name)
    return replace(pair, names=kept)


def _values(labels: Volume) -> set[int]:
    """Those that occur, background left out."""
    return {int(value) for slab in labels.array for value in np.unique(slab)} - {0}


def _unnamed(who: str, values: set[int] | Sequence[int], names: Names) -> list[str]:
    without = [str(value) for value in sorted(values) if value not in names]
    return [f"{who} values without a name: {', '.join(without)}."] if without else []


def _nothing_in_common(our_names: Names, their_names: Names) -> InputError:
    ours, theirs = list(our_names.values()), list(their_names.values())
    return InputError(
        f"No label has the same name in both: the prediction has {_listed(ours)}, the reference {_listed(theirs)}.",
        "Labels are matched by name, whatever its case and blanks, so there is nothing to compare.",
        f"Say which are the same, as in --map {_option(ours, theirs)}, or compare the numbers with --by-number.",
    )


def _option(ours: Sequence[str], theirs: Sequence[str]) -> str:
    """An example, of names that look alike where there are any."""
    close = next(((name, twin) for name in ours if (twin := alike(name, theirs))), (ours[0], theirs[0]))
    return f"'{close[0]}={close[1]}'"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")

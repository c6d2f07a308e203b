"""Which slices of a DICOM series belong to one volume.

A series as hospitals have it may hold a localizer, a slice twice, or several volumes: echoes, b-values, time points,
acquisitions. What clearly does not belong is left out and told; several volumes become a choice; what stays unclear
is refused when it is read, with the files named.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .divide import divide, stack_of
from .file import DicomFile
from .pixels import read_frames
from .slice import Slice
from .stack import listed, same_kind

_FEWEST = 5  # slices from which something odd can be told from the rest
_ODD_SHARE = 5  # the odd ones are at most a fifth of the rest
_COPY_MM = 0.01
_ON_GRID = 0.1  # steps; scanners round positions


@dataclass(frozen=True)
class Part:
    """Slices that make one volume. `words`: what sets it apart from others of its series; `notes`: what was left out
    or assumed."""

    slices: tuple[Slice, ...]
    words: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """True when the slices form an even stack."""
        stack = stack_of(self.slices)
        return stack is not None and stack.even


def separate(slices: Sequence[Slice]) -> list[Part]:
    """The volumes of one series, in a lasting order. What cannot be told apart stays one part, which cannot be read."""
    kinds, unplaced = _kinds(slices)
    if len(slices) == 1 or not kinds:
        return [_without_copies(slices)]
    marked = [kind for kind in kinds if kind[0].is_localizer]
    if len(marked) == len(kinds):
        marked = []
    wanted = [kind for kind in kinds if kind not in marked]
    large = [kind for kind in wanted if len(kind) >= _FEWEST] if len(wanted) > 1 else wanted
    small = [one for kind in wanted if kind not in large for one in kind] + unplaced
    if (small and _ODD_SHARE * len(small) > sum(map(len, large))) or not large:
        return [Part(tuple(slices))]
    large.sort(key=_kind_words)
    parts = [part for kind in large for part in _volumes(kind, _kind_words(kind) if len(large) > 1 else "")]
    odd = small + [one for kind in marked for one in kind]
    if not odd:
        return parts
    if not all(part.is_clean if unplaced else stack_of(part.slices) for part in parts):
        return [Part(tuple(slices))]
    note = (
        f"{len(odd)} slices that do not lie in one stack with the others, such as localizers, were left out: "
        f"{listed([one.name for one in odd])}"
    )
    return [replace(part, notes=(note, *part.notes)) for part in parts]


def _kinds(slices: Sequence[Slice]) -> tuple[list[list[Slice]], list[Slice]]:
    """Slices of one size, orientation and spacing each, and those without a place."""
    kinds: list[list[Slice]] = []
    unplaced = []
    for one in slices:
        if one.plane is None:
            unplaced.append(one)
            continue
        for kind in kinds:
            first = kind[0]
            alike = (one.file.size, one.is_localizer) == (first.file.size, first.is_localizer)
            if alike and first.plane is not None and same_kind(one.plane, first.plane):
                kind.append(one)
                break
        else:
            kinds.append([one])
    return kinds, unplaced


def _kind_words(kind: Sequence[Slice]) -> str:
    plane = kind[0].plane
    facing = "" if plane is None else ("sagittal", "coronal", "axial")[int(np.abs(plane.normal).argmax())]
    rows, columns, _ = kind[0].file.size
    return f"{facing}, {columns} x {rows} pixels"


def _volumes(kind: Sequence[Slice], words: str) -> list[Part]:
    """The volumes of slices that are parallel and of one size."""
    whole = _without_copies(kind)
    divided = divide(whole.slices)
    if isinstance(divided, str):
        return [replace(whole, words=words, notes=(*whole.notes, divided))]
    if not divided:
        return [_without_strays(replace(whole, words=words))]
    return [Part(tuple(part), ", ".join(filter(None, (words, said))), whole.notes) for said, part in divided]


def _without_copies(slices: Sequence[Slice]) -> Part:
    """Drop slices that are equal to another in place and in voxels, whatever their UIDs."""
    kept: list[Slice] = []
    copies: list[str] = []
    hashes: dict[int, list[bytes]] = {}  # of all frames of a file, by what identifies it here
    for group in _together(slices):
        seen: dict[bytes, Slice] = {}
        for one in group:
            if len(group) > 1 and id(one.file) not in hashes:
                hashes[id(one.file)] = _frame_hashes(one.file)
            first = seen.setdefault(hashes[id(one.file)][one.frame] if len(group) > 1 else b"", one)
            if first is not one:
                copies.append(f"{one.name} of {first.name}")
        kept += seen.values()
    order = {id(one): n for n, one in enumerate(slices)}
    kept.sort(key=lambda one: order[id(one)])
    said = "1 copy of a slice was" if len(copies) == 1 else f"{len(copies)} copies of slices were"
    note = f"{said} ignored: {listed(copies)}"
    return Part(tuple(kept), notes=(note,) if copies else ())


def _together(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Slices that could be copies: in one place, or without a place and of one UID."""
    groups: list[list[Slice]] = []
    last: np.ndarray | None = None
    for one, position in sorted(_positions(slices), key=lambda pair: tuple(pair[1].round(2))):
        if last is not None and np.abs(position - last).max() <= _COPY_MM:
            groups[-1].append(one)
        else:
            groups.append([one])
        last = position
    unplaced: dict[Hashable, list[Slice]] = defaultdict(list)
    for one in slices:
        if one.plane is None:
            unplaced[one.file.text("SOPInstanceUID") or id(one), one.frame].append(one)
    return groups + list(unplaced.values())


def _positions(slices: Sequence[Slice]) -> Iterator[tuple[Slice, np.ndarray]]:
    for one in slices:
        if one.plane is not None:
            yield one, one.plane.position


def _without_strays(part: Part) -> Part:
    """Leave out slices that lie between the others of an even stack, off their places."""
    stack = stack_of(part.slices)
    if stack is None or stack.even:
        return part
    on_grid = np.abs(stack.k_of_slice - np.rint(stack.k_of_slice)) <= _ON_GRID
    order = {id(part.slices[n]): k for k, n in enumerate(stack.order)}
    kept = [one for one in part.slices if on_grid[order[id(one)]]]
    odd = [one for one in part.slices if not on_grid[order[id(one)]]]
    between = on_grid[[0, -1]].all() and _ODD_SHARE * len(odd) <= len(kept)
    rest = replace(part, slices=tuple(kept))
    if not odd or not between or not rest.is_clean:
        return part
    note = f"{len(odd)} slices that lie between the places of an even stack were left out: "
    return replace(rest, notes=(*part.notes, note + listed([one.name for one in odd])))


def _frame_hashes(file: DicomFile) -> list[bytes]:
    array = read_frames(file).array
    return [hashlib.sha256(array[..., frame, :, :].tobytes()).digest() for frame in range(file.frames)]

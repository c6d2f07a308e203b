"""Several volumes among the parallel slices of one DICOM series: what divides them into stacks of one slice a place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain, combinations

import numpy as np

from ...errors import InputError
from .pixels import read_frames
from .slice import Slice
from .stack import SAME_PLACE_MM, Stack, stack_planes, step_of

Group = tuple[str, list[Slice]]  # what sets it apart, in words

# What tells volumes of one series apart, most telling first, and how to say it: first what is seen differently, then
# when it was taken, in which the passes of one acquisition differ too.
_CONTRASTS = {
    "EchoTime": "echo time",
    "EffectiveEchoTime": "echo time",
    "EchoNumbers": "echo",
    "DiffusionBValue": "b-value",
    "DiffusionGradientOrientation": "gradient",
    "SequenceName": "sequence",
    "ComplexImageComponent": "component",
    "ImageType": "image type",
    "ConvolutionKernel": "kernel",
    "KVP": "tube voltage",
    "InversionTime": "inversion time",
    "FlipAngle": "flip angle",
    "TemporalPositionIdentifier": "time point",
    "TemporalPositionIndex": "time point",
    "TemporalPositionTimeOffset": "time",
    "NominalPercentageOfCardiacPhase": "cardiac phase",
    "NominalCardiacTriggerDelayTime": "trigger delay",
    "StackID": "stack",
    "SeriesNumber": "series",
    "SeriesDescription": "series",
    "ProtocolName": "protocol",
}
_PASSES = {
    "AcquisitionNumber": "acquisition",
    "AcquisitionDateTime": "acquisition at",
    "AcquisitionTime": "acquisition at",
    "ContentTime": "image at",
    "TriggerTime": "trigger time",
}
_RANKED = ("TriggerTime", "AcquisitionDateTime", "AcquisitionTime", "ContentTime")
_SAME_STEP = 1.25  # a slice that is thicker than the step by more overlaps its neighbour
OTHER_CONTRAST = 0.2  # standard deviations of the voxels between the means of two passes
_SAMPLED = 9  # slices of a pass that are looked at for that
_LONGEST_WORD = 40


def stack_of(slices: Sequence[Slice]) -> Stack | None:
    """The stack they form; None when they form none."""
    planes = [one.plane for one in slices if one.plane is not None]
    try:
        return stack_planes(planes, 1.0, "", [""] * len(planes)) if len(planes) == len(slices) else None
    except InputError:
        return None


def divide(slices: Sequence[Slice]) -> list[Group] | str:
    """The volumes that parallel slices of one size hold, each one slice a place; none when they are one volume, or
    when nothing divides them; or a note where passes that lie between each other were taken as one volume.

    Scanners acquire every other slice of a volume in a second pass, to spare its neighbours; two acquisitions whose
    slices each reach to the next one of their own are two volumes, though together they are evenly spaced too.
    """
    stack = stack_of(slices)
    single = stack is not None  # one slice a place as it is
    for keywords, groups in _groupings(slices, pairs=not single):
        if not _divides(groups, fewest=3 if single else 2):
            continue
        if stack is not None and stack.even and keywords[0] in _PASSES and _one_volume(slices, groups):
            return _note(keywords[0], groups, slices)
        return _in_words(keywords, groups)
    return _counted_twice(slices) if single else _ranked(slices)


def _groupings(
    slices: Sequence[Slice], pairs: bool
) -> Iterator[tuple[tuple[str, ...], dict[tuple[str, ...], list[Slice]]]]:
    """Slices by the values of one attribute, then of two, where every value is that of several slices."""
    values = {keyword: [_said(one, keyword) for one in slices] for keyword in (*_CONTRASTS, *_PASSES)}
    differing = [keyword for keyword, said in values.items() if 1 < len(set(said)) <= len(slices) / 2]
    wanted = chain(((keyword,) for keyword in differing), combinations(differing, 2) if pairs else ())
    for keywords in wanted:
        groups: dict[tuple[str, ...], list[Slice]] = defaultdict(list)
        for n, one in enumerate(slices):
            groups[tuple(values[keyword][n] for keyword in keywords)].append(one)
        yield keywords, groups


def _divides(groups: dict[tuple[str, ...], list[Slice]], fewest: int) -> bool:
    """True when every group is an even stack, and they lie in one range: pieces of one volume follow each other."""
    if min(map(len, groups.values())) < fewest:
        return False
    ranges = []
    for group in groups.values():
        stack = stack_of(group)
        if stack is None or not stack.even:
            return False
        along = _along(group, next(iter(groups.values()))[0])
        ranges.append((along.min(), along.max()))
    return all(
        min(one[1], other[1]) - max(one[0], other[0]) >= 0.5 * min(one[1] - one[0], other[1] - other[0])
        for one, other in combinations(ranges, 2)
    )


def _along(slices: Sequence[Slice], first: Slice) -> np.ndarray:
    """Places along the normal of `first`, in mm."""
    if first.plane is None:
        return np.zeros(len(slices))
    return np.array([one.plane.position @ first.plane.normal for one in slices if one.plane is not None])


def _one_volume(slices: Sequence[Slice], groups: dict[tuple[str, ...], list[Slice]]) -> bool:
    """True when passes between each other's slices are one volume: slices no thicker than their distance, counted
    on, and of one contrast."""
    numbers = [_said(one, "InstanceNumber") for one in slices]
    if len(set(numbers)) < len(numbers) and any(numbers):
        return False
    step = step_of(np.diff(np.sort(_along(slices, slices[0]))))
    if not (slices[0].told_thickness and slices[0].told_thickness <= _SAME_STEP * step):
        return False
    samples = [_sample(group) for group in groups.values()]
    spread = max(float(np.std(np.concatenate(samples))), 1e-9)
    means = [float(sample.mean()) for sample in samples]
    return max(means) - min(means) <= OTHER_CONTRAST * spread


def _sample(group: Sequence[Slice]) -> np.ndarray:
    picked = {int(n) for n in np.linspace(0, len(group) - 1, _SAMPLED)}
    ordered = [group[int(n)] for n in np.argsort(_along(group, group[0]))]
    chosen = [ordered[n] for n in sorted(picked)]
    arrays = {file: read_frames(file).array for file in {one.file for one in chosen}}
    voxels = [arrays[one.file][..., one.frame, ::2, ::2].ravel() for one in chosen]
    return np.concatenate(voxels).astype(np.float64)


def _note(keyword: str, groups: dict[tuple[str, ...], list[Slice]], slices: Sequence[Slice]) -> str:
    step = step_of(np.diff(np.sort(_along(slices, slices[0]))))
    passes = " and ".join(f"{_PASSES[keyword]} {value}" for (value,) in _sorted(groups))
    return f"the slices of {passes} lie between each other, {step:.2f} mm apart: they were taken as one volume"


def _in_words(keywords: tuple[str, ...], groups: dict[tuple[str, ...], list[Slice]]) -> list[Group]:
    told = {**_CONTRASTS, **_PASSES}
    words = []
    for n, values in enumerate(_sorted(groups), 1):
        said = ", ".join(
            f"{told[keyword]} {value or 'unknown'}" for keyword, value in zip(keywords, values, strict=True)
        )
        words.append(
            (f"{said} of {len(groups)}" if values == (str(n),) else f"{said} ({n} of {len(groups)})", groups[values])
        )
    return words


def _sorted(groups: dict[tuple[str, ...], list[Slice]]) -> list[tuple[str, ...]]:
    def place(values: tuple[str, ...]) -> list[tuple[int, float, str]]:
        return [_order(value) for value in values]

    return sorted(groups, key=place)


def _order(value: str) -> tuple[int, float, str]:
    try:
        return 0, float(value), ""
    except ValueError:
        return 1, 0.0, value


def _said(one: Slice, keyword: str) -> str:
    """The value in one spelling, "" where there is none."""
    value = one.value(keyword)
    if value is None:
        return ""
    items = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
    return "/".join(_plain(item) for item in items)[:_LONGEST_WORD]


def _plain(item: object) -> str:
    text = "".join(character for character in str(item) if character.isprintable()).strip()
    try:
        return f"{float(text):.12g}"
    except ValueError:
        return text


def _counted_twice(slices: Sequence[Slice]) -> list[Group]:
    """Volumes whose slices lie between each other and are numbered alike: 1, 2, 3, ... once for each."""
    numbers = [_said(one, "InstanceNumber") for one in slices]
    several, rest = divmod(len(numbers), len(set(numbers)))
    if several < 2 or rest or not all(numbers):
        return []
    ordered = [slices[int(n)] for n in np.argsort(_along(slices, slices[0]))]
    combs = [ordered[n::several] for n in range(several)]
    counted = all(len({_said(one, "InstanceNumber") for one in comb}) == len(comb) for comb in combs)
    if not counted or not _divides({(str(n),): comb for n, comb in enumerate(combs)}, fewest=3):
        return []
    return [(f"every {several}. slice ({n} of {several})", comb) for n, comb in enumerate(combs, 1)]


def _ranked(slices: Sequence[Slice]) -> list[Group]:
    """Volumes by order in time, where every place has as many slices as any other: the first taken at each place is
    in the first volume. The number of a slice says too little: writers count in any order."""
    along = _along(slices, slices[0])
    order = np.argsort(along, kind="stable")
    cuts = np.flatnonzero(np.diff(along[order]) > SAME_PLACE_MM) + 1
    places = [[slices[int(n)] for n in place] for place in np.split(order, cuts)]
    several = len(places[0])
    if several < 2 or len(places) < 2 or any(len(place) != several for place in places):
        return []
    for keyword in _RANKED:
        taken = [sorted(place, key=lambda one: _order(_said(one, keyword))) for place in places]
        times = [[_order(_said(one, keyword)) for one in place] for place in taken]
        if any(len(set(at)) < several or any(kind for kind, *_ in at) for at in times):
            continue
        groups = [[place[n] for place in taken] for n in range(several)]
        if all(stack_of(group) is not None for group in groups):
            return [(f"time {n} of {several}", group) for n, group in enumerate(groups, 1)]
    return []

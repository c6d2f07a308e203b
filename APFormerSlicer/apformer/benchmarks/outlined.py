"""`apformer benchmark follow --outlined EVERY`: structures outlined on some slices, and what lies between.

A simulated user outlines a structure, as its reference has it, on its first slice, on every so-manieth one from there
on and on its last, and asks for the rest. Compared are the slices between: as they are proposed, and interpolated as
*Fill between slices* of 3D Slicer does, which is ITK's morphological contour interpolation. Where that is not installed
(`pip install itk-morphologicalcontourinterpolation`), ours, which is better in the mean, takes its place.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.listing import Listing, Pair, read_listing
from ..errors import ConfigError
from ..files import read_volume
from ..following.between import SECONDS, between
from ..following.drawn_slices import DrawnSlices
from ..following.edge_network import START
from ..following.interpolation import Outline, interpolated
from ..grid import put_on_grid
from ..label_maps import read_label_map
from ..metrics import dice
from ..names import same
from ..volume import Volume
from .machine import describe_machine

Say = Callable[[str], None]
Interpolate = Callable[[np.ndarray, Sequence[int]], np.ndarray]
"""A mask (slices, rows, columns) and which slices count -> the same with what lies between them."""


def study(
    dataset: Path,
    every: int,
    base: Path | None = START,
    *,
    structures: Sequence[str] = (),
    volumes: int | None = None,
    axis: int = 0,
    seconds: float = SECONDS,
    interpolate: Interpolate | None = None,
    say: Say = lambda message: None,
) -> dict[str, Any]:
    """Measure what is proposed between outlined slices.

    Args:
        dataset: in Decathlon layout.
        every: how many slices on the next outlined one is; 2 at least.
        base: weights that the networks begin with; None: from nothing.
        structures: names; all by default.
        volumes: at most so many, evenly over all.
        axis: of the arrays (k, j, i), across the slices.
        seconds: for each structure.
        interpolate: what is compared with.

    Returns: `structures`, for each name the mean Dice on the slices between (`interpolated`, `followed`), the least
        gain of a volume (`worst`), in how many volumes the network's answer was proposed (`learned`) and of how many
        (`volumes`); `seconds` of a structure, median; `interpolation` compared with; `cases`.

    Raises:
        ConfigError: the data set cannot be used or has no such structure, or `every` is below 2.
    """
    if every < 2:
        raise ConfigError(
            f"Every slice number {every} was to be outlined.", "Nothing lies between.", "Give 2 or more, such as 4."
        )
    name, fill = ("given", interpolate) if interpolate is not None else comparator()
    listing = read_listing(dataset)
    values = _values(listing, structures)
    cases = []
    for pair in evenly(listing.pairs, volumes):
        for case in _cases(pair, values, every, base, axis, seconds, fill):
            cases.append(case)
            say("{volume}, {structure}: {interpolated:.3f} -> {followed:.3f} ({seconds:.1f} s)".format(**case))
    if not cases:
        raise ConfigError(
            f"No volume of {dataset} shows one of {', '.join(values.values())} on enough slices.",
            "Nothing lies between outlined slices.",
            "Give a smaller number, or another data set.",
        )
    return {
        "dataset": dataset.name,
        "outlined": every,
        "interpolation": name,
        "machine": describe_machine(),
        "structures": {
            structure: _summary([case for case in cases if case["structure"] == structure])
            for structure in dict.fromkeys(case["structure"] for case in cases)
        },
        "seconds": statistics.median(case["seconds"] for case in cases),
        "cases": cases,
    }


def evenly(pairs: Sequence[Pair], most: int | None) -> list[Pair]:
    """At most so many, evenly over all; all where nothing is said."""
    if most is None or most >= len(pairs):
        return list(pairs)
    return [pairs[n] for n in np.linspace(0, len(pairs) - 1, most).round().astype(int)]


def comparator() -> tuple[str, Interpolate]:
    """ITK's interpolation where it is installed, else ours, and its name."""
    try:
        import itk

        itk.MorphologicalContourInterpolator  # noqa: B018 - a module of its own, loaded when it is named
    except (ImportError, AttributeError):
        return "distances", distances
    return "ITK", morphological


def morphological(mask: np.ndarray, slices: Sequence[int]) -> np.ndarray:
    """ITK's."""
    import itk

    drawn = np.zeros(mask.shape, np.uint8)
    drawn[list(slices)] = mask[list(slices)]
    return np.asarray(itk.morphological_contour_interpolator(itk.image_from_array(drawn), axis=2)) > 0


def distances(mask: np.ndarray, slices: Sequence[int]) -> np.ndarray:
    """Ours, see `following.interpolation`."""
    filled = np.zeros(mask.shape, bool)
    for first, second in pairwise(slices):
        ends = Outline(mask[first]), Outline(mask[second])
        for index in range(first, second + 1):
            filled[index] = interpolated(*ends, (index - first) / (second - first)) < 0
    return filled


def outlined_slices(mask: np.ndarray, every: int) -> list[int]:
    """The first, every so-manieth from there on, and the last one of a mask (slices, rows, columns)."""
    there = np.flatnonzero(mask.any(axis=(1, 2)))
    return sorted({*range(there[0], there[-1] + 1, every), there[-1]}) if len(there) else []


def _values(listing: Listing, structures: Sequence[str]) -> dict[int, str]:
    found = {
        value: name
        for value, name in listing.names.items()
        if value and (not structures or any(same(name, wanted) for wanted in structures))
    }
    if not found or len(found) < len(structures):
        raise ConfigError(
            f"Not all of {', '.join(structures) or 'its structures'} are in the data set.",
            f"It names {', '.join(listing.names.values()) or 'none'}.",
            "Give names of these.",
        )
    return found


def _cases(
    pair: Pair, values: dict[int, str], every: int, base: Path | None, axis: int, seconds: float, fill: Interpolate
) -> Iterator[dict[str, Any]]:
    volume = read_volume(pair.images[0])
    labels = put_on_grid(read_label_map(pair.labels), volume).array
    for value, name in values.items():
        if pair.labelled is not None and value not in pair.labelled:
            continue
        mask = np.moveaxis(labels == value, axis, 0)
        slices = outlined_slices(mask, every)
        gaps = [index for index in range(slices[0], slices[-1]) if index not in slices] if slices else []
        if gaps:
            yield {"volume": pair.stem, "structure": name, "outlined": len(slices)} | _compared(
                volume, mask, axis, slices, gaps, base, seconds, fill
            )


def _compared(
    volume: Volume,
    mask: np.ndarray,
    axis: int,
    slices: Sequence[int],
    gaps: Sequence[int],
    base: Path | None,
    seconds: float,
    fill: Interpolate,
) -> dict[str, Any]:
    """Dice on the slices between, and what was proposed."""
    drawn = np.zeros(mask.shape, np.uint8)
    drawn[list(slices)] = mask[list(slices)]
    where = DrawnSlices(axis, tuple(slices))
    found = between(volume, np.moveaxis(drawn, 0, axis), {1: where}, seconds=seconds, start=base)
    proposed = np.moveaxis(found.labels, axis, 0) > 0
    return {
        "interpolated": dice(fill(mask, slices)[gaps], mask[gaps]),
        "distances": dice(distances(mask, slices)[gaps], mask[gaps]),
        "followed": dice(proposed[gaps], mask[gaps]),
        "learned": found.structures[0].learned,
        "share": found.structures[0].share,
        "left_out": [found.structures[0].dice_interpolated, found.structures[0].dice_learned],
        "steps": found.structures[0].steps,
        "seconds": found.seconds,
    }


def _summary(cases: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "interpolated": statistics.mean(case["interpolated"] for case in cases),
        "followed": statistics.mean(case["followed"] for case in cases),
        "worst": min(case["followed"] - case["interpolated"] for case in cases),
        "learned": sum(case["learned"] for case in cases),
        "volumes": len(cases),
    }


def render(record: dict[str, Any]) -> str:
    """A table: a line per structure."""
    lines = [f"Every {record['outlined']}. slice outlined; Dice of the slices between", ""]
    lines.append(f"structure                  volumes  {record['interpolation']:>9}  proposed  least gain")
    for name, each in record["structures"].items():
        figures = f"{each['interpolated']:>9.3f}  {each['followed']:>8.3f}  {each['worst']:>+10.3f}"
        lines.append(f"{name:<27}{each['volumes']:>7}  {figures}")
    return "\n".join([*lines, "", f"{record['seconds']:.1f} s for a structure (median)"])

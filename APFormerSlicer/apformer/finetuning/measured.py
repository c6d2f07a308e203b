"""Which validation cases models are measured on where measuring all of them would leave no time to learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..datasets import SiteCase
from ..training.validation import spread

MEASURED_SHARE = 0.1  # of the time of a fine-tuning, that measuring one model may take, if it is enough for ...
FEWEST_MEASURED = 4  # ... so many cases


def in_turn(sites: Sequence[SiteCase]) -> list[SiteCase]:
    """The cases in an order of which every beginning is a fair sample: one that holds each structure comes first, the
    rarest structure's before the others'; all others lie evenly over the whole."""
    evenly = spread(sites)
    held = {site.name: set(site.revision.counts) if site.revision is not None else set() for site in evenly}
    holders = {value: [site for site in evenly if value in held[site.name]] for value in set().union(*held.values())}
    first: list[SiteCase] = []
    for value in sorted(holders, key=lambda value: (len(holders[value]), value)):
        if not any(value in held[site.name] for site in first):
            first.append(holders[value][0])
    return first + [site for site in evenly if site not in first]


def as_many(sites: Sequence[SiteCase], seconds_per_voxel: float, allowed: float) -> list[SiteCase]:
    """As many of the cases `in_turn` as can be measured in `allowed` seconds, but at least the fewest."""
    taken: list[SiteCase] = []
    needed = 0.0
    for site in sites:
        needed += seconds_per_voxel * math.prod(site.image.shape_kji)
        if len(taken) >= FEWEST_MEASURED and needed > allowed:
            break
        taken.append(site)
    return taken


def are_enough(clock: Callable[[], float], allowed: float) -> Callable[[int], bool]:
    """Tells, after so many cases were measured, whether the time for it is over; it begins now."""
    began = clock()
    return lambda done: done >= FEWEST_MEASURED and clock() - began > allowed


def told(measured: int, all_there_are: int) -> list[str]:
    """In words, where not all were measured."""
    if measured >= all_there_are:
        return []
    return [
        f"{measured} of the {all_there_are} validation cases were measured, before and after alike: all of them would "
        "have taken most of the time. The figures are less certain for it; more time measures more."
    ]

"""Whether a base sees the intensities of what it is to learn: its CT window was made for other structures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from .. import files
from ..bundles import Bundle
from ..datasets import LOOK, Problem, SiteCase
from .extents import BRIGHTNESS
from .labels import LabelPlan

LOOKED_AT = 3  # cases per structure: a window that misses a structure misses it in every case
CUT_OFF = 0.5  # share of a structure's voxels beyond the window, above which it is told


def window_problems(
    base: Bundle | None, sites: Sequence[SiteCase], plan: LabelPlan, check: Callable[[], None] = lambda: None
) -> list[Problem]:
    """One for each structure, new to the base, of which its window cuts off more than `CUT_OFF`.

    Args:
        check: called before each file that is read; stops by raising.

    Raises:
        InputError: a file cannot be read.
    """
    if base is None or base.preprocessing.intensity["kind"] != "window":
        return []
    known = set(plan.base_channels.values())
    new = {value: plan.judged[ours] for value, ours in plan.site_values.items() if ours not in known}
    voxels = _voxels(sites, new, check)
    return [problem for value, name in new.items() for problem in _told(base, name, voxels[value])]


def _voxels(
    sites: Sequence[SiteCase], values: Collection[int], check: Callable[[], None]
) -> Mapping[int, Sequence[np.ndarray]]:
    """Intensities of the first `LOOKED_AT` cases of each structure."""
    found: dict[int, list[np.ndarray]] = {value: [] for value in values}
    for site in sites:
        held = site.revision.counts if site.revision is not None else {}
        wanted = [value for value, seen in found.items() if value in held and len(seen) < LOOKED_AT]
        if not wanted or site.labels_path is None:
            continue
        check()
        image = files.read_volume(site.image_path).array
        check()
        labels = files.read_volume(site.labels_path).array
        for value in wanted:
            found[value].append(image[labels == value])
    return found


def _told(base: Bundle, name: str, cases: Sequence[np.ndarray]) -> list[Problem]:
    if not cases:
        return []
    lower, upper = (float(base.preprocessing.intensity[edge]) for edge in ("lower", "upper"))
    cut = float(np.mean([np.mean((seen < lower) | (seen > upper)) for seen in cases]))
    if cut <= CUT_OFF:
        return []
    low, high = np.percentile(np.concatenate(cases), BRIGHTNESS)
    problem = Problem(
        "window",
        LOOK,
        (),
        f"{cut:.0%} of {name} is outside of the intensities that {base.name} {base.version} sees, {lower:g} to "
        f"{upper:g}; it lies between {low:.4g} and {high:.4g}.",
        "What is outside looks the same to the network, and like all else that is: it may not find the structure.",
        "Choose a base for structures of such intensities, or none: its window follows from the cases.",
    )
    return [problem]

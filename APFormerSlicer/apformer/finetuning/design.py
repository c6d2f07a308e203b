"""A model from nothing: which preprocessing and network suit a site's cases, read off the cases alone.

The rules are few and in the open: volumes of nearly cubic voxels get a 3D network, everything else a 2D one; the grid
follows from what is labelled (`layout`); the network is a LeanFormer whose levels follow from the grid and from the
thinnest structure (`levels`), unless another one is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..bundles.preprocessing import ACQUIRED, Preprocessing
from ..datasets import SiteCase
from .extents import Seen, look_at
from .layout import is_flat, lay_out
from .levels import lean_arguments
from .request import LEANFORMER

WINDOW_MARGIN = 0.25  # of the window's width, on both sides: other scanners, other contrast phases
PERCENTILES = {"kind": "percentile", "lower": 0.5, "upper": 99.5}


@dataclass(frozen=True)
class Design:
    """What a model is before it is trained. `arguments` are the network's, without its outputs."""

    modality: str
    channels: int
    preprocessing: Preprocessing
    network: str
    arguments: dict[str, Any]


def design(
    sites: Sequence[SiteCase],
    labelled: Sequence[int],
    check: Callable[[], None] = lambda: None,
    network: str = LEANFORMER,
    sided: bool = False,
) -> Design:
    """A model for these cases.

    Args:
        labelled: the values in their label maps that are learned: a CT window is put around their intensities.
        check: called between the files that are read; stops by raising.
        network: its registered name.
        sided: whether structures are told apart by their side alone: then slices are turned as the patient lies.
    """
    channels = sites[0].image.channels
    modality = "RGB" if channels == 3 else _commonest([site.modality for site in sites]) or "MR"
    cases = look_at(sites, labelled, modality == "CT", check)
    flat, layout = is_flat(cases), lay_out(cases)
    pictures = all(site.image.is_picture for site in sites)
    preprocessing = Preprocessing(
        spatial_dims=2 if flat else 3,
        orientation=("LPS" if (modality == "CT" or sided) and not pictures else ACQUIRED) if flat else "RAS",
        spacing_mm=None if pictures else layout.spacing_mm,
        patch_size=layout.patch[::-1],
        intensity=_window(cases) if modality == "CT" else dict(PERCENTILES),
    )
    arguments = {**_arguments(network, preprocessing.patch_size, layout.across), "in_channels": channels}
    return Design(modality, channels, preprocessing, network, arguments)


def _arguments(network: str, patch: tuple[int, ...], across: float) -> dict[str, Any]:
    if network == LEANFORMER:
        return lean_arguments(patch, across)
    plain: dict[str, Any] = {"spatial_dims": len(patch)}
    if network != "mobile_utr":
        plain["image_size"] = list(patch)
    if network == "apformer" and len(patch) == 3:
        plain["head_dim"] = 64  # half as wide, as the bundled hippocampus model has them
    return plain


def _commonest(values: Sequence[str | None]) -> str | None:
    known = [value for value in values if value in ("CT", "MR")]
    return max(known, key=known.count) if known else None


def _window(cases: Sequence[Seen]) -> dict[str, Any]:
    """Around the intensities of what is learned: from where half of the structures begin to where half of them end, in
    half of the cases, with a margin. The union of all, with bone and air among soft organs, would leave these a
    fiftieth of the window, and they were not found; what is beyond, such as bone, is seen by its edge. So a structure
    that would lie outside altogether is let in as far as to its nearer end.
    """
    values = sorted({value for case in cases for value in case.brightness})
    if not values:  # nothing of it in the cases that were looked at
        return dict(PERCENTILES)
    found = [[case.brightness[value] for case in cases if value in case.brightness] for value in values]
    ends = np.array([np.median(each, axis=0) for each in found])  # (structures, 2)
    low, high = np.median(ends, axis=0)
    margin = WINDOW_MARGIN * max(1.0, high - low)
    low, high = min(low - margin, ends[:, 1].min()), max(high + margin, ends[:, 0].max())
    return {"kind": "window", "lower": round(float(low), 2), "upper": round(float(high), 2)}

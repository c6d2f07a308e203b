"""A base of other organs for a study of the liver: planning CT of the head and neck, seen as the liver's slices are.

No model of the head and neck ships, so that the study trains its own. Its cases are pictures like those of
`liver-ct-slices`: axial, 256 x 256, HU clipped to 0..255, right of the patient on the left, spine below.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from torch.nn import functional as F

from .. import files
from ..bundles import ModelLibrary
from ..datasets import SiteDataset, import_cases, read_decathlon
from ..datasets.imports import Pair, Source
from ..datasets.table import make_table
from ..errors import ConfigError
from ..finetuning import Request, finetune

NAME = "head-neck-slices"
PATIENT = r"^(?P<patient>hn_\d+)"
ORGANS = ("Mandible", "Brainstem")  # of seven, those that some minutes are enough to find
PATIENTS, SLICES = 40, 8  # of each patient, evenly among those that show one of them
SIDE = 256  # pixels; of the middle half of the volumes, which holds the head and is about 250 mm wide
BRIGHTEST = 255.0  # HU


def train_base(
    dataset: Path,
    library: ModelLibrary,
    scratch: Path,
    *,
    minutes: float,
    salt: str,
    threads: int | None,
    on_event: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Train `NAME` from nothing into the library, and make it the active version.

    Args:
        dataset: `head-neck-ct`. scratch: an empty folder for pictures and the site.
        salt: of the split.

    Returns: what the report tells of it, as plain data.

    Raises:
        ConfigError: it finds nothing after that time.
    """
    source = _pictures(read_decathlon(dataset), scratch / "pictures")
    site = SiteDataset.create(scratch / "base-site", make_table([",".join(ORGANS)]), salt=salt)
    mapping = {name: None for name in (source.names or {}).values() if name not in ORGANS}
    report = import_cases(site, source, patient_pattern=PATIENT, mapping=mapping)
    if report.failed:
        raise next(iter(report.failed.values()))
    request = Request(site.root, NAME, None, seconds=60 * minutes, threads=threads, device="cpu", adopt="always")
    outcome = finetune(request, library=library, on_event=on_event)
    if not outcome.adopted:
        raise ConfigError(f"{NAME} cannot be a base. {outcome.verdict}", "It knows nothing.", "Give more minutes.")
    summary = outcome.summary
    return {"patients": PATIENTS, "minutes": minutes, "labels": summary["after"]["labels"], "time": summary["time"]}


def _pictures(source: Source, folder: Path) -> Source:
    """Slices of `PATIENTS` of the patients, drawn by their names; what was outlined in a volume was in its slices."""
    folder.mkdir()
    chosen = sorted(source.pairs, key=lambda pair: hashlib.sha256(pair.stem.encode()).hexdigest())[:PATIENTS]
    values = [value for value, name in (source.names or {}).items() if name in ORGANS]
    return replace(source, pairs=tuple(slice_ for pair in chosen for slice_ in _slices(pair, values, folder)))


def _slices(pair: Pair, values: Sequence[int], folder: Path) -> list[Pair]:
    image, labels = (files.read_volume(path).oriented("LPS").array for path in (pair.images[0], pair.labels))
    shown = np.flatnonzero(np.isin(labels, values).any((1, 2)))
    made = []
    for k in shown[np.linspace(0, len(shown) - 1, min(SLICES, len(shown))).round().astype(int)]:
        stem = f"{pair.stem}_{k:03d}"
        picture = _resized(np.clip(image[k], 0.0, BRIGHTEST), "bilinear")
        paths = folder / f"{stem}.png", folder / f"{stem}_labels.png"
        for path, array in zip(paths, (picture, _resized(labels[k], "nearest-exact")), strict=True):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
        made.append(Pair(stem, (paths[0],), paths[1], pair.labelled))
    return made


def _resized(array: np.ndarray, mode: str) -> np.ndarray:
    """The middle half of (j, i), as uint8 of `SIDE` pixels along both."""
    middle = array[tuple(slice(n // 4, n - n // 4) for n in array.shape)]
    image = torch.from_numpy(middle.astype(np.float32))[None, None]
    return F.interpolate(image, (SIDE, SIDE), mode=mode)[0, 0].round().byte().numpy()

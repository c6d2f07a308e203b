"""A data set for other programs: Medical Segmentation Decathlon layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bundles.swap import put_in_place, staging
from ..errors import APFormerError, ConfigError, InputError, OutputError
from ..files import nifti, read_volume
from ..files.formats import suffix_of
from .case import COMPLETED, UNKNOWN, SiteCase
from .case_files import NIFTI_TYPES
from .channels import write_channels_nifti
from .store import SiteDataset
from .table import IGNORE


@dataclass(frozen=True)
class ExportReport:
    """The folder, the cases in it, and those that could not be read."""

    folder: Path
    cases: tuple[str, ...]
    failed: dict[str, APFormerError]


def export_decathlon(
    dataset: SiteDataset,
    output: Path,
    *,
    status: str = COMPLETED,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ExportReport:
    """Write the cases of that status to `output`, a new or empty folder: dataset.json, imagesTr, labelsTr.

    Volumes become NIfTI (its geometry is float32), pictures stay PNG; a type that NIfTI does not have stays NRRD.
    Patient codes, names of annotators and the salt are left out. One case is in memory at a time.

    Raises:
        ConfigError: there is no such case with labels.
        OutputError: the folder holds something, cannot be written, or the disk is full: nothing is left there then.
    """
    output = output.expanduser().absolute()
    cases = [case for case in dataset.cases(status) if case.current]
    if not cases:
        raise ConfigError(
            f"The data set has no {status} case with labels.", "There is nothing to export.", "Complete cases first."
        )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OutputError(
            f"{output} is not an empty folder.", "Files in it could be replaced.", "Name a new or empty folder."
        )
    written: list[dict[str, Any]] = []
    failed: dict[str, APFormerError] = {}
    with staging(output) as stage:
        (stage / "imagesTr").mkdir()
        (stage / "labelsTr").mkdir()
        for done, case in enumerate(cases, 1):
            try:
                written.append(_export(case, stage))
            except InputError as error:
                failed[case.name] = error
            progress(done, len(cases))
        described = _description(dataset, cases, written)
        (stage / "dataset.json").write_text(json.dumps(described, indent=1, ensure_ascii=False), encoding="utf-8")
        put_in_place(stage, output)
    return ExportReport(output, tuple(case.name for case in cases if case.name not in failed), failed)


def _export(case: SiteCase, stage: Path) -> dict[str, Any]:
    """The entry of a case in dataset.json; "labelled", where it has one, lists what was outlined."""
    places: dict[str, Any] = {}
    for kind, folder, path in (("image", "imagesTr", case.image_path), ("label", "labelsTr", case.labels_path)):
        if path is None or not path.is_file():
            raise InputError(
                f"{path or case.name} is missing.", "The case cannot be exported.", "Restore it from a backup."
            )
        suffix = _exported_suffix(path, case)
        target = stage / folder / f"{case.name}{suffix}"
        if suffix == suffix_of(path):
            shutil.copyfile(path, target)
        else:
            volume = read_volume(path)
            (nifti.write(target, volume, {}) if volume.channels == 1 else write_channels_nifti(target, volume))
        places[kind] = f"./{folder}/{target.name}"
    labelled = None if case.revision is None else case.revision.labelled
    return places if labelled is None else {**places, "labelled": list(labelled)}


def _exported_suffix(path: Path, case: SiteCase) -> str:
    fits = case.image.dtype in NIFTI_TYPES and max(case.image.shape_kji) <= 32767
    return ".nii.gz" if suffix_of(path) == ".nrrd" and fits else suffix_of(path)


def _description(
    dataset: SiteDataset, cases: Sequence[SiteCase], written: Sequence[dict[str, Any]]
) -> dict[str, object]:
    modalities = sorted({case.modality for case in cases if case.modality}) or ["unknown"]
    channels = max(case.image.channels for case in cases)
    labels = {label.value: label.name for label in dataset.labels}
    if any(UNKNOWN in case.revision.counts for case in cases if case.revision is not None):
        labels.setdefault(UNKNOWN, IGNORE)
    licences = sorted({case.licence for case in cases if case.licence})
    return {
        "name": dataset.root.name,
        "description": "Exported by APFormerSlicer",
        "licence": "; ".join(licences) or "unknown",
        "tensorImageSize": "2D" if all(case.image.shape_kji[0] == 1 for case in cases) else "3D",
        "modality": {str(channel): "/".join(modalities) for channel in range(channels)},
        "labels": {"0": "background"} | {str(value): name for value, name in labels.items()},
        "numTraining": len(written),
        "training": list(written),
        "numTest": 0,
        "test": [],
    }

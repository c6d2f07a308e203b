"""Other people's data sets, case by case: Medical Segmentation Decathlon and nnU-Net folders, images beside masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import APFormerError, ConfigError, InputError
from ..files import IMAGE_SUFFIXES, suffix_of
from ..names import plain, same
from .case import COMPLETED
from .channels import read_channels, stack_channels
from .identity import name_patients
from .incoming import Incoming
from .listing import Pair, is_litter, read_listing, stem_of
from .outlines import Outlines
from .store import DuplicateCaseError, SiteDataset
from .table import IGNORE, find, values_of

_MASK_ENDINGS = ("_seg", "_mask", "_label", "_labels", "_segmentation", "-seg", "-mask", "-label", "-labels")


@dataclass(frozen=True)
class Source:
    """What a folder offers. `names`: label value -> name; None leaves the values to the table and --map.

    Where there are names, structures of the table that are not among them are unknown in these cases, not absent: a set
    that does not know a structure did not look for it.
    """

    pairs: tuple[Pair, ...]
    names: Mapping[int, str] | None = None
    modality: str | None = None
    collection: str | None = None
    licence: str | None = None


@dataclass
class ImportReport:
    """What became of each case: names of new, corrected and unchanged ones; errors by the name in the source."""

    added: list[str] = field(default_factory=list)
    corrected: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: dict[str, APFormerError] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        failed = [{"source": stem, "error": error.as_dict()} for stem, error in self.failed.items()]
        return vars(self) | {"failed": failed}


def import_cases(
    dataset: SiteDataset,
    source: Source,
    *,
    patient_pattern: str | None = None,
    mapping: Mapping[str, str | None] | None = None,
    add_labels: bool = False,
    status: str = COMPLETED,
    correct: bool = False,
    who: str | None = None,
    threshold: bool = False,
    outlined: Sequence[str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ImportReport:
    """Add every pair of `source`, one at a time; what cannot be read is reported and left out. A second run adds what
    is missing and leaves what is there.

    Args:
        patient_pattern, mapping: see `name_patients` and `read_mapping`.
        add_labels: names that the table does not have are added to it; otherwise they are an error.
        correct: labels that differ from those of a known image replace them.
        threshold: see `SiteDataset.add`.
        outlined: names in the table of the structures that were outlined in each case; None: those that the source
            says were.

    Raises:
        ConfigError: labels unknown to the table, or a pattern that does not fit: nothing was imported then.
        OutputError: the folder cannot be written, or the disk is full: what was added before stays.
    """
    _check_names(dataset, source, mapping or {}, add_labels)
    if outlined is not None:
        values_of(dataset.labels, outlined)  # refuses what the table does not have before anything is imported
    patients, note = name_patients([pair.stem for pair in source.pairs], patient_pattern)
    report = ImportReport(notes=[note] if note else [])
    said = Outlines(dataset.labels, source.names, mapping or {}, outlined)
    report.notes += said.notes
    for done, (pair, patient) in enumerate(zip(source.pairs, patients, strict=True), 1):
        try:
            _import(dataset, source, pair, patient, mapping, status, correct, who, threshold, said.of(pair), report)
        except (InputError, ConfigError) as error:
            report.failed[pair.stem] = error
        progress(done, len(source.pairs))
    return report


def _import(
    dataset: SiteDataset,
    source: Source,
    pair: Pair,
    patient: str,
    mapping: Mapping[str, str | None] | None,
    status: str,
    correct: bool,
    who: str | None,
    threshold: bool,
    outlined: Sequence[str] | None,
    report: ImportReport,
) -> None:
    image = read_channels(pair.images[0]) if len(pair.images) == 1 else stack_channels(pair.images)
    labels = Incoming(pair.labels, source.names, mapping, threshold)
    try:
        case, notes = dataset.add(
            image, pair.labels, patient=patient, names=source.names, mapping=mapping, modality=source.modality,
            status=status, who=who, collection=source.collection, licence=source.licence, threshold=threshold,
            outlined=outlined,
        )  # fmt: skip
        report.added.append(case.name)
        report.notes += [f"{case.name}: {note}" for note in notes]
    except DuplicateCaseError as error:
        before = error.case.current
        said: list[str] = []
        if not correct and not dataset.would_change(error.case, labels, outlined):
            report.unchanged.append(error.case.name)
            return
        if not correct:
            raise
        case = dataset.correct(
            error.case.name, pair.labels, names=source.names, mapping=mapping, who=who, threshold=threshold,
            outlined=outlined, tell=said.append,
        )  # fmt: skip
        report.notes += [f"{case.name}: {note}" for note in said]
        (report.corrected if case.current != before else report.unchanged).append(case.name)


def _check_names(dataset: SiteDataset, source: Source, mapping: Mapping[str, str | None], add_labels: bool) -> None:
    mapped = {plain(key) for key in mapping}
    wanted = {
        value: name for value, name in (source.names or {}).items()
        if plain(name) not in mapped and str(value) not in mapped and not same(name, IGNORE)
    }  # fmt: skip
    missing = [name for name in wanted.values() if find(dataset.labels, name) is None]
    if missing and not add_labels:
        known = ", ".join(label.name for label in dataset.labels) or "none"
        raise ConfigError(
            f"The source has labels that the data set does not have: {', '.join(missing)}.",
            f"Labels are matched by name; the data set has: {known}. Nothing was imported.",
            f"Import with --add-labels to add them, or say what they are, as in --map '{missing[0]}=NAME' "
            f"('{missing[0]}=' leaves it out).",
        )
    for value, name in wanted.items() if add_labels else ():
        if name in missing:
            free = value not in {label.value for label in dataset.labels}
            dataset.add_label(name, value if free else None)


def read_decathlon(folder: Path) -> Source:
    """What dataset.json in `folder` lists: Decathlon layout, or nnU-Net's (imagesTr/NAME_0000, labelsTr/NAME).

    Raises:
        ConfigError: as `read_listing`.
    """
    found = read_listing(folder)
    return Source(found.pairs, found.names or None, found.modality, found.name, found.licence)


def read_pairs(images: Path, masks: Path) -> Source:
    """Images and label maps that belong together by name; a mask may add _mask, _seg or _label to it.

    Raises:
        ConfigError: a folder cannot be listed, an image without mask or a mask without image.
    """
    if images.is_file():
        return Source((Pair(stem_of(images), (images,), masks),))
    together = images.resolve() == masks.resolve()  # then what has an ending is the mask of what has none
    ours = _by_stem(images, lambda stem: None if together and _bare(stem) != stem else stem)
    theirs = _by_stem(masks, lambda stem: None if together and _bare(stem) == stem else _bare(stem))
    alone = sorted(set(ours) ^ set(theirs))
    if alone or not ours:
        what = f"{alone[0]} has no {'mask' if alone[0] in ours else 'image'}" if alone else f"{images} holds no image"
        raise ConfigError(
            f"{what}" + (f", and {len(alone) - 1} more are alone." if len(alone) > 1 else "."),
            "Images and masks are matched by their file names, whatever their formats. Nothing was imported.",
            "Give both the same name, or name one image and one mask file.",
        )
    return Source(tuple(Pair(stem, (ours[stem],), theirs[stem]) for stem in sorted(ours)))


def _bare(stem: str) -> str:
    """The name of a mask without its ending."""
    return next((stem[: -len(end)] for end in _MASK_ENDINGS if stem.casefold().endswith(end) and stem != end), stem)


def _by_stem(folder: Path, key: Callable[[str], str | None]) -> dict[str, Path]:
    """The images in `folder` by `key` of their names; those without one are left out."""
    try:
        paths: Iterable[Path] = sorted(folder.iterdir())
    except OSError as error:
        raise ConfigError(
            f"{folder} could not be listed: {error.strerror or error}.",
            "The images in it are not known.",
            "Check the path and the permissions.",
        ) from error
    found: dict[str, Path] = {}
    for path in paths:
        if is_litter(path) or not path.is_file() or suffix_of(path) not in IMAGE_SUFFIXES:
            continue
        stem = key(stem_of(path))
        if stem is None:
            continue
        if stem in found:
            raise ConfigError(
                f"{folder} holds {found[stem].name} and {path.name}.",
                f"Which of them belongs to {stem} is not known.",
                "Keep one file per case in each folder.",
            )
        found[stem] = path
    return found

"""What would spoil a training, found before it starts, in plain words: what, what it means, what to do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import APFormerError, ConfigError, InputError
from ..files import read_volume
from ..grid import same_grid
from . import check_content as content
from . import split as splits
from .case import COMPLETED, FLAGGED, IN_PROGRESS, SiteCase
from .case_files import stored_grid
from .identity import file_hash
from .problem import BLOCKS, LOOK, Problem, from_error, listing, many, names
from .recovery import unknown_files
from .store import SiteDataset

if TYPE_CHECKING:
    from ..bundles import Bundle


def check_dataset(
    dataset: SiteDataset,
    base: Bundle | None = None,
    *,
    read_files: bool = True,
    learned: Collection[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Problem]:
    """All problems, those that block training first.

    Args:
        base: the model that fine-tuning would start from; its labels, channels and spacing are compared.
        read_files: compare every file with its hash, one at a time; otherwise the index alone is looked at.
        learned: names of the labels that are to be learned; by default all.
    """
    completed = dataset.cases(COMPLETED)
    problems = [
        *_counts(dataset, completed),
        *content.label_problems(dataset.labels, completed),
        *content.outline_problems(dataset.labels, completed, base, learned),
        *content.base_problems(dataset.labels, completed, base),
        *content.kind_problems(completed),
        *content.spacing_problems(completed),
        *content.extent_problems(completed),
        *content.volume_problems(dataset.labels, completed),
        *content.intensity_problems(completed),
        *content.duplicate_problems(dataset.cases()),
        *_frozen_split(dataset, completed),
        *_leftovers(dataset),
    ]
    if read_files:
        cases = dataset.cases()
        for done, case in enumerate(cases, 1):
            problems += _files(case)
            progress(done, len(cases))
    return sorted(problems, key=lambda problem: problem.severity != BLOCKS)


def _counts(dataset: SiteDataset, completed: Sequence[SiteCase]) -> Iterator[Problem]:
    patients = len({case.patient for case in completed})
    try:
        splits.check_enough(patients)
    except ConfigError as error:
        yield from_error("too few cases", BLOCKS, completed, error)
    else:
        if patients < splits.FEWEST_FOR_HOLDOUT:
            yield Problem(
                "few cases", LOOK, (), f"The completed cases are of {patients} patients.",
                f"That is too few to keep some apart for validation, so {splits.FOLDS}-fold cross-validation is used: "
                f"{splits.FOLDS} shorter trainings, each judged on patients it did not see.",
                f"Complete cases of {splits.FEWEST_FOR_HOLDOUT - patients} more patients for a single split.",
            )  # fmt: skip
    for status, meaning in (
        (IN_PROGRESS, "They are not trained on."),
        (FLAGGED, "They are not trained on until then."),
    ):
        waiting = dataset.cases(status)
        if waiting:
            yield Problem(
                status, LOOK, names(waiting), f"{many(waiting)} {status}: {listing(waiting)}.", meaning,
                "Check their labels and mark them completed, or remove them.",
            )  # fmt: skip


def _frozen_split(dataset: SiteDataset, completed: Sequence[SiteCase]) -> Iterator[Problem]:
    split = dataset.split
    if split is None:
        return
    extended = split.extended({case.patient for case in completed}, dataset.index.salt)
    try:
        splits.check_usable(extended, completed)
    except ConfigError as error:
        yield from_error("split", BLOCKS, (), error)
        return
    patients = len({case.patient for case in completed})
    if split.is_cross_validation and patients >= splits.FEWEST_FOR_HOLDOUT:
        yield Problem(
            "split", LOOK, (), f"Cross-validation is still used, and there are {patients} patients now.",
            "A single training, judged on patients kept apart, would take a third of the time.",
            "Draw a single split with `apformer dataset split --redraw`; earlier figures cannot be compared with its.",
        )  # fmt: skip
    for label in dataset.labels if not split.is_cross_validation else ():
        training, validation = extended.divide(completed)
        seen = [any(label.value in content.label_counts(case) for case in side) for side in (training, validation)]
        if any(seen) and not all(seen):
            yield Problem(
                "split", LOOK, (), f"{label.name} occurs in the {'training' if seen[0] else 'validation'} cases only.",
                "It cannot be judged." if seen[0] else "It cannot be learned.",
                "Complete more cases that show it, or draw a new split with `apformer dataset split --redraw`.",
            )  # fmt: skip


def _leftovers(dataset: SiteDataset) -> Iterator[Problem]:
    try:
        unknown = unknown_files(dataset.index)
    except OSError:  # the files of cases that cannot be read are told one by one
        return
    if unknown:
        yield Problem(
            "unknown files", LOOK, (), f"{len(unknown)} files or folders are not in the index, the first {unknown[0]}.",
            "A run was killed, or the index comes from a backup. The next change moves them to set-aside/.",
            "Add images that are missing from the list again; delete the rest.",
        )  # fmt: skip


def _files(case: SiteCase) -> Iterator[Problem]:
    """Missing, changed and mismatched files of one case; only changed ones are read as images."""
    named = [(case.image.file, case.image.sha256)] + [(r.file, r.sha256) for r in case.revisions]
    matters = {case.image.file, case.revision.file if case.revision else ""}
    for file, expected in named:
        severity = BLOCKS if file in matters and case.status == COMPLETED else LOOK
        try:
            path = _path(case, file)
            if file_hash(path) == expected:
                continue
            yield Problem(
                "changed file", severity, (case.name,), f"{path} was changed since it was added.",
                _consequence(case, path) or "Which version was checked and completed is no longer known.",
                f"Restore it from a backup, or give the labels again with `apformer dataset correct`, or remove "
                f"{case.name} and add the image again.",
            )  # fmt: skip
        except APFormerError as error:
            kind = "missing file" if not (case.folder / file).exists() else "unreadable file"
            yield from_error(kind, severity, (case,), error)


def _path(case: SiteCase, file: str) -> Path:
    if file == case.image.file:
        return case.image_path
    return next(case.revision_path(revision) for revision in case.revisions if revision.file == file)


def _consequence(case: SiteCase, path: Path) -> str | None:
    """What is wrong with a changed file beyond that it was changed; None when it still fits."""
    try:
        now = read_volume(path)
    except InputError as error:
        return error.what
    if not same_grid(now, stored_grid(case)):
        size = " x ".join(map(str, reversed(now.spatial_shape)))
        return f"It is on another grid than the image was ({size} voxels), so voxels and labels no longer match."
    return None

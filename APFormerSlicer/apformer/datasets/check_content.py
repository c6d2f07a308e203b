"""What the cases hold, compared with each other and with a base model: labels, spacing, volumes, intensities."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

from ..bundles.labels import Label
from ..checks import check_field_of_view
from ..errors import InputError
from ..names import find
from .case import SiteCase
from .case_files import stored_grid
from .problem import BLOCKS, LOOK, Problem, from_error, listing, many, mm, names

if TYPE_CHECKING:
    from ..bundles import Bundle

# Iglewicz and Hoaglin (1993): a modified z-score beyond 3.5 is an outlier; 1.4826 makes the median absolute deviation
# a standard deviation.
_MODIFIED_Z = 3.5
_MAD_TO_SIGMA = 1.4826
_FEWEST_TO_COMPARE = 5
# Among equals the deviation is 0 and any difference an outlier, so a ratio must be told as well.
_SPACING_RATIO, _VOLUME_RATIO, _RANGE_RATIO = 1.5, 2.0, 10.0


def label_problems(table: Sequence[Label], completed: Sequence[SiteCase]) -> Iterator[Problem]:
    if not table:
        yield Problem(
            "no labels", BLOCKS, (), "The data set has no labels.", "There is nothing to learn.",
            "Add them with `apformer dataset add-label`.",
        )  # fmt: skip
    values = {label.value for label in table}
    empty = [case for case in completed if not values & label_counts(case).keys()]
    if empty and len(empty) == len(completed):
        yield Problem(
            "empty masks", BLOCKS, names(empty), "The label map of every completed case is empty.",
            "There is nothing to learn.", "Check that the right files were added, and that segments were not hidden.",
        )  # fmt: skip
    elif empty:
        yield Problem(
            "empty masks", LOOK, names(empty), f"{many(empty)} completed with an empty label map: {listing(empty)}.",
            "They teach that nothing is there, which is right only where nothing is.",
            "Correct those where the structure can be seen.",
        )  # fmt: skip
    outlined = [label for label in table if any(outlines(case, label.value) for case in completed)]
    for label in outlined if len(empty) < len(completed) else ():
        patients = {case.patient for case in completed if label.value in label_counts(case)}
        if len(patients) < 2:
            yield Problem(
                "rare label", LOOK, (), f"{label.name} occurs in completed cases of {_patients(len(patients))}.",
                "It cannot be both learned and validated." if patients else "It cannot be learned from this data set.",
                f"Complete cases that show {label.name}; a structure that is not meant to be learned is better not in "
                "the table.",
            )  # fmt: skip


def outline_problems(
    table: Sequence[Label], completed: Sequence[SiteCase], base: Bundle | None, learned: Collection[str]
) -> Iterator[Problem]:
    """What cases that outline only some of the structures leave open."""
    if all(outlines(case, label.value) for case in completed for label in table):
        return
    counts = {label.name: sum(outlines(case, label.value) for case in completed) for label in table}
    listed = ", ".join(f"{name} in {count}" for name, count in counts.items())
    partly = [case for case in completed if not all(outlines(case, label.value) for label in table)]
    yield Problem(
        "partly outlined", LOOK, names(partly),
        f"Not every case outlines every structure; of {len(completed)} completed cases: {listed}.",
        "What a case does not outline is unknown there: it is neither taught nor judged.",
        "Nothing, if that is so. Otherwise say what was outlined: `apformer dataset correct CASE --outlined NAMES`.",
    )  # fmt: skip
    wanted = [label.name for label in table if not learned or find(label.name, learned) is not None]
    never = [name for name in wanted if not counts[name]]
    kept = [name for name in never if base is not None and find(name, [label.name for label in base.labels])]
    lost = [name for name in never if name not in kept]
    if lost:
        yield Problem(
            "never outlined", BLOCKS if learned else LOOK, (),
            f"{_words(lost)} {'is' if len(lost) == 1 else 'are'} outlined in no completed case.",
            "There is nothing to learn it from; where it is not asked for by name, a training leaves it out.",
            "Outline it in some cases, or do not name it among the labels to learn (--labels).",
        )  # fmt: skip
    if kept and base is not None:
        yield Problem(
            "never outlined", LOOK, (),
            f"{_words(kept)} {'is' if len(kept) == 1 else 'are'} outlined in no completed case.",
            f"What {base.name} {base.version} knows of it is kept, and judged by nobody.",
            "Outline it in some cases if it is to become better.",
        )  # fmt: skip


def base_problems(table: Sequence[Label], completed: Sequence[SiteCase], base: Bundle | None) -> Iterator[Problem]:
    if base is None:
        return
    model = f"{base.name} {base.version}"
    ours, theirs = [label.name for label in table], [label.name for label in base.labels]
    missing = [name for name in theirs if find(name, ours) is None]
    new = [name for name in ours if find(name, theirs) is None]
    if table and len(new) == len(table):
        yield Problem(
            "label names", LOOK, (), f"No label of the data set is one of {model} ({_words(missing)}).",
            f"A training would begin with the model's weights and learn {_words(new)} alone; what the model finds is "
            "dropped.",
            "If some are the same structure under another name, rename them with `apformer dataset rename-label`; to "
            "keep what the model finds, add it to the labels (`apformer dataset add-label`).",
        )  # fmt: skip
    elif new:
        yield Problem(
            "new labels", LOOK, (), f"{_words(new)} {'is' if len(new) == 1 else 'are'} not in {model}.",
            "The model gets an output for it that starts untrained.",
            "Nothing, if that is meant; otherwise rename it to the model's name for it.",
        )  # fmt: skip
    if missing and len(new) < len(table):
        yield Problem(
            "missing labels", LOOK, (),
            f"{_words(missing)} of {model} {'is' if len(missing) == 1 else 'are'} not in the data set.",
            "Where it is visible in the images, unlabelled voxels would teach the model to forget it.",
            "Label it in the cases too, or let the training rehearse the model's own output for it.",
        )  # fmt: skip
    wrong = [case for case in completed if case.image.channels != base.channels]
    if wrong:
        yield Problem(
            "channels", BLOCKS, names(wrong), f"{many(wrong)} of {wrong[0].image.channels} channels: "
            f"{listing(wrong)}. {model} takes {base.channels}.", "The network cannot read them.",
            f"Choose a model for images of {wrong[0].image.channels} channels, or train one from scratch.",
        )  # fmt: skip
    other = [case for case in completed if case.modality not in (None, base.modality)]
    if other:
        kinds = _words(sorted({str(case.modality) for case in other}))
        yield Problem(
            "modality", LOOK, names(other), f"{many(other)} {kinds}, and {model} is for {base.modality}: "
            f"{listing(other)}.", "What the model has learned may not carry over.",
            "Compare with training from scratch, or choose a model of that modality.",
        )  # fmt: skip
    wanted = base.preprocessing.spacing_mm
    far = [case for case in completed if wanted and not case.image.is_picture and _apart(case, wanted) > 2.0]
    if far and wanted:
        yield Problem(
            "spacing", LOOK, names(far), f"{many(far)} of more than twice or less than half the voxel size of {model} "
            f"({mm(wanted)}): {listing(far, _spacing_of)}.", "They are resampled, which blurs them or drops detail.",
            "Check the spacing in the headers; use series of similar resolution where there are any.",
        )  # fmt: skip


def _apart(case: SiteCase, wanted: Sequence[float]) -> float:
    """The largest ratio between voxel sizes, sorted so that the order of axes does not count; in plane for 2D."""
    have = sorted(case.image.spacing_ijk)[: len(wanted)]
    return max(max(a / b, b / a) for a, b in zip(have, sorted(wanted), strict=True))


def kind_problems(completed: Sequence[SiteCase]) -> Iterator[Problem]:
    for kind, of, severity, meaning in (
        ("channels", lambda case: case.image.channels, BLOCKS, "A network takes images of one number of channels."),
        ("modality", lambda case: case.modality, LOOK, "Intensities mean different things in different modalities."),
        ("dimensions", lambda case: "single slices" if case.image.shape_kji[0] == 1 else "volumes", LOOK,
         "A network of volumes cannot learn from single slices."),
    ):  # fmt: skip
        found = Counter(value for case in completed if (value := of(case)) is not None)
        if len(found) > 1:
            (usual, _), *rest = found.most_common()
            odd = [case for case in completed if of(case) not in (None, usual)]
            counted = ", ".join(f"{count} x {value}" for value, count in [(usual, found[usual]), *rest])
            yield Problem(
                kind, severity, names(odd), f"The cases differ in {kind} ({counted}): {listing(odd)}.", meaning,
                "Keep one kind in a data set, and the others in data sets of their own.",
            )  # fmt: skip


def spacing_problems(completed: Sequence[SiteCase]) -> Iterator[Problem]:
    volumes = [case for case in completed if not case.image.is_picture]
    odd: set[str] = set()
    for axis in range(3):
        odd |= _outliers({case.name: sorted(case.image.spacing_ijk)[axis] for case in volumes}, _SPACING_RATIO)
    if odd:
        cases = [case for case in volumes if case.name in odd]
        usual = [median(sorted(case.image.spacing_ijk)[axis] for case in volumes) for axis in range(3)]
        yield Problem(
            "spacing", LOOK, names(cases), f"{many(cases)} of a spacing far from the rest ({mm(usual)}, sorted): "
            f"{listing(cases, _spacing_of)}.", "A wrong spacing in a header makes structures too large or too small.",
            "Check the headers; remove the case if it is of another protocol.",
        )  # fmt: skip


def extent_problems(completed: Sequence[SiteCase]) -> Iterator[Problem]:
    for case in completed:
        try:
            if not case.image.is_picture:
                check_field_of_view(stored_grid(case))
        except InputError as error:
            yield from_error("field of view", BLOCKS, (case,), error)


def volume_problems(table: Sequence[Label], completed: Sequence[SiteCase]) -> Iterator[Problem]:
    for label in table:
        amounts = {
            case.name: label_counts(case)[label.value] * case.image.voxel_ml
            for case in completed
            if label.value in label_counts(case)
        }
        odd = _outliers(amounts, _VOLUME_RATIO)
        if odd:
            cases = [case for case in completed if case.name in odd]
            sizes = listing(cases, lambda case, amounts=amounts: f"{amounts[case.name]:.3g} mL")  # type: ignore[misc]
            yield Problem(
                "label volume", LOOK, names(cases),
                f"{label.name} is unusually large or small in {sizes}; the median of "
                f"{len(amounts)} is {median(amounts.values()):.3g} mL.",
                "Unfinished or spilled labels look like that; so does disease.",
                "Look at these cases, and flag or correct them where the labels are wrong.",
            )  # fmt: skip


def intensity_problems(completed: Sequence[SiteCase]) -> Iterator[Problem]:
    no_air = [case for case in completed if case.modality == "CT" and case.image.low >= 0]
    if no_air:
        yield Problem(
            "intensities", LOOK, names(no_air), f"{many(no_air)} CT without negative values: "
            f"{listing(no_air, _range_of)}.", "In HU air is -1000: these were shifted or clipped, or are no CT.",
            "Export them again in HU; if all are like that, a model for HU will not fit them.",
        )  # fmt: skip
    spans = {case.name: case.image.high - case.image.low for case in completed}
    odd = _outliers(spans, _RANGE_RATIO)
    if odd:
        cases = [case for case in completed if case.name in odd]
        yield Problem(
            "intensities", LOOK, names(cases), f"{many(cases)} of a range of values far from the rest (median span "
            f"{median(spans.values()):.4g}): {listing(cases, _range_of)}.",
            "They may be scaled to 0..1, of another modality, or hold a stray extreme value.",
            "Export them as the others were, or remove them.",
        )  # fmt: skip


def _outliers(values: Mapping[str, float], ratio: float) -> set[str]:
    """Those far from the median both by their modified z-score, on a logarithmic scale, and by more than `ratio`."""
    logs = {name: math.log(value) for name, value in values.items() if value > 0}
    if len(logs) < _FEWEST_TO_COMPARE:
        return set()
    middle = median(logs.values())
    sigma = _MAD_TO_SIGMA * median(abs(value - middle) for value in logs.values())
    limit = max(_MODIFIED_Z * sigma, math.log(ratio))
    return {name for name, value in logs.items() if abs(value - middle) > limit}


def duplicate_problems(cases: Sequence[SiteCase]) -> Iterator[Problem]:
    by_voxels: dict[str, list[SiteCase]] = {}
    for case in cases:
        by_voxels.setdefault(case.image.voxels, []).append(case)
    for twins in by_voxels.values():
        if len(twins) > 1:
            yield Problem(
                "duplicates", LOOK, names(twins), f"{listing(twins)} have the same voxels on different grids.",
                "They are likely one image, once with a wrong header; on both sides of a split it would flatter the "
                "model.", "Keep the one with the right spacing and position, and remove the others.",
            )  # fmt: skip


def label_counts(case: SiteCase) -> dict[int, int]:
    return case.revision.counts if case.revision else {}


def outlines(case: SiteCase, value: int) -> bool:
    """Whether the case tells where the structure of that value is, or that there is none."""
    return case.revision is not None and case.revision.outlines(value)


def _patients(count: int) -> str:
    return "no patient" if count == 0 else f"{count} patient{'s' if count > 1 else ''}"


def _words(names: Sequence[str]) -> str:
    return ", ".join(names)


def _spacing_of(case: SiteCase) -> str:
    return mm(case.image.spacing_ijk)


def _range_of(case: SiteCase) -> str:
    return f"{case.image.low:.4g} to {case.image.high:.4g}"

"""Which patients train and which validate: drawn once, kept on disk, extended and never reshuffled.

A patient is never divided. Redrawing at every training would make its Dice a matter of luck, so an earlier patient
stays where it is, and a new one is placed by a number that depends on nothing but the patient and the data set.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..bundles.fields import Fields, malformed
from ..errors import ConfigError
from .case import COMPLETED, SiteCase, check_patient, check_when, now
from .identity import patient_share

FEWEST_PATIENTS = 3  # with two, a figure from one patient would stand for all
FEWEST_FOR_HOLDOUT = 8  # below, one or two validation patients would decide; folds let every patient count once
FOLDS = 3  # each fold is a training of its own, and the time for all of them is given
VALIDATION_SHARE = 0.2
_MOST_FOLDS = 20
_MOST_PATIENTS = 1_000_000


@dataclass(frozen=True)
class Split:
    """A frozen split by patient.

    `folds` are groups of patients. Of a "holdout" there are two, training and validation; of "folds", each validates
    once what was trained on all others.
    """

    kind: str
    folds: tuple[tuple[str, ...], ...]
    frozen: str

    @property
    def patients(self) -> frozenset[str]:
        return frozenset(patient for fold in self.folds for patient in fold)

    @property
    def is_cross_validation(self) -> bool:
        return self.kind == "folds"

    @property
    def rounds(self) -> int:
        """How many trainings validate all that can be validated: 1, or the number of folds."""
        return len(self.folds) if self.is_cross_validation else 1

    def divide(self, cases: Iterable[SiteCase], fold: int = 0) -> tuple[list[SiteCase], list[SiteCase]]:
        """(training, validation) of those `cases` that are completed and whose patients are in the split.

        Raises:
            ValueError: there is no such fold.
        """
        if not 0 <= fold < self.rounds:
            raise ValueError(f"fold {fold} of {self.rounds}")
        held_out = set(self.folds[fold if self.is_cross_validation else 1])
        known = [case for case in cases if case.status == COMPLETED and case.patient in self.patients]
        return (
            [case for case in known if case.patient not in held_out],
            [case for case in known if case.patient in held_out],
        )

    def extended(self, patients: Iterable[str], salt: str) -> Split:
        """The split with new patients; those that are in it stay where they are."""
        folds = [list(fold) for fold in self.folds]
        for patient in sorted(set(patients) - self.patients):
            share = patient_share(patient, salt)
            place = int(share * len(folds)) if self.is_cross_validation else int(share < VALIDATION_SHARE)
            folds[place].append(patient)
        return replace(self, folds=tuple(tuple(fold) for fold in folds))

    def as_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "folds": [list(fold) for fold in self.folds], "frozen": self.frozen}

    @staticmethod
    def from_fields(fields: Fields) -> Split:
        """The split that a JSON object describes; BundleError (to be reworded) when it does not describe one."""
        fields.only(Split.__dataclass_fields__)
        kind, items = fields.text("kind", 16), fields.items("folds", _MOST_FOLDS)
        if kind not in ("holdout", "folds") or len(items) < 2 or (kind == "holdout" and len(items) != 2):
            raise malformed(f"{fields.where} is neither a holdout nor a list of folds.")
        if not all(isinstance(fold, list) and len(fold) <= _MOST_PATIENTS for fold in items):
            raise malformed(f"{fields.where}, 'folds' must list patients.")
        folds = tuple(tuple(check_patient(patient, f"{fields.where}, 'folds'") for patient in fold) for fold in items)
        split = Split(kind, folds, check_when(fields, "frozen"))
        if len(split.patients) != sum(len(fold) for fold in folds):
            raise malformed(f"{fields.where} has a patient twice.")
        return split


def draw_split(patients: Iterable[str], salt: str) -> Split:
    """A first split of these patients: a fifth validates, or `FOLDS` folds when there are fewer than
    `FEWEST_FOR_HOLDOUT`. The same patients and salt give the same split.

    Raises:
        ConfigError: fewer than `FEWEST_PATIENTS`.
    """
    ordered = sorted(set(patients), key=lambda patient: patient_share(patient, salt))
    check_enough(len(ordered))
    if len(ordered) < FEWEST_FOR_HOLDOUT:
        return Split("folds", tuple(tuple(ordered[start::FOLDS]) for start in range(FOLDS)), now())
    held_out = max(1, round(len(ordered) * VALIDATION_SHARE))
    return Split("holdout", (tuple(ordered[held_out:]), tuple(ordered[:held_out])), now())


def check_enough(patients: int) -> None:
    """Raises ConfigError when so few patients cannot be validated."""
    if patients < FEWEST_PATIENTS:
        raise ConfigError(
            f"The completed cases are of {patients} {'patient' if patients == 1 else 'patients'}.",
            f"With fewer than {FEWEST_PATIENTS}, nothing would tell whether a trained model is any good.",
            f"Complete cases of {FEWEST_PATIENTS - patients} more; from {FEWEST_FOR_HOLDOUT} patients on, some are "
            "kept apart for validation instead of cross-validation.",
        )


def check_usable(split: Split, cases: Sequence[SiteCase]) -> None:
    """Raises ConfigError when removed or reopened cases have left one side of the split without any."""
    for fold in range(split.rounds):
        training, validation = split.divide(cases, fold)
        if not training or not validation:
            raise ConfigError(
                f"The frozen split now has {len(training)} training and {len(validation)} validation cases"
                + (f" in fold {fold + 1}." if split.is_cross_validation else "."),
                "Its cases were removed, or are no longer completed, so it cannot be used as it is.",
                "Complete these cases again, or draw a new split with `apformer dataset split --redraw`; figures from "
                "before cannot be compared with those after it.",
            )

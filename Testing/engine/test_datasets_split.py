"""The split is drawn once, by patient, and no patient ever moves."""

from __future__ import annotations

from pathlib import Path

import pytest
from apformer.datasets import FLAGGED, SiteDataset
from apformer.datasets.identity import new_salt
from apformer.datasets.recovery import LOCK_FILE
from apformer.datasets.split import Split, draw_split
from apformer.errors import ConfigError
from apformer.files.lock import folder_lock
from dataset_samples import a_dataset, add_case
from hypothesis import given, settings
from hypothesis import strategies as st


def codes(first: int, last: int) -> list[str]:
    return [f"p-{number:016x}" for number in range(first, last)]


@pytest.mark.parametrize(("patients", "needed"), [(0, "3 more"), (1, "2 more"), (2, "1 more")])
def test_too_few_patients_are_an_error_that_names_the_number_needed(patients: int, needed: str) -> None:
    with pytest.raises(ConfigError, match=needed) as caught:
        draw_split(codes(0, patients), new_salt())
    assert "from 8 patients on" in caught.value.remedy


@given(count=st.integers(3, 60), later=st.integers(0, 40), salt=st.integers(0, 2**32))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_every_patient_is_on_one_side_and_stays_there(count: int, later: int, salt: int) -> None:
    key = f"{salt:032x}"
    split = draw_split(codes(0, count), key)
    assert split.is_cross_validation == (count < 8) and split.rounds == (3 if count < 8 else 1)
    assert sorted(patient for fold in split.folds for patient in fold) == codes(0, count)
    assert all(split.folds)
    if count >= 8:
        assert len(split.folds[1]) == round(count / 5)
    grown = split.extended(codes(0, count + later), key)
    assert grown.patients == set(codes(0, count + later))
    for before, after in zip(split.folds, grown.folds, strict=True):
        assert set(before) <= set(after)
    one_by_one = split
    for patient in reversed(codes(count, count + later)):
        one_by_one = one_by_one.extended([patient], key)
    assert [set(fold) for fold in one_by_one.folds] == [set(fold) for fold in grown.folds]


def test_about_a_fifth_of_new_patients_validate() -> None:
    split = Split("holdout", (("p-ffffffffffffffff",), ("p-fffffffffffffffe",)), "2026-01-01T00:00:00+00:00")
    grown = split.extended(codes(0, 1000), "0" * 32)
    assert 150 < len(grown.folds[1]) < 250


def test_a_frozen_split_is_kept_on_disk_and_later_cases_follow_their_patient(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", patients=8)
    assert dataset.split is None
    frozen = dataset.freeze_split()
    held_out = frozen.folds[1]
    assert len(held_out) == 2
    for seed in range(100, 108):
        add_case(dataset, seed, patient=f"patient {seed - 100}")  # again each of the first eight
        add_case(dataset, seed + 100)
    dataset = SiteDataset.open(dataset.root)
    assert dataset.split == frozen
    training, validation = frozen.divide(dataset.cases())
    assert len(validation) == 4 and len(training) == 12  # new patients wait until the next training
    grown = dataset.freeze_split()
    assert SiteDataset.open(dataset.root).split == grown and set(held_out) <= set(grown.folds[1])
    assert {case.patient for case in grown.divide(dataset.cases())[0]} == set(grown.folds[0])


def test_few_patients_are_cross_validated_until_a_new_split_is_asked_for(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", patients=4)
    frozen = dataset.freeze_split()
    validated = [case.name for fold in range(frozen.rounds) for case in frozen.divide(dataset.cases(), fold)[1]]
    assert frozen.is_cross_validation and sorted(validated) == [case.name for case in dataset.cases()]
    for seed in range(4, 10):
        add_case(dataset, seed)
    assert dataset.freeze_split().is_cross_validation
    assert not dataset.freeze_split(redraw=True).is_cross_validation
    assert not SiteDataset.open(dataset.root).freeze_split().is_cross_validation


def test_only_completed_cases_count(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", patients=3)
    dataset.correct("case-0002", status=FLAGGED)
    with pytest.raises(ConfigError, match="of 2 patients"):
        dataset.freeze_split()


def test_a_split_that_lost_a_side_is_refused_with_the_way_out(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", patients=8)
    for case in dataset.freeze_split().divide(dataset.cases())[1]:
        dataset.remove(case.name)
    with pytest.raises(ConfigError, match="0 validation cases") as caught:
        dataset.freeze_split()
    assert "--redraw" in caught.value.remedy
    assert dataset.freeze_split(redraw=True).is_cross_validation


class Cancelled(Exception):  # noqa: N818  nothing went wrong
    """What `check` raises when the user cancels."""


def test_waiting_for_another_writer_can_be_given_up(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", patients=3)
    asked: list[int] = []

    def check() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise Cancelled

    with folder_lock(dataset.root / LOCK_FILE), pytest.raises(Cancelled):
        dataset.freeze_split(check=check)
    assert dataset.split is None and len(asked) == 3
    assert len(dataset.freeze_split().patients) == 3

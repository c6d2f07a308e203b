"""When two names are the same: case, blanks and Unicode's ways to write a letter do not count; all else does."""

from __future__ import annotations

import unicodedata

import pytest
from apformer.names import alike, find, paired, plain, same, twice
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    "other",
    [
        "anterior hippocampus",
        "ANTERIOR  HIPPOCAMPUS",
        "\tAnterior\u00a0hippocampus ",
        "Anterior\u200b hippocampus",
        "\ufeffAnterior hippocampus",
    ],
)
def test_case_and_blanks_do_not_count(other: str) -> None:
    assert same("Anterior hippocampus", other)


def test_a_letter_is_the_same_composed_and_decomposed() -> None:
    composed = "Milz, Gefäße"
    assert same(composed, unicodedata.normalize("NFD", composed)) and same(composed, "milz, gefässe")
    assert not same(composed, "Milz, Gefasse")


@pytest.mark.parametrize("other", ["left-kidney", "left_kidney", "leftkidney", "left kidney.", "right kidney"])
def test_other_characters_count(other: str) -> None:
    assert not same("left kidney", other)


def test_a_near_miss_is_found_for_a_question() -> None:
    assert alike("left_kidney", ["Spleen", "Left-Kidney"]) == "Left-Kidney"
    assert alike("left_kidney", ["Spleen"]) is None


def test_a_name_is_found_as_it_is_written_there() -> None:
    assert find("liver ", ["Spleen", "LIVER"]) == "LIVER"
    assert find("liver", ["Spleen"]) is None


def test_two_names_that_are_the_same_are_told_as_written() -> None:
    assert twice(["Liver", "Spleen", "liver "]) == ("Liver", "liver ")
    assert twice(["Liver", "Spleen"]) is None


@given(st.text(max_size=12))
def test_what_counts_of_a_name_is_itself_a_name_of_the_same(name: str) -> None:
    assert plain(plain(name)) == plain(name)
    assert same(name, unicodedata.normalize("NFD", name)) and same(name, f" {name} ")


@pytest.mark.parametrize(
    ("names", "answer"),
    [
        (["Left kidney", "Liver", "right  KIDNEY"], True),
        (["Left ventricle", "Right ventricle wall"], False),
        (["Left atrium"], False),
        (["parotid gland left", "parotid gland right"], True),
        ([], False),
    ],
)
def test_names_are_paired_that_differ_in_the_side_alone(names: list[str], answer: bool) -> None:
    assert paired(names) is answer

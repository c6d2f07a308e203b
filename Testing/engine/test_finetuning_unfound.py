"""A training says which structures it does not find: while there is time for more, and at its end."""

from __future__ import annotations

from apformer.finetuning.unfound import Watch, unfound, warnings


def test_a_structure_that_is_not_found_in_time_is_told_once_and_once_more_when_it_is_found() -> None:
    said: list[str] = []
    watch = Watch(said.append)
    watch.look({"Liver": 0.8, "Spleen": 0.0}, 0.2)
    assert said == [], "too early to say"
    watch.look({"Liver": 0.85, "Spleen": 0.01, "Larynx": None}, 0.5)
    watch.look({"Liver": 0.85, "Spleen": 0.02, "Larynx": None}, 0.6)
    assert len(said) == 1
    assert said[0].startswith("Spleen is not found yet, after 50% of the training")
    watch.look({"Liver": 0.86, "Spleen": 0.4, "Larynx": None}, 0.8)
    assert said[1] == "Spleen is found now (validation Dice 0.40)."
    watch.look({"Liver": 0.86, "Spleen": 0.5, "Larynx": None}, 0.9)
    assert len(said) == 2


def test_all_that_is_missing_is_told_together() -> None:
    said: list[str] = []
    Watch(said.append).look({"A": 0.0, "B": 0.01, "C": 0.04, "D": 0.9}, 0.5)
    assert said[0].startswith("A, B, C are not found yet")


def test_what_nobody_judges_is_not_called_unfound() -> None:
    assert unfound({"Larynx": None, "Cord": 0.0}) == ["Cord"]
    assert warnings({"Larynx": None, "Cord": 0.3}) == []


def test_the_end_says_what_the_new_model_does_not_segment_and_what_to_do() -> None:
    (warning,) = warnings({"Cord": 0.02, "Mandible": 0.8})
    assert warning.startswith("Cord was not found")
    assert "more time or more patients" in warning

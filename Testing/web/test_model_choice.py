"""Which model is chosen for an image by itself, and how the page says why."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")

from desk_samples import Seat, a_ct, an_mr


def row(a_seat: Seat, name: str) -> dict[str, Any]:
    (found,) = (one for one in a_seat.state.models if one["reference"] == name)
    return found


def test_a_model_of_another_modality_does_not_stay_chosen_for_the_next_image(a_seat: Seat) -> None:
    a_seat.load("head", an_mr())
    a_seat.act("choose_model", "volumes")
    a_seat.load("CT of the liver", a_ct())
    assert a_seat.state.model == "liver-ct"
    assert not row(a_seat, "volumes")["fits"]
    assert "it is for MR, the image is CT" in row(a_seat, "volumes")["why"]
    a_seat.load("head again", an_mr())
    assert row(a_seat, a_seat.state.model)["fits"]
    assert a_seat.state.model != "liver-ct"


def test_a_model_that_suits_both_images_stays_chosen(a_seat: Seat) -> None:
    a_seat.load("head", an_mr())
    a_seat.act("choose_model", "volumes")
    a_seat.load("another head", an_mr())
    assert a_seat.state.model == "volumes"


def test_where_no_model_suits_none_is_chosen_and_the_key_starts_nothing(a_seat: Seat) -> None:
    a_seat.load("CT", a_ct())
    assert a_seat.state.model == "liver-ct"
    a_seat.desk.workflow.models.cards = list  # type: ignore[method-assign]
    a_seat.load("head", an_mr())
    assert a_seat.state.model == ""
    a_seat.press("s")
    assert a_seat.told("error") == ["No model is chosen."]
    assert [asked.job for asked in a_seat.worker.asked if asked.job == "segment"] == []


def test_a_model_of_another_modality_can_still_be_chosen_by_hand(a_seat: Seat) -> None:
    image = a_seat.load("CT", a_ct())
    a_seat.act("choose_model", "slices")
    assert a_seat.state.model == "slices"
    a_seat.do(lambda: a_seat.desk.workflow.versions.changed.emit("slices"))
    assert a_seat.state.model == "slices"
    a_seat.load("another CT", a_ct())
    assert a_seat.state.model == "liver-ct"
    a_seat.choose(image)
    assert a_seat.state.model == "liver-ct"

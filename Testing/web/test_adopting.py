"""What the page says of a new version of a model: whether it is in use is told as it is now, not as it was."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")

from desk_samples import Seat, an_mr
from workflow_samples import add_version


@pytest.fixture
def trained(a_seat: Seat) -> str:
    """A version that a training left, which is better and not in use yet: NAME@VERSION."""
    a_seat.load("head", an_mr())
    a_seat.act("choose_model", "slices")
    a_seat.act("create_site")
    a_seat.state.step = "tune"
    a_seat.do(lambda: a_seat.state.update({"tune_name": "slices", "tune_base": "slices"}))
    a_seat.act("tune")
    version = add_version(a_seat.desk.workflow.library, "slices")
    told: dict[str, Any] = {
        "name": "slices", "version": version, "adopted": False, "warnings": [], "report": "/r.json", "page": "/r.html",
        "verdict": "Not adopted, because that was asked for, although it is better by the rule. Dice went up.",
        "better": True, "why": "Dice went up.",
        "before": {"model": "slices 1.0.0", "labels": {}}, "after": {"model": f"slices {version}", "labels": {}},
    }  # fmt: skip
    a_seat.do(lambda: a_seat.trainer.last.tell("result", **told))
    return f"slices@{version}"


def test_before_the_user_decides_the_page_says_what_the_rule_says_and_that_it_is_not_in_use(
    a_seat: Seat, trained: str
) -> None:
    assert a_seat.state.trained == trained
    assert a_seat.state.verdict == "By the rule it is better. Dice went up."
    assert not a_seat.state.trained_in_use


def test_after_adopt_nothing_on_the_page_says_that_it_is_not_adopted(a_seat: Seat, trained: str) -> None:
    a_seat.act("adopt", trained)
    a_seat.until(lambda state: state["trained_in_use"])
    a_seat.until(lambda state: not state["deciding"])
    assert a_seat.told("info") == [f"{trained} is used now."]
    assert "adopted" not in a_seat.state.verdict.lower()
    assert [one["reference"] for one in a_seat.state.versions if one["active"]] == [trained]


def test_after_roll_back_it_is_told_as_not_in_use_again(a_seat: Seat, trained: str) -> None:
    a_seat.act("adopt", trained)
    a_seat.until(lambda state: not state["deciding"])
    a_seat.act("roll_back")
    a_seat.until(lambda state: not state["trained_in_use"])

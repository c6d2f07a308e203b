"""Which validation cases are measured where there is no time for all of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from apformer.finetuning.measured import FEWEST_MEASURED, as_many, in_turn, told


def a_case(number: int, *structures: int, voxels: int = 10) -> Any:
    revision = SimpleNamespace(counts=dict.fromkeys(structures, 5))
    return SimpleNamespace(name=f"case-{number}", revision=revision, image=SimpleNamespace(shape_kji=(1, 1, voxels)))


def test_the_first_ones_hold_every_structure_and_the_rarest_first() -> None:
    cases = [a_case(0, 1), a_case(1, 1), a_case(2, 1, 2), a_case(3, 1), a_case(4, 1, 2), a_case(5, 3), a_case(6)]
    order = in_turn(cases)
    assert order[0].name == "case-5", "nobody else has the third structure"
    assert set(order[1].revision.counts) == {1, 2}, "which leaves none to be added for the first"
    assert sorted(case.name for case in order) == [case.name for case in cases]


def test_the_others_lie_evenly_over_the_whole() -> None:
    order = [int(case.name[5:]) for case in in_turn([a_case(number, 1) for number in range(100)])]
    assert sorted(number // 25 for number in order[:8]) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_as_many_are_measured_as_there_is_time_for_but_not_fewer_than_some() -> None:
    cases = [a_case(number, 1) for number in range(20)]
    assert len(as_many(cases, seconds_per_voxel=1.0, allowed=75.0)) == 7
    assert len(as_many(cases, seconds_per_voxel=1.0, allowed=0.0)) == FEWEST_MEASURED
    assert len(as_many(cases, seconds_per_voxel=1.0, allowed=1e9)) == 20


def test_nothing_is_said_where_all_were_measured() -> None:
    assert told(20, 20) == []
    assert told(7, 20)[0].startswith("7 of the 20 validation cases were measured")

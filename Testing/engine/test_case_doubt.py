"""How unsure a model is of a whole case: a share of what it found or doubted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from apformer.case_doubt import UNSURE_FROM, case_doubt
from cli_samples import noise, save_slices_model
from job_samples import asking, run_here

SHAPE = (3, 8, 8)


def a_case(found: int, unsure_inside: int, unsure_outside: int) -> tuple[np.ndarray, np.ndarray]:
    """So many voxels that were found, and so many of doubt within and beside them."""
    labels, uncertainty = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.float32)
    labels.reshape(-1)[:found] = 2
    uncertainty.reshape(-1)[found - unsure_inside : found + unsure_outside] = UNSURE_FROM
    return labels, uncertainty


def test_doubt_is_the_share_of_what_was_found_or_doubted() -> None:
    assert case_doubt(*a_case(30, 6, 10)) == pytest.approx(16 / 40)
    assert case_doubt(*a_case(30, 0, 0)) == 0.0


def test_the_same_outline_of_doubt_counts_less_around_a_large_organ() -> None:
    assert case_doubt(*a_case(120, 10, 10)) < case_doubt(*a_case(40, 10, 10))


def test_a_case_in_which_nothing_was_found_is_looked_at_first_however_sure_the_model_is() -> None:
    assert case_doubt(*a_case(0, 0, 5)) == case_doubt(*a_case(0, 0, 0)) == 1.0


def test_faint_uncertainty_is_everywhere_and_counts_for_nothing() -> None:
    labels, uncertainty = a_case(30, 6, 10)
    uncertainty[uncertainty == 0] = 0.9 * UNSURE_FROM
    assert case_doubt(labels, uncertainty) == pytest.approx(16 / 40)


def test_the_worker_tells_the_doubt_of_a_case_with_a_map_and_where_it_is_asked_for(tmp_path: Path) -> None:
    model = save_slices_model(tmp_path / "slices")
    with_map = run_here("segment", **asking(tmp_path, model, noise(), maps=("uncertainty",)))
    assert 0.0 <= with_map["doubt"] <= 1.0
    without = asking(tmp_path, model, noise(), maps=())
    assert "doubt" not in run_here("segment", **without)
    asked = run_here("segment", **without, doubt=True)
    assert asked["doubt"] == with_map["doubt"] and "uncertainty" not in asked["paths"]

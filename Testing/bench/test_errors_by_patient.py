"""The table that tells a weak model from a reference that lies beside the organ."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("scipy")

from errors_by_patient import edge_contrast, table


def _square(at: int) -> np.ndarray:
    mask = np.zeros((64, 64), bool)
    mask[at : at + 20, at : at + 20] = True
    return mask


BRIGHT = np.where(_square(20), 1.0, 0.0) + np.random.default_rng(0).normal(0, 0.1, (64, 64))


def test_a_reference_on_the_image_has_contrast_across_its_outline_and_one_beside_it_has_little() -> None:
    assert edge_contrast(BRIGHT, _square(20)) > 1.5
    assert abs(edge_contrast(BRIGHT, _square(30))) < 0.5
    assert math.isnan(edge_contrast(BRIGHT, np.zeros((64, 64), bool)))


def test_the_worst_patient_comes_first_and_the_others_are_summed_without_it() -> None:
    good, bad = (BRIGHT, _square(20), _square(20)), (BRIGHT, _square(20), _square(30))
    lines = table({"well": [good, good], "shifted": [bad]})
    assert lines[1].split()[:3] == ["shifted", "1", "0.250"]
    assert "100.0%" in lines[1]
    assert lines[-1] == "all: 0.7500; without shifted: 1.0000"

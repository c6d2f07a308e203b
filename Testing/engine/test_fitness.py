"""Whether an image suits a model: what its values are is told in the same words before and with a result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.bundles import Bundle
from apformer.inference.fitness import check_fit
from apformer.volume import Source, Volume
from bundle_samples import PREPROCESSING, save_sample
from cli_samples import write_image
from job_samples import run_here

HU_WINDOW = {"kind": "window", "lower": -160.0, "upper": 240.0}
GRID = np.diag([-1.0, -1.0, 1.0, 1.0])


def a_model(folder: Path, modality: str = "CT", intensity: dict[str, Any] | None = None) -> Bundle:
    expects = replace(PREPROCESSING, intensity=intensity or HU_WINDOW, field_of_view_mm=None)
    return save_sample(folder, modality=modality, preprocessing=expects)


def hounsfield() -> np.ndarray:
    """Soft tissue beside air, int16 (k, j, i)."""
    hu = np.random.default_rng(0).normal(40, 60, (16, 20, 20))
    hu[:, :8] = np.random.default_rng(1).normal(-1000, 10, (16, 8, 20))
    return hu.astype(np.int16)


def doubts(array: np.ndarray, model: Bundle, kind: str = "nifti", modality: str | None = None) -> list[str]:
    said = check_fit(Volume(array, GRID, modality, Source(None, kind=kind)), model)
    return [text for text in said if "Hounsfield" in text]


@pytest.mark.parametrize("modality", [None, "CT"])
def test_a_model_of_ct_is_told_of_values_that_are_no_hounsfield_units(tmp_path: Path, modality: str | None) -> None:
    model = a_model(tmp_path / "ct")
    assert doubts(hounsfield(), model, modality=modality) == []
    (said,) = doubts(hounsfield() + 1024, model, modality=modality)
    assert "offset were missing" in said and "subtract 1024" in said


def test_pictures_of_hounsfield_units_cut_to_0_to_255_are_what_such_a_model_reads(tmp_path: Path) -> None:
    gray = np.clip(hounsfield(), 0, 255).astype(np.uint8)
    assert doubts(gray, a_model(tmp_path / "ct"), kind="picture") == []


@pytest.mark.parametrize(
    "intensity",
    [
        {"kind": "percentile", "lower": 0.5, "upper": 99.5},
        {"kind": "window", "lower": 900.0, "upper": 1300.0},
        {"kind": "window", "lower": 0.0, "upper": 1.0},
    ],
    ids=["of each image", "stored values", "0..1"],
)
def test_a_model_that_was_not_trained_on_hounsfield_units_asks_for_none(
    tmp_path: Path, intensity: dict[str, Any]
) -> None:
    assert doubts(hounsfield() + 1024, a_model(tmp_path / "ct", intensity=intensity)) == []


def test_ct_given_to_a_model_of_mr_is_told_with_the_remedy(tmp_path: Path) -> None:
    image = Volume(hounsfield(), GRID, source=Source(None, kind="nifti"))
    (said,) = check_fit(image, a_model(tmp_path / "mr", "MR", {"kind": "percentile", "lower": 0.5, "upper": 99.5}))
    assert "look like CT" in said and "Choose a model for CT" in said


def test_the_same_words_come_before_and_with_the_result(tmp_path: Path) -> None:
    model = str(a_model(tmp_path / "ct").directory)
    image = str(write_image(tmp_path / "image.nii.gz", hounsfield() + 1024, (1.0, 1.0, 1.0)))
    asked = {"image": image, "model": model, "device": "cpu"}
    before = run_here("preflight", **{"for": "segment"}, **asked)
    result = run_here("segment", outputs={"labels": str(tmp_path / "labels.nii.gz")}, **asked)
    (said,) = (text for text in before["warnings"] if "Hounsfield" in text)
    assert before["ok"] and said in result["warnings"]


def test_an_implausible_field_of_view_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    model = str(a_model(tmp_path / "ct").directory)
    image = str(write_image(tmp_path / "image.nii.gz", hounsfield(), (700.0, 700.0, 700.0)))
    before = run_here("preflight", **{"for": "segment"}, image=image, model=model, device="cpu")
    assert not before["ok"] and "covers 14000 x 14000 x 11200 mm" in str(before)


def test_a_small_region_of_an_image_and_a_piece_of_thin_slices_are_no_small_images(tmp_path: Path) -> None:
    model = str(a_model(tmp_path / "ct").directory)
    image = str(write_image(tmp_path / "image.nii.gz", hounsfield(), (0.1, 0.1, 0.1)))
    before = run_here("preflight", **{"for": "segment"}, image=image, model=model, device="cpu", roi="2:8,3:15,1:9")
    assert before["ok"], before

"""Whether an image suits a model: what its values are is told in the same words before and with a result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.bundles import Bundle
from apformer.errors import InputError
from apformer.inference.fitness import check_fit
from apformer.jobs.glimpse import glimpse_fields
from apformer.volume import Roi, Source, Volume
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


def test_what_the_values_are_is_judged_by_the_whole_image_whatever_the_region(tmp_path: Path) -> None:
    model = a_model(tmp_path / "ct")
    tissue_only = Roi((0, 8, 0), (20, 20, 16))
    for array, doubted in ((hounsfield(), 0), (hounsfield() + 1024, 1)):
        whole = Volume(array, GRID)
        said = check_fit(whole.cropped(tissue_only), model, whole)
        assert len([text for text in said if "Hounsfield" in text]) == doubted
    beside = hounsfield().astype(np.float32) + 1024
    beside[0, 0, 0] = np.nan  # outside of the region, where it spoils nothing
    whole = Volume(beside, GRID)
    assert any("Hounsfield" in text for text in check_fit(whole.cropped(tissue_only), model, whole))


@pytest.mark.parametrize("offset", [0, 1024], ids=["Hounsfield units", "without their offset"])
@pytest.mark.parametrize("roi", [None, "0:20,40:60,6:10"], ids=["whole", "region"])
def test_an_estimate_without_voxels_says_of_the_values_what_the_result_says(
    tmp_path: Path, offset: int, roi: str | None
) -> None:
    array = np.repeat(np.repeat(hounsfield() + offset, 4, axis=1), 4, axis=2)  # more than travels with a request
    asked = {"model": str(a_model(tmp_path / "ct").directory), "device": "cpu", **({} if roi is None else {"roi": roi})}
    image = str(write_image(tmp_path / "image.nii.gz", array, (1.0, 1.0, 1.0)))
    blind = run_here("preflight", **{"for": "segment"}, **asked, glimpse=glimpse_fields(array, GRID, name="Head"))
    result = run_here("segment", image=image, outputs={"labels": str(tmp_path / "labels.nii.gz")}, **asked)
    before, after = ([t for t in told["warnings"] if "Hounsfield" in t] for told in (blind, result))
    assert blind["ok"] and len(before) == (1 if offset else 0) and before == after


def test_an_image_whose_extent_cannot_be_is_refused_by_name_before_its_voxels_are_handed_over(tmp_path: Path) -> None:
    in_micrometres = np.diag([-1000.0, -1000.0, 1000.0, 1.0])
    array = np.tile(hounsfield(), (4, 4, 4))
    fields = glimpse_fields(array, in_micrometres, name="Head")
    model = str(a_model(tmp_path / "ct").directory)
    for place in ({}, {"roi": "0:2,0:2,0:2"}):  # 2 m, of an image of 80 m
        said = run_here("preflight", **{"for": "segment"}, glimpse=fields, model=model, device="cpu", **place)
        assert not said["ok"] and said["reason"]["what"].startswith("Head covers ")
        with pytest.raises(InputError) as caught:
            check_fit(Volume(array, in_micrometres, source=Source(None, name="Head")), a_model(tmp_path / "other"))
        assert caught.value.what == said["reason"]["what"]

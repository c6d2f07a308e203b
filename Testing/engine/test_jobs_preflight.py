"""What an estimate says of a segmentation, from an image or from a glimpse of one that the host holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from apformer.bundles import load_bundle
from apformer.inference import Segmenter
from apformer.jobs import array_fields
from apformer.jobs.footprint import LiveTensors
from apformer.jobs.glimpse import MOST_VALUES, Glimpse, glimpse_fields
from apformer.jobs.job import Cancelled, Job
from apformer.jobs.messages import LONGEST_LINE, Event, Fields, Request, RequestError
from apformer.jobs.preflight import estimate_segment, sample_of
from apformer.volume import Roi, Volume
from bundle_samples import save_sample
from cli_samples import files_in, noise, save_slices_model
from job_samples import MATRIX, asking, run_here


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slices, at the stored spacing, in tiles of 16 x 16."""
    return save_slices_model(tmp_path_factory.mktemp("models") / "slices")


@pytest.fixture(scope="module")
def volumes_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes, at 1 mm, in tiles of 16 x 16 x 16."""
    directory = tmp_path_factory.mktemp("models") / "hippocampus-test"
    save_sample(directory)
    return directory


# ------------------------------------------------------------------ preflight


def test_preflight_says_yes_with_device_memory_seconds_and_counts(tmp_path: Path, model: Path) -> None:
    result = run_here("preflight", **{"for": "segment"}, **asking(tmp_path, model))
    assert result["ok"] is True and "cpu" in result["reason"]["what"]
    low, high = result["seconds"]
    assert 0 <= low <= high
    assert 0 < result["needed_bytes"]["device"] < result["free_bytes"]["device"]
    assert result["counts"] == {"images": 1, "voxels": 360, "tiles": 3}
    assert files_in(tmp_path) == ["image.npy"]


def test_preflight_says_no_with_the_figures_when_memory_is_short(model: Path) -> None:
    segmenter = Segmenter(load_bundle(model), "cpu")
    seen = Glimpse.of(Volume(noise(), MATRIX, "MR"))
    verdict = estimate_segment(segmenter, lambda: seen, None, free=lambda device: 1000)
    data = verdict.as_data()
    assert data["ok"] is False
    assert "free" in data["reason"]["what"] and data["reason"]["meaning"] and data["reason"]["remedy"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "none-such"}, "none-such"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"roi": "0:1,0:1,7:9"}, "outside"),
        ({"array": np.ones((3, 12, 10), np.float32)}, "value"),
        ({"array": noise((2, 3, 12, 10))}, "channels"),
    ],
    ids=["model", "device", "region", "constant image", "channels"],
)
def test_preflight_says_no_with_the_reason_for_what_cannot_run(
    tmp_path: Path, model: Path, change: dict[str, Any], says: str
) -> None:
    array = change.pop("array", None)
    result = run_here("preflight", **{"for": "segment"}, **{**asking(tmp_path, model, array), **change})
    assert result["ok"] is False
    assert says in result["reason"]["what"] and result["reason"]["remedy"]


def test_the_sample_is_a_few_whole_slices_of_a_slice_model(model: Path) -> None:
    volume = Volume(noise((10, 20, 24)), MATRIX, "MR")
    sample, samples = sample_of(Glimpse.of(volume), None, load_bundle(model))
    assert sample.spatial_shape == (4, 20, 24) and samples == 2.5
    assert np.allclose(sample.array, volume.array[3:7], atol=1.0)


def test_the_sample_is_one_tile_of_a_volume_model_along_its_axes(volumes_model: Path) -> None:
    sagittal = np.array([[0.0, 0, 2, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])  # k is 2 mm from left to right
    volume = Volume(noise((20, 48, 30)), sagittal, "MR")
    sample, samples = sample_of(Glimpse.of(volume), None, load_bundle(volumes_model))
    assert sample.spatial_shape == (8, 16, 16)
    assert samples == 4 * 5 * 3  # windows of 16 that overlap by half over 40, 48 and 30 mm


def test_a_sample_of_one_value_can_still_be_tried(model: Path) -> None:
    array = np.zeros((10, 20, 24), np.int16)
    array[0] = 100
    segmenter = Segmenter(load_bundle(model), "cpu")
    verdict = estimate_segment(segmenter, lambda: Glimpse.of(Volume(array + np.int16(300), MATRIX, "MR")), None)
    assert verdict.as_data()["counts"]["tiles"] >= 10


def test_a_larger_volume_needs_more_memory_and_more_time_is_expected(volumes_model: Path) -> None:
    segmenter = Segmenter(load_bundle(volumes_model), "cpu")
    small, large = (
        estimate_segment(segmenter, lambda s=shape: Glimpse.of(Volume(noise(s), np.eye(4), "MR")), None)
        for shape in ((16, 16, 16), (40, 40, 40))
    )
    assert large.needed_bytes["device"] > small.needed_bytes["device"]
    assert (small.counts["tiles"], large.counts["tiles"]) == (1, 64)


def test_preflight_can_be_cancelled_while_it_tries(tmp_path: Path, model: Path) -> None:
    def cancel(job: Job, event: Event) -> None:
        if event.data["message"] == "trying a piece of the image":
            job.cancel()

    with pytest.raises(Cancelled):
        run_here("preflight", cancel, **{"for": "segment"}, **asking(tmp_path, model))


# ------------------------------------------------------------------ a glimpse


def glimpse(array: np.ndarray, **about: Any) -> Glimpse:
    """What the worker has of it, after it went over the wire."""
    fields = json.loads(json.dumps(glimpse_fields(array, MATRIX, "MR", **about)))
    return Glimpse.parse(Fields("preflight", fields))


@pytest.mark.parametrize("shape", [(30, 48, 40), (3, 12, 10)])
def test_an_estimate_without_voxels_counts_and_says_what_one_with_them_does(
    tmp_path: Path, model: Path, shape: tuple[int, ...]
) -> None:
    array = noise(shape)
    asked = {"for": "segment", "model": str(model), "device": "cpu"}
    blind = run_here("preflight", **asked, glimpse=glimpse_fields(array, MATRIX, "MR"))
    fields = array_fields(tmp_path, array, MATRIX, "MR")
    full = run_here("preflight", **asked, **fields)
    assert blind["ok"] and full["ok"]
    assert blind["counts"] == full["counts"] and blind["warnings"] == full["warnings"]
    for place, needed in full["needed_bytes"].items():
        assert blind["needed_bytes"][place] == pytest.approx(needed, rel=0.1)


def test_a_glimpse_of_a_whole_ct_is_a_part_of_a_line_and_reads_few_voxels() -> None:
    ct = np.broadcast_to(np.arange(512, dtype=np.int16), (300, 512, 512))
    fields = glimpse_fields(ct, MATRIX, "CT", name="CT")
    assert np.prod(fields["few"]) <= MOST_VALUES
    assert len(Request("1", "preflight", {"glimpse": fields}).encode()) < LONGEST_LINE / 4
    seen = Glimpse.parse(Fields("preflight", fields))
    assert seen.grid.array.shape == ct.shape and seen.grid.array.nbytes == ct.nbytes
    assert seen.grid.array.base is not None and seen.grid.source.title == "CT"
    box = Roi((100, 0, 10), (110, 5, 12))
    assert np.abs(seen.values_in(box).astype(int) - ct[box.slices_kji]).max() <= 512 // seen.few.shape[2]


@pytest.mark.parametrize("kind", ["bool", "uint8", "int8", ">i2", "uint16", "int32", ">f4", "float64", "int64"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 300, 400), (2, 3, 500), (3, 1, 40, 50), (90, 80, 70)])
def test_a_glimpse_has_real_values_whatever_the_type_and_shape(kind: str, shape: tuple[int, ...]) -> None:
    array = (noise(shape) % 2).astype(kind) if kind == "bool" else noise(shape).astype(kind)
    seen = glimpse(array, picture=len(shape) == 4)
    assert seen.grid.array.shape == shape and set(np.unique(seen.few)) <= set(np.unique(array))
    assert seen.values_in(Roi((0, 0, 0), seen.grid.spatial_shape[::-1])).shape == shape
    small = np.asarray(array)
    if small.size <= 1000:
        assert np.array_equal(seen.few, small)


@pytest.mark.parametrize("shape", [(2, 512, 512), (3, 400, 400), (512, 2, 2), (2, 2, 90_000), (5, 4, 30_000)])
def test_a_glimpse_of_a_thin_volume_is_no_slice(shape: tuple[int, ...]) -> None:
    seen = glimpse(np.zeros(shape, np.int16))
    assert min(seen.seen(None).spatial_shape) >= 2 and seen.few.size <= MOST_VALUES
    extent = [n * step for n, step in zip(shape[::-1], (0.8, 0.9, 2.0), strict=True)]
    whole = seen.seen(None)
    assert [n * step for n, step in zip(whole.spatial_shape[::-1], whole.spacing_ijk, strict=True)] == pytest.approx(
        extent
    )


def test_the_checks_see_the_extent_of_the_region_and_whether_it_is_one_slice() -> None:
    seen = glimpse(noise((90, 80, 70)))
    region = seen.seen(Roi((10, 20, 30), (45, 60, 31)))
    extent = [n * step for n, step in zip(region.spatial_shape[::-1], region.spacing_ijk, strict=True)]
    assert extent == pytest.approx([35 * 0.8, 40 * 0.9, 2.0]) and region.spatial_shape[0] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"values": "%%%"},
        {"values": "AAAA"},
        {"type": "|O8"},
        {"few": [5, 5]},
        {"few": [9999, 9999, 9999]},
        {"shape": [0, 12, 10]},
        {"shape": [1, 1, 1]},
        {"shape": [1 << 40, 12, 10]},
        {"modality": "x" * 100},
        {"unknown": 1},
    ],
)
def test_a_glimpse_that_is_nonsense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        Glimpse.parse(Fields("preflight", {**glimpse_fields(noise(), MATRIX), **change}))


def test_live_tensors_are_counted_once_and_only_as_long_as_they_live() -> None:
    with LiveTensors() as tensors:
        first = torch.zeros(1000)  # 4000 bytes
        view = first.view(10, 100)
        first.add_(1)
        assert tensors.live_bytes == 4000
        second = first + 1
        assert tensors.live_bytes == 8000
        del first, second
        assert tensors.live_bytes == 4000  # the view holds its storage
        del view
        assert tensors.live_bytes == 0
    assert tensors.peak_bytes == 8000

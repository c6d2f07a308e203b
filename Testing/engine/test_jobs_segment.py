"""The job kinds on tiny models: arrays and files in, results on the same grid out, a warm second time, estimates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from apformer.benchmarks import segment as benchmark_module
from apformer.bundles import ModelLibrary, load_bundle
from apformer.errors import APFormerError, BundleError, DeviceError, OutputError
from apformer.files import read_volume
from apformer.inference import Segmenter
from apformer.jobs import array_fields
from apformer.jobs.footprint import LiveTensors
from apformer.jobs.handlers import HANDLERS
from apformer.jobs.job import Cancelled, Job
from apformer.jobs.messages import Event, Fields, RequestError
from apformer.jobs.preflight import estimate_segment, sample_of
from apformer.jobs.warm import Warm
from apformer.volume import Volume
from bundle_samples import edit_json, save_sample
from cli_samples import files_in, noise, save_slices_model, write_image
from job_samples import Host, run_here

MATRIX = np.diag([-0.8, -0.9, 2.0, 1.0])


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


def asking(folder: Path, model: Path, array: np.ndarray | None = None, **more: Any) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    fields = array_fields(folder, noise() if array is None else array, MATRIX, "MR", maps=more.pop("maps", ()))
    return {**fields, "model": str(model), "device": "cpu", **more}


# ------------------------------------------------------------------ segment


def test_an_array_becomes_labels_and_maps_on_its_grid(tmp_path: Path, model: Path) -> None:
    array = noise()
    result = run_here("segment", **asking(tmp_path, model, array, maps=("uncertainty", "kept_tokens")))
    direct = Segmenter(load_bundle(model), "cpu").segment(Volume(array, MATRIX, "MR"), uncertainty=True)
    labels = np.load(result["paths"]["labels"], allow_pickle=False)
    assert labels.dtype == np.uint8 and np.array_equal(labels, direct.labels.array)
    doubt = np.load(result["paths"]["uncertainty"], allow_pickle=False)
    assert direct.uncertainty is not None and np.array_equal(doubt, direct.uncertainty.array)
    assert np.load(result["paths"]["kept_tokens"], allow_pickle=False).shape == array.shape
    assert result["volumes_ml"] == direct.volumes_ml
    assert result["device"].startswith("cpu") and result["seconds"] >= 0 and result["dense_reruns"] == 0
    assert [label["name"] for label in result["labels"]] == ["anterior", "posterior"]


def test_a_report_beside_the_labels_tells_grid_model_and_provenance(tmp_path: Path, model: Path) -> None:
    result = run_here("segment", **asking(tmp_path, model))
    report = json.loads((tmp_path / "labels.json").read_text("utf-8"))
    assert report["ijk_to_ras"] == MATRIX.tolist() and report["shape_kji"] == [3, 12, 10]
    assert report["model"] == result["model"] and len(report["model"]["checksum"]) == 64
    assert report["provenance"]["model"] == "slices"
    assert files_in(tmp_path) == ["image.npy", "labels.json", "labels.npy"]


def test_a_file_becomes_a_file(tmp_path: Path, model: Path) -> None:
    image = write_image(tmp_path / "Bilder für Ärzte" / "Kopf 脳.nii.gz", noise())
    outputs = {"labels": str(tmp_path / "out ß" / "Maske.seg.nrrd"), "uncertainty": str(tmp_path / "out ß" / "u.nrrd")}
    run_here("segment", image=str(image), model=str(model), device="cpu", outputs=outputs, roi="2:8,1:9,1:2")
    labels = read_volume(outputs["labels"])
    assert labels.spatial_shape == (3, 12, 10)
    touched = np.argwhere(read_volume(outputs["uncertainty"]).array > 0)
    assert touched.min(axis=0).tolist() == [1, 1, 2] and touched.max(axis=0).tolist() == [1, 8, 7]


def test_the_second_request_on_a_model_reuses_its_segmenter(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []
    segment = Segmenter.segment

    def watched(self: Segmenter, *args: Any, **more: Any) -> Any:
        used.append(id(self))
        return segment(self, *args, **more)

    monkeypatch.setattr(Segmenter, "segment", watched)
    with Host() as host:
        for name in ("a", "b"):
            host.send("segment", name, **asking(tmp_path / name, model))
            assert host.ending_of(name).kind == "result", host.ending_of(name).data
    assert len(used) == 2 and used[0] == used[1]


def test_a_model_is_kept_by_name_or_folder_and_reloaded_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = save_slices_model(tmp_path / "models" / "slices")
    other = save_slices_model(tmp_path / "models" / "other")
    monkeypatch.setenv("APFORMER_MODELS", str(directory.parent))
    warm = Warm()
    first = warm.segmenter("slices", "cpu")
    assert warm.segmenter(str(directory), "cpu") is first
    edit_json(directory, "configs/metadata.json", lambda data: data.update(version="1.0.1"))
    changed = warm.segmenter("slices", "cpu")
    assert changed is not first and changed.bundle.version == "1.0.1"
    assert warm.segmenter(str(other), "cpu").bundle.name == "other"
    (directory / "SHA256SUMS").unlink()
    with pytest.raises(BundleError):
        warm.segmenter("slices", "cpu")


def test_a_model_that_is_damaged_while_it_is_kept_is_not_used(tmp_path: Path) -> None:
    directory = save_slices_model(tmp_path / "slices")
    warm = Warm()
    warm.segmenter(str(directory), "cpu")
    (directory / "SHA256SUMS").unlink()
    with pytest.raises(BundleError):
        warm.segmenter(str(directory), "cpu")


def test_cancelling_stops_between_tiles_and_leaves_no_file(tmp_path: Path, volumes_model: Path) -> None:
    calls: list[int] = []
    fields = asking(tmp_path, volumes_model, noise((12, 48, 48)))
    arguments = HANDLERS["segment"].parse(Fields("segment", fields))
    warm = Warm()
    from apformer.jobs.messages import Request

    job = Job(Request("1", "segment", fields), arguments, lambda event: None, warm)
    segmenter = warm.segmenter(str(volumes_model), "cpu")

    def cancel_at_the_third(*_: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            job.cancel()

    watch = segmenter.network.register_forward_hook(cancel_at_the_third)
    with pytest.raises(Cancelled):
        HANDLERS["segment"].run(job)
    watch.remove()
    assert len(calls) == 3
    assert files_in(tmp_path) == ["image.npy"]
    assert warm.segmenter(str(volumes_model), "cpu") is segmenter
    assert not segmenter.network._forward_pre_hooks  # the next job is not asked by this one's check


def test_cancelling_at_any_event_leaves_no_file(tmp_path: Path, model: Path) -> None:
    seen: list[Event] = []
    run_here("segment", lambda job, event: seen.append(event), **asking(tmp_path / "whole", model))
    for stop_at in range(len(seen)):
        heard: list[Event] = []

        def cancel(job: Job, event: Event, heard: list[Event] = heard, stop_at: int = stop_at) -> None:
            heard.append(event)
            if len(heard) == stop_at:
                job.cancel()

        folder = tmp_path / str(stop_at)
        if stop_at:
            with pytest.raises(Cancelled):
                run_here("segment", cancel, **asking(folder, model))
            assert files_in(folder) == ["image.npy"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"model": "none-such"}, BundleError),
        ({"device": "cuda:99"}, DeviceError),
        ({"roi": "everything"}, APFormerError),
        ({"outputs": {"labels": "nowhere.npy/labels.npy"}}, OutputError),
    ],
    ids=["model", "device", "region", "output"],
)
def test_what_cannot_be_done_is_an_error_and_leaves_no_file(
    tmp_path: Path, model: Path, change: dict[str, Any], error: type[APFormerError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nowhere.npy").touch()
    before = {*files_in(tmp_path), "in/image.npy"}
    with pytest.raises(error):
        run_here("segment", **{**asking(tmp_path / "in", model), **change})
    assert set(files_in(tmp_path)) == before


def test_an_array_that_is_no_array_is_an_error(tmp_path: Path, model: Path) -> None:
    fields = asking(tmp_path, model)
    (tmp_path / "image.npy").write_bytes(b"\x93NUMPY nonsense")
    with pytest.raises(APFormerError, match="could not be read"):
        run_here("segment", **fields)


def test_an_array_with_objects_in_it_is_not_unpickled(tmp_path: Path, model: Path) -> None:
    fields = asking(tmp_path, model)
    np.save(tmp_path / "image.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(APFormerError, match="could not be read"):
        run_here("segment", **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"outputs": {"labels": "a.npy"}},
        {"image": "a.nii", "array": {"file": "a.npy"}, "outputs": {"labels": "b.npy"}},
        {"image": "a.nii", "outputs": {"labels": "./a.nii"}},
        {"image": "a.nii", "outputs": {"labels": "b.npy", "uncertainty": "b.npy"}},
        {"image": "a.nii", "outputs": {"labels": "b.npy", "certainty": "c.npy"}},
        {"array": {"file": "a.npy", "ijk_to_ras": [[1]]}, "outputs": {"labels": "b.npy"}},
    ],
    ids=["no image", "two images", "over the image", "one file twice", "unknown map", "no matrix"],
)
def test_a_request_that_contradicts_itself_is_refused_at_once(fields: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        HANDLERS["segment"].parse(Fields("segment", {**fields, "model": "slices"}))


# ------------------------------------------------------------------ evaluate, benchmark


def test_two_files_are_compared(tmp_path: Path, model: Path) -> None:
    truth = np.zeros((3, 12, 10), np.uint8)
    truth[1, 2:6, 2:6] = 1
    found = truth.copy()
    found[1, 2:4] = 0
    reference, prediction = (write_image(tmp_path / f"{n}.nrrd", a) for n, a in (("r", truth), ("p", found)))
    result = run_here("evaluate", prediction=str(prediction), reference=str(reference), model=str(model))
    assert result["labels"]["1"]["name"] == "anterior"
    assert result["labels"]["1"]["dice"] == pytest.approx(2 * 8 / 24)
    assert result["labels"]["2"]["dice"] is None and result["notes"] == []
    unnamed = run_here("evaluate", prediction=str(prediction), reference=str(reference))
    assert "label 1" in str(unnamed) and "compared by number" in unnamed["notes"][0]


def test_a_benchmark_is_that_of_the_command_line_and_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def measure(model: str, device: str, *, say: Any, **more: Any) -> dict[str, Any]:
        asked.update(model=model, device=device, **more)
        say("networks on cpu")
        say("once more")
        return {"machine": {}}

    monkeypatch.setattr(benchmark_module, "run", measure)
    told: list[Event] = []
    result = run_here("benchmark", lambda job, event: told.append(event), quick=True, device="cpu", rounds=2)
    assert result == {"machine": {}}
    assert asked == {"model": "liver-ct", "device": "cpu", "quick": True, "untrained": False, "rounds": 2}
    assert [event.data["message"] for event in told] == ["networks on cpu", "once more"]
    with pytest.raises(Cancelled):
        run_here("benchmark", lambda job, event: job.cancel(), quick=True)


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
    verdict = estimate_segment(segmenter, lambda: Volume(noise(), MATRIX, "MR"), None, free=lambda device: 1000)
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
    sample, samples = sample_of(volume, load_bundle(model))
    assert sample.spatial_shape == (4, 20, 24) and samples == 2.5
    assert np.allclose(sample.array, volume.array[3:7], atol=1.0)


def test_the_sample_is_one_tile_of_a_volume_model_along_its_axes(volumes_model: Path) -> None:
    sagittal = np.array([[0.0, 0, 2, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])  # k is 2 mm from left to right
    volume = Volume(noise((20, 48, 30)), sagittal, "MR")
    sample, samples = sample_of(volume, load_bundle(volumes_model))
    assert sample.spatial_shape == (8, 16, 16)
    assert samples == 4 * 5 * 3  # windows of 16 that overlap by half over 40, 48 and 30 mm


def test_a_sample_of_one_value_can_still_be_tried(model: Path) -> None:
    array = np.zeros((10, 20, 24), np.int16)
    array[0] = 100
    segmenter = Segmenter(load_bundle(model), "cpu")
    verdict = estimate_segment(segmenter, lambda: Volume(array + np.int16(300), MATRIX, "MR"), None)
    assert verdict.as_data()["counts"]["tiles"] >= 10


def test_a_larger_volume_needs_more_memory_and_more_time_is_expected(volumes_model: Path) -> None:
    segmenter = Segmenter(load_bundle(volumes_model), "cpu")
    small, large = (
        estimate_segment(segmenter, lambda s=shape: Volume(noise(s), np.eye(4), "MR"), None)
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


def test_a_version_that_was_activated_serves_the_next_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APFORMER_MODELS", str(tmp_path))
    library = ModelLibrary()
    versions = [
        library.add_version(lambda folder, number=number: save_sample(folder, name="ours", version=number))
        for number in ("1.0.0", "1.1.0")
    ]
    library.activate("ours", "1.0.0")
    warm = Warm()
    first = warm.segmenter("ours", "cpu")
    assert warm.segmenter("ours", "cpu") is first
    library.activate("ours", "1.1.0")
    second = warm.segmenter("ours", "cpu")
    assert [first.bundle.checksum, second.bundle.checksum] == [bundle.checksum for bundle in versions]

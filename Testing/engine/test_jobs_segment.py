"""The job kinds on tiny models: arrays and files in, results on the same grid out, a warm second time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.benchmarks import segment as benchmark_module
from apformer.bundles import ModelLibrary, load_bundle
from apformer.errors import APFormerError, BundleError, DeviceError, InputError, OutputError
from apformer.files import read_volume
from apformer.inference import Segmenter
from apformer.jobs import array_fields
from apformer.jobs.handlers import HANDLERS
from apformer.jobs.handlers.segment import FAINTEST_SHOWN, structures
from apformer.jobs.job import Cancelled, Job
from apformer.jobs.messages import Event, Fields, RequestError, plain
from apformer.jobs.warm import Warm
from apformer.part import Part
from apformer.places import Place, uncertain_places
from apformer.volume import Volume
from bundle_samples import LABELS, edit_json, save_sample
from cli_samples import files_in, noise, save_slices_model, write_image
from job_samples import MATRIX, Host, asking, run_here


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


# ------------------------------------------------------------------ segment


def part(result: dict[str, Any], name: str) -> Part:
    return Part.at(np.load(result["paths"][name], allow_pickle=False), result["parts"][name])


def test_an_array_becomes_labels_and_maps_cut_to_what_is_not_zero(tmp_path: Path, model: Path) -> None:
    array = noise()
    result = run_here("segment", **asking(tmp_path, model, array, maps=("uncertainty", "kept_tokens")))
    direct = Segmenter(load_bundle(model), "cpu").segment(Volume(array, MATRIX, "MR"), uncertainty=True)
    labels, doubt = part(result, "labels"), part(result, "uncertainty")
    assert labels.array.dtype == np.uint8 and np.array_equal(labels.whole(), direct.labels.array)
    assert direct.uncertainty is not None and doubt.array.dtype == np.float32
    shown = direct.uncertainty.array >= FAINTEST_SHOWN
    assert np.array_equal(doubt.whole(), np.where(shown, direct.uncertainty.array, 0))
    assert part(result, "kept_tokens").shape_kji == array.shape
    assert result["volumes_ml"] == direct.volumes_ml
    assert result["device"].startswith("cpu") and result["seconds"] >= 0 and result["dense_reruns"] == 0
    assert [label["name"] for label in result["labels"]] == ["anterior", "posterior"]


def test_arrays_of_a_region_are_no_larger_than_it(tmp_path: Path, model: Path) -> None:
    maps = ("uncertainty", "kept_tokens")
    result = run_here("segment", **asking(tmp_path, model, maps=maps, roi="2:8,1:9,1:2"))
    for name in ("labels", *maps):
        cut = part(result, name)
        assert all(have <= most for have, most in zip(cut.array.shape, (1, 8, 6), strict=True))
        assert cut.shape_kji == (3, 12, 10)


def test_of_each_label_its_voxels_and_its_box_are_told(model: Path) -> None:
    whole = np.zeros((9, 8, 7), np.uint8)
    whole[2:4, 3, 1:6] = LABELS[0].value
    told = structures(Part.of(whole), load_bundle(model))
    assert told[LABELS[0].name] == {"voxels": 10, "box": [[1, 6], [3, 4], [2, 4]]}
    assert told[LABELS[1].name] == {"voxels": 0, "box": None}
    assert structures(Part.of(whole * 0), load_bundle(model))[LABELS[0].name] == {"voxels": 0, "box": None}


def test_the_places_to_check_come_with_the_result(tmp_path: Path, model: Path) -> None:
    result = run_here("segment", **asking(tmp_path, model, maps=("uncertainty",)))
    direct = Segmenter(load_bundle(model), "cpu").segment(Volume(noise(), MATRIX, "MR"), uncertainty=True)
    assert direct.uncertainty is not None
    found = [Place.from_dict(place) for place in json.loads(json.dumps(plain(result["places"])))]
    assert found == uncertain_places(direct.uncertainty.array, MATRIX)
    assert "places" not in run_here("segment", **asking(tmp_path / "without", model))


def test_messages_name_the_image_as_the_user_does(tmp_path: Path, model: Path) -> None:
    spoiled = noise().astype(np.float32)
    spoiled[1, 2, 3] = np.nan
    for array, name, said in (
        (spoiled, "CT Müller 脳", "CT Müller 脳 has NaN"),
        (np.full((3, 12, 10), 7, np.int16), "flat", "Every voxel of flat has"),
        (spoiled, "", "The image has NaN"),
    ):
        fields = array_fields(tmp_path, array, MATRIX, "MR", name=name)
        with pytest.raises(InputError) as caught:
            run_here("segment", **fields, model=str(model), device="cpu")
        assert caught.value.what.startswith(said)


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

"""`apformer segment`: files, folders, formats, and every way in which it can fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from apformer.bundles import load_bundle
from apformer.commands.cases import find_cases
from apformer.files import read_volume
from apformer.networks import build_network
from bundle_samples import save_sample
from cli_samples import SLICES, CommandLine, files_in, noise, save_slices_model, write_dicom, write_image, write_picture
from pydicom import dcmread


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_slices_model(tmp_path_factory.mktemp("models") / "slices")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], model: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv("APFORMER_MODELS", str(model.parent))
    return CommandLine(capsys)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_image(tmp_path / "in" / "brain.nii.gz", noise())


def test_one_file_becomes_a_label_map_on_its_grid(run: CommandLine, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "brain.nrrd"
    ran = run("segment", image, "-o", out, "--model", "slices", "--device", "cpu")
    assert ran.status == 0
    labels, reference = read_volume(out), read_volume(image)
    assert labels.spatial_shape == reference.spatial_shape
    assert np.allclose(labels.ijk_to_ras, reference.ijk_to_ras)
    assert set(np.unique(labels.array)) <= {0, 1, 2}
    assert "mL" in ran.out and str(out) in ran.out


def test_json_reports_model_device_seconds_volumes_and_warnings(
    run: CommandLine, image: Path, tmp_path: Path, model: Path
) -> None:
    ran = run("segment", image, "-o", tmp_path / "o.seg.nrrd", "--model", model, "--device", "cpu", "--json")
    (case,) = ran.json["cases"]
    assert ran.status == 0
    assert ran.json["model"]["name"] == "slices" and len(ran.json["model"]["checksum"]) == 64
    assert case["device"].startswith("cpu") and case["seconds"] >= 0
    assert set(case["volumes_ml"]) == {"anterior", "posterior"}
    assert isinstance(case["warnings"], list)
    total = (read_volume(tmp_path / "o.seg.nrrd").array > 0).sum() * 2.0 / 1000
    assert sum(case["volumes_ml"].values()) == pytest.approx(total)


def test_the_header_says_which_model_made_it(run: CommandLine, image: Path, tmp_path: Path) -> None:
    run("segment", image, "-o", tmp_path / "o.seg.nrrd", "--model", "slices")
    head = (tmp_path / "o.seg.nrrd").read_bytes()[:8000].decode("latin-1")
    for key in ("model:=slices", "model_version:=1.0.0", "model_checksum:=", "program:=APFormerSlicer", "device:=cpu"):
        assert f"APFormer_{key}" in head
    assert "APFormer_date:=20" in head


def test_the_uncertainty_map_lies_between_0_and_1(run: CommandLine, image: Path, tmp_path: Path) -> None:
    ran = run("segment", image, "-o", tmp_path / "o.nrrd", "--model", "slices", "--uncertainty", tmp_path / "u.nrrd")
    assert ran.status == 0
    doubt = read_volume(tmp_path / "u.nrrd").array
    assert doubt.shape == (3, 12, 10) and 0 <= doubt.min() < doubt.max() <= 1


def test_a_dense_model_looked_everywhere(run: CommandLine, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "k.nrrd"
    ran = run("segment", image, "-o", tmp_path / "o.nrrd", "--model", "slices", "--kept-tokens", out, "--json")
    (case,) = ran.json["cases"]
    assert (case["kept_tokens"], case["uncertainty"], case["dense_reruns"]) == (str(out), None, 0)
    looked, reference = read_volume(out), read_volume(image)
    assert looked.array.dtype == np.float32 and looked.array.min() == 1
    assert looked.spatial_shape == reference.spatial_shape
    assert np.allclose(looked.ijk_to_ras, reference.ijk_to_ras)


def test_a_pruned_model_says_where_it_looked_and_what_was_run_again(
    run: CommandLine, image: Path, tmp_path: Path, model: Path
) -> None:
    bundle = load_bundle(model)
    arguments = {**bundle.network_arguments, "prune_queries": True, "prune_keys": True, "safety_ring": 0}
    network: Any = build_network("apformer", arguments)
    network.query_gate.threshold.data.fill_(50.0)  # prunes everything, and no head is that sure
    pruned = save_sample(
        tmp_path / "pruned", preprocessing=SLICES, network_arguments=arguments, state_dict=network.state_dict()
    )
    maps = {"kept_tokens": tmp_path / "k.mha", "uncertainty": tmp_path / "u.mha"}
    options = [word for name, path in maps.items() for word in (f"--{name.replace('_', '-')}", path)]
    ran = run("segment", image, "-o", tmp_path / "o.nrrd", "--model", pruned.directory, *options, "--json")
    (case,) = ran.json["cases"]
    assert {name: case[name] for name in maps} == {name: str(path) for name, path in maps.items()}
    assert case["dense_reruns"] == 3
    assert read_volume(maps["kept_tokens"]).array.min() == 1


@pytest.mark.parametrize("box", ["2:8,1:9,1:2", "-7.5,-1.5,-8.5,-0.5,1.5,2.5"], ids=["voxels", "millimetres"])
def test_a_region_keeps_all_else_empty(run: CommandLine, image: Path, tmp_path: Path, box: str) -> None:
    doubt = tmp_path / "u.nrrd"
    ran = run("segment", image, "-o", tmp_path / "o.nrrd", "--model", "slices", "--roi", box, "--uncertainty", doubt)
    assert ran.status == 0
    touched = np.argwhere(read_volume(doubt).array > 0)
    assert touched.min(axis=0).tolist() == [1, 1, 2] and touched.max(axis=0).tolist() == [1, 8, 7]


def test_quiet_leaves_stdout_empty(run: CommandLine, image: Path, tmp_path: Path) -> None:
    ran = run("segment", image, "-o", tmp_path / "o.nrrd", "--model", "slices", "--quiet")
    assert (ran.status, ran.out) == (0, "")
    assert "segmenting" not in ran.err


# ------------------------------------------------------------------ batches


def test_a_folder_becomes_a_folder_and_one_bad_case_is_skipped(run: CommandLine, tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "a.nii.gz", noise(seed=1))
    write_image(tmp_path / "in" / "constant.nii.gz", np.ones((3, 4, 5), np.float32))
    (tmp_path / "in" / "broken.nrrd").write_bytes(b"NRRD0005\nnonsense")
    write_picture(tmp_path / "in" / "photo.jpg")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    write_image(tmp_path / "in" / "a.seg.nrrd", np.zeros((3, 12, 10), np.uint8))
    ran = run("segment", tmp_path / "in", "-o", tmp_path / "out", "--model", "slices", "--json")
    assert ran.status == 1
    assert files_in(tmp_path / "out") == ["a.nii.gz", "photo.png"]
    errors = {Path(case["input"]).name for case in ran.json["cases"] if "error" in case}
    assert errors == {"constant.nii.gz", "broken.nrrd"}
    assert (ran.json["succeeded"], ran.json["failed"]) == (2, 2)
    assert "constant.nii.gz" in ran.err and "broken.nrrd" in ran.err


def test_a_batch_without_failures_exits_with_0(run: CommandLine, image: Path, tmp_path: Path) -> None:
    other = write_image(tmp_path / "other.nrrd", noise(seed=1))
    ran = run("segment", image, other, "-o", tmp_path / "out", "--model", "slices", "--format", "seg.nrrd")
    assert ran.status == 0
    assert files_in(tmp_path / "out") == ["brain.seg.nrrd", "other.seg.nrrd"]
    assert "2 of 2 segmented" in ran.out


def test_a_missing_file_among_several_costs_only_itself(run: CommandLine, image: Path, tmp_path: Path) -> None:
    ran = run("segment", tmp_path / "none.nii.gz", image, "-o", tmp_path / "out", "--model", "slices")
    assert ran.status == 1
    assert files_in(tmp_path / "out") == ["brain.nii.gz"]


def test_an_unexpected_error_in_one_case_costs_only_that_case(
    run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apformer.inference import Segmenter

    original = Segmenter.segment

    def fragile(self: Segmenter, volume: Any, **settings: Any) -> Any:
        if volume.source.path.name == "a.nii.gz":
            raise RuntimeError("an accident")
        return original(self, volume, **settings)

    monkeypatch.setattr(Segmenter, "segment", fragile)
    for name in ("a.nii.gz", "b.nii.gz"):
        write_image(tmp_path / "in" / name, noise())
    ran = run("segment", tmp_path / "in", "-o", tmp_path / "out", "--model", "slices")
    assert ran.status == 1
    assert files_in(tmp_path / "out") == ["b.nii.gz"]
    assert "an accident" in ran.err and "Traceback" not in ran.err


def test_inputs_that_share_a_name_keep_their_own_results(run: CommandLine, tmp_path: Path) -> None:
    for name in ("x/a.nii.gz", "x/a.nrrd", "y/a.nii.gz", "y/b.mha"):
        write_image(tmp_path / name, noise())
    inputs = [tmp_path / name for name in ("x/a.nii.gz", "x/a.nrrd", "y/a.nii.gz", "y/b.mha")]
    ran = run("segment", *inputs, "-o", tmp_path / "out", "--model", "slices")
    assert ran.status == 0
    assert files_in(tmp_path / "out") == ["a_nrrd.nii.gz", "b.nii.gz", "x_a_nii_gz.nii.gz", "y_a_nii_gz.nii.gz"]


def test_stems_differ_even_where_case_does_not_count(tmp_path: Path) -> None:
    names = ["1/2/A.nii", "3/2/a.nii", "5/2/A.nii"]
    cases, batch = find_cases([tmp_path / name for name in names])
    assert batch
    assert [case.stem for case in cases] == ["2_A_nii", "2_a_nii_2", "2_A_nii_3"]


def test_uncertainty_of_a_batch_goes_beside_the_labels(run: CommandLine, tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        write_image(tmp_path / "in" / name, noise())
    out = tmp_path / "out"
    run("segment", tmp_path / "in", "-o", out, "--model", "slices", "--uncertainty", out)
    assert files_in(out) == ["a.nii.gz", "a_uncertainty.nii.gz", "b.nii.gz", "b_uncertainty.nii.gz"]


def test_kept_tokens_of_a_batch_go_beside_the_labels_too(run: CommandLine, image: Path, tmp_path: Path) -> None:
    picture, out = write_picture(tmp_path / "in" / "photo.jpg"), tmp_path / "out"
    ran = run("segment", image, picture, "-o", out, "--model", "slices", "--kept-tokens", out / "maps")
    assert ran.status == 0
    names = ["brain.nii.gz", "maps/brain_kept_tokens.nii.gz", "maps/photo_kept_tokens.png", "photo.png"]
    assert files_in(out) == names


@pytest.mark.parametrize("option", ["--uncertainty", "--kept-tokens"])
@pytest.mark.parametrize(
    ("place", "remark"),
    [("o.nrrd", "another result"), ("in/brain.nii.gz", "an input"), ("k.seg.nrrd", "no format"), ("k.png", "3 slices")],
)
def test_a_map_that_cannot_be_written_is_told_before_computing(
    run: CommandLine,
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    place: str,
    remark: str,
) -> None:
    monkeypatch.setattr("apformer.inference.Segmenter.segment", _never)
    out = tmp_path / "o.nrrd"
    ran = run("segment", image, "-o", out, "--model", "slices", option, tmp_path / place, "--json")
    assert ran.status != 0 and remark in ran.json["error"]["what"]
    assert not out.exists()


def test_a_picture_becomes_a_png_with_label_values(run: CommandLine, tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "photo.jpg")
    ran = run("segment", picture, "-o", tmp_path / "out", "--model", "slices", "--json")
    assert ran.status == 0
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "photo.png")))
    assert labels.shape == (14, 18) and set(np.unique(labels)) <= {0, 1, 2}


# ------------------------------------------------------------------ DICOM


def test_a_folder_with_one_series_is_one_volume(run: CommandLine, tmp_path: Path) -> None:
    folder = write_dicom(tmp_path / "patient", "1.2.3")
    ran = run("segment", folder, "-o", tmp_path / "o.nii.gz", "--model", "slices", "--json")
    assert ran.status == 0
    assert read_volume(tmp_path / "o.nii.gz").spatial_shape == (3, 12, 10)
    assert any("CT" in warning for warning in ran.json["cases"][0]["warnings"])  # the model was trained on MR


def test_a_folder_of_series_folders_is_a_batch(run: CommandLine, tmp_path: Path) -> None:
    write_dicom(tmp_path / "in" / "p1" / "series", "1.2.3")
    write_dicom(tmp_path / "in" / "p2" / "series", "1.2.4")
    write_dicom(tmp_path / "in" / "p3", "1.2.5")
    ran = run("segment", tmp_path / "in", "-o", tmp_path / "out", "--model", "slices")
    assert ran.status == 0
    assert files_in(tmp_path / "out") == ["p1_series.nii.gz", "p2_series.nii.gz", "p3.nii.gz"]


def test_several_series_in_one_folder_are_listed_and_chosen_by_uid(run: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "patient"
    write_dicom(folder, "1.2.3")
    write_dicom(folder / "more", "1.2.4", slices=4)
    refused = run("segment", folder, "-o", tmp_path / "o.nrrd", "--model", "slices")
    assert refused.status == 1 and "1.2.3" in refused.err and "1.2.4" in refused.err
    chosen = run("segment", folder, "-o", tmp_path / "o.nrrd", "--model", "slices", "--series", "1.2.4")
    assert chosen.status == 0
    assert read_volume(tmp_path / "o.nrrd").spatial_shape[0] == 4


def test_a_slice_that_is_skipped_and_one_volume_of_several_are_segmented(run: CommandLine, tmp_path: Path) -> None:
    folder = write_dicom(tmp_path / "patient", "1.2.3", slices=6)
    extra = dcmread(folder / "slice2.dcm")
    extra.PixelData = bytes(len(extra.PixelData))
    extra.save_as(folder / "wrong.dcm")
    refused = run("segment", folder, "-o", tmp_path / "o.nrrd", "--model", "slices")
    assert refused.status == 1 and "slice2.dcm with wrong.dcm" in refused.err and "--skip FILE" in refused.err
    skipped = run("segment", folder, "-o", tmp_path / "o.nrrd", "--model", "slices", "--skip", "wrong.dcm")
    assert skipped.status == 0
    assert read_volume(tmp_path / "o.nrrd").spatial_shape[0] == 6
    for k in range(6):
        again = dcmread(folder / f"slice{k}.dcm")
        again.AcquisitionNumber, again.PixelData = 2, bytes(len(again.PixelData) - 2) + b"\1\0"
        again.save_as(folder / f"again{k}.dcm")
    chosen = run(
        "segment", folder, "-o", tmp_path / "o.nrrd", "--model", "slices", "--skip", "wr*.dcm", "--series", "1.2.3#1"
    )
    assert chosen.status == 0
    assert read_volume(tmp_path / "o.nrrd").spatial_shape[0] == 6


# ------------------------------------------------------------------ failures


def _never(*_: object, **__: object) -> None:
    raise AssertionError("the model was loaded although the output cannot be written")


@pytest.mark.parametrize("place", ["file.txt/o.nii.gz", "folder.nii.gz", "in/brain.nii.gz"])
def test_an_output_that_cannot_be_written_is_told_before_any_work(
    run: CommandLine, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "folder.nii.gz" / "brain.nii.gz").mkdir(parents=True)
    monkeypatch.setattr("apformer.bundles.ModelLibrary.find", _never)
    before = image.read_bytes()
    ran = run("segment", image, "-o", tmp_path / place, "--model", "slices", "--json")
    assert ran.status == 1
    assert set(ran.json) == {"error"}
    assert image.read_bytes() == before


@pytest.mark.parametrize(("name", "remark"), [("o.dcm", "DICOM"), ("o.png", "3 slices")])
def test_a_format_that_cannot_hold_the_result_is_told_before_computing(
    run: CommandLine, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, remark: str
) -> None:
    monkeypatch.setattr("apformer.inference.Segmenter.segment", _never)
    ran = run("segment", image, "-o", tmp_path / name, "--model", "slices", "--json")
    assert ran.status == 1
    assert remark in ran.json["error"]["what"]


def test_a_disk_that_fills_up_leaves_nothing_half_written(
    run: CommandLine, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("apformer.files.atomic._flush", full)
    ran = run("segment", image, "-o", tmp_path / "out" / "o.nrrd", "--model", "slices", "--json")
    assert ran.status == 1
    assert "No space left" in ran.json["error"]["what"]
    assert files_in(tmp_path / "out") == []


def test_ctrl_c_while_writing_leaves_nothing_half_written(
    run: CommandLine, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("apformer.files.atomic._flush", interrupt)
    ran = run("segment", image, "-o", tmp_path / "out" / "o.nrrd", "--model", "slices")
    assert ran.status == 130
    assert files_in(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("words", "remark"),
    [
        (["--model", "no-such-model"], "no-such-model"),
        (["--model", "slices", "--device", "cuda:99"], "cuda:99"),
        (["--model", "slices", "--roi", "0:99,0:2,0:1"], "outside"),
        (["--model", "slices", "--roi", "500,600,500,600,500,600"], "outside"),
        (["--model", "slices", "--roi", "4:4,0:2,0:1"], "empty"),
    ],
    ids=["model missing", "device absent", "voxels outside", "millimetres outside", "empty region"],
)
def test_what_cannot_be_done_exits_with_1_and_writes_nothing(
    run: CommandLine, image: Path, tmp_path: Path, words: list[str], remark: str
) -> None:
    ran = run("segment", image, "-o", tmp_path / "out" / "o.nrrd", *words, "--json")
    assert ran.status == 1
    assert remark in ran.json["error"]["what"]
    assert not (tmp_path / "out").exists()


def test_a_missing_or_empty_input_is_named(run: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("none.nii.gz", "empty"):
        ran = run("segment", tmp_path / name, "-o", tmp_path / "o.nrrd", "--model", "slices", "--json")
        assert ran.status == 1
        assert name in ran.json["error"]["what"]

"""A model saved is the model loaded; saving is all or nothing."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from apformer.bundles import Code, Label, Preprocessing, load_bundle, swap
from apformer.errors import BundleError, OutputError
from bundle_samples import (
    ARGUMENTS,
    LABELS,
    METADATA,
    NETWORK,
    PREPROCESSING,
    WEIGHTS,
    sample_network,
    save_sample,
)

PNG = b"\x89PNG\r\n\x1a\n rest of a picture"
# "required" of MONAI's meta_schema_20240725.json
MONAI_REQUIRED = [
    "schema",
    "version",
    "monai_version",
    "pytorch_version",
    "numpy_version",
    "required_packages_version",
    "task",
    "description",
    "authors",
    "copyright",
    "network_data_format",
]


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_a_saved_model_loads_with_everything_it_was_given(tmp_path: Path):
    save_sample(tmp_path / "m", parent_version="hippocampus-test 0.9.0")
    bundle = load_bundle(tmp_path / "m")
    assert (bundle.name, bundle.version, bundle.modality, bundle.channels) == ("hippocampus-test", "1.0.0", "MR", 1)
    assert bundle.labels == LABELS
    assert bundle.preprocessing == PREPROCESSING
    assert (bundle.network_name, bundle.network_arguments) == ("apformer", ARGUMENTS)
    assert bundle.metadata["metrics"] == {"cases": ["case-1"], "mean_dice": 0.5}
    assert bundle.metadata["parent_version"] == "hippocampus-test 0.9.0"
    assert bundle.card == "# A test model\n"


def test_the_loaded_network_predicts_as_the_saved_one_to_half_precision(tmp_path: Path):
    network = sample_network()
    loaded = save_sample(tmp_path / "m", state_dict=network.state_dict()).build_network()
    image = torch.linspace(0, 1, 8 * 8 * 8).reshape(1, 1, 8, 8, 8)
    with torch.no_grad():
        assert torch.allclose(loaded(image), network(image), atol=1e-2)
    assert not loaded.training
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_loading_a_network_leaves_the_random_state_alone(tmp_path: Path):
    bundle = save_sample(tmp_path / "m")
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    bundle.build_network()
    assert torch.equal(torch.rand(2), expected)


def test_weights_are_stored_in_half_precision_and_counters_as_integers(tmp_path: Path):
    from safetensors import safe_open

    save_sample(tmp_path / "m")
    with safe_open(tmp_path / "m" / WEIGHTS, framework="np") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert kinds == {"F16", "I64"}


def test_a_value_beyond_half_precision_is_kept_exactly(tmp_path: Path):
    state = sample_network().state_dict()
    name = next(name for name in state if name.endswith("running_var"))
    state[name] = torch.full_like(state[name], 1e6)
    loaded = save_sample(tmp_path / "m", state_dict=state).build_network()
    assert torch.equal(loaded.state_dict()[name], state[name])


def test_metadata_has_the_fields_that_monai_requires(tmp_path: Path):
    metadata = save_sample(tmp_path / "m").metadata
    assert set(MONAI_REQUIRED) <= set(metadata)
    inputs, outputs = (metadata["network_data_format"][key] for key in ("inputs", "outputs"))
    assert inputs["image"]["num_channels"] == 1
    assert outputs["pred"]["channel_def"] == {"0": "background", "1": "anterior", "2": "posterior"}
    for tensor in (inputs["image"], outputs["pred"]):
        assert {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range"} <= set(tensor)


def test_a_2d_rgb_model_fits_the_format_too(tmp_path: Path):
    arguments = ARGUMENTS | {"spatial_dims": 2, "in_channels": 3, "out_channels": 2, "image_size": [16, 16]}
    from apformer.networks import build_network

    bundle = save_sample(
        tmp_path / "m",
        modality="RGB",
        channels=3,
        labels=LABELS[:1],
        preprocessing=Preprocessing(2, "acquired", None, (16, 16), {"kind": "window", "lower": 0.0, "upper": 255.0}),
        network_arguments=arguments,
        state_dict=build_network("apformer", arguments).state_dict(),
    )
    assert bundle.build_network()(torch.zeros(1, 3, 16, 16)).shape == (1, 2, 16, 16)


def test_pictures_are_kept_beside_the_card_and_in_the_checksums(tmp_path: Path):
    (tmp_path / "x.png").write_bytes(PNG)
    save_sample(tmp_path / "m", pictures={"overlay.png": tmp_path / "x.png"})
    assert (tmp_path / "m/docs/overlay.png").read_bytes() == PNG
    assert "docs/overlay.png" in (tmp_path / "m/SHA256SUMS").read_text()


def test_a_picture_that_is_missing_or_no_png_is_refused(tmp_path: Path):
    (tmp_path / "x.png").write_bytes(b"GIF89a")
    with pytest.raises(BundleError, match="not a PNG"):
        save_sample(tmp_path / "m", pictures={"overlay.png": tmp_path / "x.png"})
    with pytest.raises(OutputError, match="cannot be read"):
        save_sample(tmp_path / "m", pictures={"overlay.png": tmp_path / "absent.png"})
    with pytest.raises(BundleError, match="may contain"):
        (tmp_path / "x.png").write_bytes(PNG)
        save_sample(tmp_path / "m", pictures={"../../out.png": tmp_path / "x.png"})
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


def test_numpy_numbers_in_the_metrics_are_saved_as_numbers(tmp_path: Path):
    bundle = save_sample(tmp_path / "m", metrics={"dice": np.float32(0.5), "counts": np.arange(3)})
    assert bundle.metadata["metrics"] == {"dice": 0.5, "counts": [0, 1, 2]}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "../liver"}, "name of a model"),
        ({"name": "a/b"}, "name of a model"),
        ({"name": "con"}, "name of a model"),
        ({"version": "one"}, "version such as"),
        ({"modality": "PET"}, "modality"),
        ({"modality": "RGB"}, "3 channels"),
        ({"channels": 2}, "in_channels = 1"),
        ({"labels": LABELS[:1]}, "out_channels = 3"),
        ({"labels": ()}, "no labels"),
        ({"labels": (LABELS[0], LABELS[0])}, "share the value"),
        ({"metrics": {"dice": float("nan")}}, "JSON"),
        ({"network_name": "unet"}, "not registered"),
        ({"network_arguments": ARGUMENTS | {"depth": 2}}, "missing"),
        ({"network_arguments": ARGUMENTS | {"depth": "many"}}, "do not fit"),
        ({"description": " "}, "not blank"),
        ({"data_licence": ""}, "not blank"),
    ],
)
def test_a_model_whose_parts_do_not_fit_is_not_saved(tmp_path: Path, changes: dict, reason: str):
    with pytest.raises(BundleError, match=reason):
        save_sample(tmp_path / "m", **changes)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path):
    state = sample_network().state_dict()
    state["head.bias"][0] = float("nan")
    with pytest.raises(BundleError, match=r"head\.bias.*not finite"):
        save_sample(tmp_path / "m", state_dict=state)


def test_saving_again_replaces_the_model_and_leaves_nothing_behind(tmp_path: Path):
    first = save_sample(tmp_path / "m")
    second = save_sample(tmp_path / "m", version="1.1.0")
    assert load_bundle(tmp_path / "m").version == "1.1.0"
    assert second.checksum != first.checksum
    assert leftovers(tmp_path) == []


def test_a_failed_save_keeps_the_old_model(tmp_path: Path):
    save_sample(tmp_path / "m")
    with pytest.raises(BundleError):
        save_sample(tmp_path / "m", version="2.0.0", network_name="unet")
    assert load_bundle(tmp_path / "m").version == "1.0.0"
    assert leftovers(tmp_path) == []


def test_a_rename_that_fails_puts_the_old_model_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_sample(tmp_path / "m")
    rename = os.rename

    def failing(source: Path, target: Path) -> None:
        if ".new-" in str(source):
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(swap.os, "rename", failing)
    with pytest.raises(OutputError, match="could not be written"):
        save_sample(tmp_path / "m", version="2.0.0")
    assert load_bundle(tmp_path / "m").version == "1.0.0"
    assert leftovers(tmp_path) == []


def test_a_full_disk_keeps_the_old_model_and_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_sample(tmp_path / "m")

    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match="No space left"):
            save_sample(tmp_path / "m", version="2.0.0")
    assert load_bundle(tmp_path / "m").version == "1.0.0"
    assert leftovers(tmp_path) == []


def test_a_crash_between_the_two_renames_is_undone_by_the_next_save(tmp_path: Path):
    save_sample(tmp_path / "m")
    (tmp_path / "m").rename(tmp_path / ".m.old-abc")
    swap.recover(tmp_path / "m")
    assert load_bundle(tmp_path / "m").version == "1.0.0"
    assert leftovers(tmp_path) == []


def test_a_folder_that_is_not_a_model_is_never_replaced(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="not a model"):
        save_sample(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_saving_where_a_file_is_in_the_way_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="could not be written"):
        save_sample(tmp_path / "file" / "m")


def test_network_json_is_data_only(tmp_path: Path):
    save_sample(tmp_path / "m")
    assert json.loads((tmp_path / "m" / NETWORK).read_text()) == {"name": "apformer", "arguments": ARGUMENTS}
    assert json.loads((tmp_path / "m" / METADATA).read_text())["format_version"] == 1


def valid_preprocessing(**changes: object) -> Preprocessing:
    return Preprocessing.from_dict(PREPROCESSING.as_dict() | changes)


def test_preprocessing_survives_json():
    assert Preprocessing.from_dict(json.loads(json.dumps(PREPROCESSING.as_dict()))) == PREPROCESSING


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"spatial_dims": 4}, "spatial_dims"),
        ({"spatial_dims": True}, "spatial_dims"),
        ({"orientation": "LPX"}, "orientation"),
        ({"orientation": "LRS"}, "orientation"),
        ({"orientation": "acquired"}, "orientation"),  # only slices can be acquired
        ({"orientation": 3}, "orientation"),
        ({"spacing_mm": [1.0, 1.0]}, "spacing_mm"),
        ({"spacing_mm": [1.0, 0.0, 1.0]}, "above 0"),
        ({"spacing_mm": [1.0, float("nan"), 1.0]}, "spacing_mm"),
        ({"patch_size": [16, 16]}, "patch_size"),
        ({"patch_size": [16, 16, 0]}, "patch_size"),
        ({"patch_size": [16, 16, 1e9]}, "patch_size"),
        ({"intensity": {"kind": "magic", "lower": 0, "upper": 1}}, "kind"),
        ({"intensity": {"kind": "window", "lower": 5, "upper": 5}}, "below"),
        ({"intensity": {"kind": "percentile", "lower": 0, "upper": 101}}, "upper"),
        ({"intensity": None}, "object"),
        ({"overlap": 1.0}, "overlap"),
        ({"largest_component": 1}, "largest_component"),
        ({"minimum_volume_ml": -1}, "minimum_volume_ml"),
        ({"field_of_view_mm": [10]}, "field_of_view_mm"),
        ({"contrast": 2}, "unknown fields: contrast"),
    ],
)
def test_preprocessing_out_of_range_is_refused(changes: dict, reason: str):
    with pytest.raises(BundleError, match=reason):
        valid_preprocessing(**changes)


@pytest.mark.parametrize(
    "make",
    [
        lambda code: Label(0, "background", (0, 0, 0), code, code),
        lambda code: Label(256, "x", (0, 0, 0), code, code),
        lambda code: Label(1, "", (0, 0, 0), code, code),
        lambda code: Label(1, "two\nlines", (0, 0, 0), code, code),
        lambda code: Label(1, "x", (0, 0, 300), code, code),
        lambda code: Label(1, "x", [0, 0, 0], code, code),
        lambda code: Label(1, "x", (0, 0, 0), code, "liver"),
        lambda code: Label(1, "x", (0, 0, 0), code, code, "left"),
        lambda code: Code("SCT", "", "Liver"),
        lambda code: Code("SCT", "10200004", "Liver~SCT^1^2"),
    ],
)
def test_labels_and_codes_that_viewers_cannot_show_are_refused(make):
    with pytest.raises(BundleError):
        make(Code("SCT", "10200004", "Liver"))

"""Damaged, altered and hostile models are refused with a reason, and nothing in them is ever run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from apformer.bundles import load_bundle
from apformer.bundles.fields import parse_json
from apformer.errors import BundleError
from bundle_samples import METADATA, NETWORK, WEIGHTS, edit_json, reseal, save_sample


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sample(tmp_path_factory.mktemp("sound") / "m").directory


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A copy of a sound model, to be spoilt."""
    return Path(shutil.copytree(sound, tmp_path / "m"))


def refuse(folder: Path, reason: str) -> BundleError:
    with pytest.raises(BundleError, match=reason) as caught:
        load_bundle(folder)
    assert all(caught.value.as_dict().values())  # what, meaning and remedy are all said
    return caught.value


def edit_weights(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    tensors = safetensors.numpy.load_file(folder / WEIGHTS)
    change(tensors)
    (folder / WEIGHTS).write_bytes(safetensors.numpy.save(tensors))
    reseal(folder)


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path):
    refuse(tmp_path / "absent", "no model at")


@pytest.mark.parametrize("path", [METADATA, NETWORK, WEIGHTS, "docs/README.md", "SHA256SUMS"])
def test_a_missing_file_is_named(folder: Path, path: str):
    (folder / path).unlink()
    refuse(folder, f"lacks the file {path}")


@pytest.mark.parametrize("path", [METADATA, NETWORK, WEIGHTS, "docs/README.md"])
def test_one_altered_byte_is_noticed(folder: Path, path: str):
    content = bytearray((folder / path).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / path).write_bytes(content)
    refuse(folder, f"{path} .* differs from its checksum")


def test_weights_altered_after_loading_are_noticed(folder: Path):
    bundle = load_bundle(folder)
    edit_weights(folder, lambda tensors: tensors["head.bias"].fill(1))
    with pytest.raises(BundleError, match="changed after it was loaded"):
        bundle.build_network()


def test_truncated_weights_are_refused_even_with_a_matching_checksum(folder: Path):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-10])
    reseal(folder)
    refuse(folder, "not a complete safetensors")


@pytest.mark.parametrize("content", [b"", b"{}", struct.pack("<Q", 1 << 40) + b"{}", pickle.dumps({"a": 1})])
def test_weights_that_are_not_safetensors_are_refused(folder: Path, content: bytes):
    (folder / WEIGHTS).write_bytes(content)
    reseal(folder)
    refuse(folder, "not a complete safetensors")


def test_a_pickle_is_never_run(folder: Path, tmp_path: Path):
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (os.mkdir, (str(tmp_path / "sprung"),))

    (folder / WEIGHTS).write_bytes(pickle.dumps(Trap()))
    reseal(folder)
    refuse(folder, "not a complete safetensors")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensors: tensors.pop("head.bias"), "lack 'head.bias'"),
        (lambda tensors: tensors.update(surplus=np.zeros(1, np.float16)), "unknown entry 'surplus'"),
        (lambda tensors: tensors.update({"head.bias": np.zeros(9, np.float16)}), r"head\.bias' is \[9\]"),
        (lambda tensors: tensors.update({"head.bias": np.zeros(3, np.int64)}), r"head\.bias.*int64"),
        (lambda tensors: tensors.update({"head.bias": np.zeros(3, np.float64)}), "unsupported number type"),
        (lambda tensors: tensors["head.bias"].fill(np.nan), r"head\.bias.*not finite"),
        (lambda tensors: tensors["head.bias"].fill(np.inf), r"head\.bias.*not finite"),
    ],
)
def test_weights_that_are_not_the_networks_are_refused(folder: Path, change: Callable, reason: str):
    edit_weights(folder, change)
    refuse(folder, reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda network: network.update(name="os.system"), "not registered"),
        (lambda network: network.update(name=["apformer"]), "must be a text"),
        (lambda network: network.update(_target_="os.system"), "unknown fields"),
        (lambda network: network.update(arguments=None), "must be an object"),
        (lambda network: network["arguments"].update(exec="print()"), "do not fit"),
        (lambda network: network["arguments"].update(depth=4096.5), "do not fit"),
        (lambda network: network["arguments"].update(channels=None), "do not fit|cannot be built"),
        (lambda network: network["arguments"].update(heads=1 << 40), "out of range"),
        (lambda network: network["arguments"].update(channels=[1] * 5000), "too long"),
        (lambda network: network["arguments"].update(channels=[[[[[[[[]]]]]]]]), "nested"),
        (lambda network: network["arguments"].update(out_channels=9), "out_channels"),
        # would need terabytes: refused by shape before any memory is taken
        (lambda network: network["arguments"].update(image_size=[1024] * 3, strides=[1, 1, 1]), r"is \[\d+"),
    ],
)
def test_network_descriptions_beyond_the_registry_are_refused(folder: Path, change: Callable, reason: str):
    edit_json(folder, NETWORK, change)
    refuse(folder, reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data.pop("labels"), "lacks 'labels'"),
        (lambda data: data.update(labels={}), "must be a list"),
        (lambda data: data.update(labels=[1]), "must be an object"),
        (lambda data: data["labels"][0].update(value="1"), "whole number"),
        (lambda data: data["labels"][0].update(value=True), "whole number"),
        (lambda data: data["labels"][0].update(color=[1, 2]), "three numbers"),
        (lambda data: data["labels"][1].update(name="anterior"), "share the name"),
        (lambda data: data["labels"][0].update(name="x\x1b[2J"), "control characters"),
        (lambda data: data["labels"][0]["type"].update(value=3710005), "must be a text"),
        (lambda data: data.update(name="../../etc"), "name of a model"),
        (lambda data: data.update(version=1), "must be a text"),
        (lambda data: data.update(channels=0), "channels"),
        (lambda data: data.update(preprocessing=[]), "must be an object"),
        (lambda data: data["preprocessing"].update(patch_size=[1 << 30] * 3), "patch_size"),
        (lambda data: data.update(description="x" * 30_000), "longer than"),
        (lambda data: data.update(format_version=2), "newer version"),
        (lambda data: data.update(metrics="good"), "must be an object"),
    ],
)
def test_descriptions_of_the_wrong_type_or_range_are_refused(folder: Path, change: Callable, reason: str):
    edit_json(folder, METADATA, change)
    refuse(folder, reason)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not valid JSON"),
        (b"[]", "a list where an object"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": Infinity}', "Infinity"),
        (b'{"a": 1e999}', "out of range"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b"\xff\xfe{}", "not valid JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "not valid JSON"),
        (b'{"a": ' + b"[" * 200_000, "not valid JSON"),
        (b'{"a": "' + b"x" * (1 << 20) + b'"}', "larger than"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_json_that_is_not_a_plain_object_is_refused(content: bytes, reason: str):
    with pytest.raises(BundleError, match=reason):
        parse_json(content, "metadata.json")


def test_a_huge_description_is_refused_without_being_parsed(folder: Path):
    with open(folder / METADATA, "r+b") as file:
        file.truncate(1 << 32)  # sparse: takes no disk
    refuse(folder, "larger than")


def test_a_file_that_is_not_in_the_checksums_is_refused(folder: Path):
    (folder / "docs/extra.md").write_text("hello")
    refuse(folder, "docs/extra.md .* not listed")


@pytest.mark.parametrize("path", ["models/model.pt", "configs/inference.py", "run.sh", "docs/a..md", "extra/a.json"])
def test_files_that_no_model_has_are_refused(folder: Path, path: str):
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_text("x")
    refuse(folder, "not a file that a model may contain")


def test_a_folder_within_a_folder_is_refused(folder: Path):
    (folder / "docs/deep.md").mkdir()
    refuse(folder, "docs/deep.md")


def test_what_file_managers_leave_is_passed_over(folder: Path):
    for name in (".DS_Store", "Thumbs.db", "docs/desktop.ini"):
        (folder / name).write_bytes(b"litter")
    assert load_bundle(folder).name == "hippocampus-test"


@pytest.mark.parametrize(
    "line", ["../../outside.json", "/etc/passwd", "docs\\README.md", "docs/../configs/metadata.json", "SHA256SUMS", ""]
)
def test_checksums_of_paths_that_lead_elsewhere_are_refused(folder: Path, line: str):
    with open(folder / "SHA256SUMS", "a", encoding="ascii") as file:
        file.write("0" * 64 + f"  {line}\n")
    refuse(folder, "may contain|SHA256SUMS has a line")


def test_a_repeated_checksum_is_refused(folder: Path):
    sums = (folder / "SHA256SUMS").read_text()
    (folder / "SHA256SUMS").write_text(sums + sums.splitlines()[0] + "\n")
    refuse(folder, "SHA256SUMS has a line")


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
@pytest.mark.parametrize("path", ["docs/README.md", "docs"])
def test_links_in_a_model_are_refused(folder: Path, tmp_path: Path, path: str):
    (folder / path).rename(tmp_path / "elsewhere")
    (folder / path).symlink_to(tmp_path / "elsewhere")
    refuse(folder, "is a link")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_place_of_a_file_is_refused_instead_of_waited_for(folder: Path):
    (folder / "docs/README.md").unlink()
    os.mkfifo(folder / "docs/README.md")
    refuse(folder, "neither a file nor a folder")


def test_thousands_of_files_are_refused(folder: Path):
    for number in range(70):
        (folder / f"docs/{number}.md").write_text("")
    refuse(folder, "more than 64 files")


def test_a_description_in_utf8_keeps_its_letters(folder: Path):
    edit_json(folder, METADATA, lambda data: data.update(description="Foie — Leber — 肝"))
    assert load_bundle(folder).description == "Foie — Leber — 肝"
    assert json.loads((folder / METADATA).read_text(encoding="utf-8"))["description"].endswith("肝")

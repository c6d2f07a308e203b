"""The index is read strictly: damaged, newer or hostile ones are errors in words, and lead nowhere outside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apformer.datasets import SiteDataset
from apformer.errors import ConfigError
from dataset_samples import a_dataset, add_case

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return a_dataset(tmp_path / "data", patients=1).root


def edit(root: Path, change: Change) -> None:
    data = json.loads((root / "index.json").read_text())
    change(data)
    (root / "index.json").write_text(json.dumps(data))


def test_an_index_comes_back_as_it_was_written(root: Path) -> None:
    dataset = SiteDataset.open(root)
    dataset.correct("case-0001", status="flagged", comment="größer als üblich", who="Å")
    assert SiteDataset.open(root).index == dataset.index


def test_a_newer_schema_is_refused_in_plain_words(root: Path) -> None:
    edit(root, lambda data: data.update(schema=3, something="new"))
    with pytest.raises(ConfigError, match="newer version of this program") as caught:
        SiteDataset.open(root)
    assert "Update this program" in caught.value.remedy


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["cases"][0]["image"].update(file="../../../etc/passwd"),
        lambda data: data["cases"][0]["image"].update(file="/etc/passwd"),
        lambda data: data["cases"][0]["image"].update(file="image.nii.gz\n"),
        lambda data: data["cases"][0]["revisions"][0].update(file="..\\labels-1.nrrd"),
        lambda data: data["cases"][0].update(name="../case-0001"),
        lambda data: data["cases"][0].update(number=-1),
        lambda data: data["cases"][0].update(number=10**12),
        lambda data: data["cases"][0].update(patient="Jane Doe"),
        lambda data: data["cases"][0].update(status="done"),
        lambda data: data["cases"][0].update(current=7),
        lambda data: data["cases"][0].update(current=0),
        lambda data: data["cases"][0]["image"].update(shape_kji=[10**6, 10**6, 10**6]),
        lambda data: data["cases"][0]["image"].update(shape_kji=[4, 6]),
        lambda data: data["cases"][0]["image"].update(ijk_to_ras=[0.0] * 16),
        lambda data: data["cases"][0]["revisions"][0]["counts"].update({"300": 1}),
        lambda data: data["cases"][0]["revisions"][0]["counts"].update({"\u0661": 1}),
        lambda data: data["cases"][0]["revisions"][0].update(labelled=[2, 1]),
        lambda data: data["cases"][0]["revisions"][0].update(labelled=[1, 1]),
        lambda data: data["cases"][0]["revisions"][0].update(labelled=[0, 1]),
        lambda data: data["cases"][0]["revisions"][0].update(labelled=[1, 256]),
        lambda data: data["cases"][0]["revisions"][0].update(labelled=[True]),
        lambda data: data["cases"][0]["revisions"][0].update(labelled="1"),
        lambda data: data["cases"][0]["revisions"][0].update(labelled=[1] * 256),
        lambda data: data["cases"][0]["revisions"][0].update(labelled=[2]),  # there are voxels of label 1
        lambda data: data["cases"].append(data["cases"][0]),
        lambda data: data.update(next_number=1),
        lambda data: data.update(removed=[1]),
        lambda data: data.update(salt="short"),
        lambda data: data.update(schema=0),
        lambda data: data.update(schema=True),
        lambda data: data.update(format="other"),
        lambda data: data.update(more=1),
        lambda data: data["labels"].append(data["labels"][0]),
        lambda data: data.update(split={"kind": "holdout", "folds": [["p-0000000000000000"]], "frozen": "now"}),
        lambda data: data.pop("cases"),
    ],
)
def test_a_hostile_or_damaged_index_is_refused_whole(root: Path, change: Change) -> None:
    edit(root, change)
    with pytest.raises(ConfigError, match=r"index\.json cannot be used") as caught:
        SiteDataset.open(root)
    assert "backup" in caught.value.remedy and "model" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 100_000, "\udcff"])
def test_text_that_is_no_index_is_refused(root: Path, text: str) -> None:
    (root / "index.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError, match=r"index\.json cannot be used"):
        SiteDataset.open(root)


def test_a_folder_without_index_and_an_unreadable_index_say_what_to_do(tmp_path: Path, root: Path) -> None:
    with pytest.raises(ConfigError, match="is not a data set") as caught:
        SiteDataset.open(tmp_path / "none")
    assert "dataset init" in caught.value.remedy
    (root / "index.json").unlink()
    (root / "index.json").mkdir()
    with pytest.raises(ConfigError, match="could not be read"):
        SiteDataset.open(root)


def test_an_index_larger_than_any_real_one_is_not_parsed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apformer.datasets.index._LARGEST_BYTES", 100)
    with pytest.raises(ConfigError, match="larger than"):
        SiteDataset.open(root)


def test_a_planted_link_does_not_lead_out_of_the_data_set(tmp_path: Path, root: Path) -> None:
    secret = tmp_path / "secret.nii.gz"
    secret.write_text("kept")
    case = SiteDataset.open(root).case("case-0001")
    case.image_path.unlink()
    (case.folder / case.image.file).symlink_to(secret)
    with pytest.raises(ConfigError, match="outside the data set"):
        _ = case.image_path
    elsewhere = tmp_path / "elsewhere"
    case.folder.rename(elsewhere)
    case.folder.symlink_to(elsewhere, target_is_directory=True)
    SiteDataset.open(root).remove("case-0001")
    assert not case.folder.is_symlink() and secret.read_text() == "kept" and list(elsewhere.iterdir())


def test_listing_reads_the_index_and_no_image(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("an image was read")

    monkeypatch.setattr("apformer.files.read.read_volume", fail)
    monkeypatch.setattr("apformer.datasets.incoming.read_volume", fail)
    monkeypatch.setattr("apformer.datasets.store.read_volume", fail)
    dataset = SiteDataset.open(root)
    assert [case.image.shape_kji for case in dataset.cases()] == [(4, 6, 5)]


def test_a_change_keeps_what_another_program_added_meanwhile(root: Path) -> None:
    first, second = SiteDataset.open(root), SiteDataset.open(root)
    add_case(first, 1)
    add_case(second, 2)
    assert [case.number for case in second.cases()] == [1, 2, 3]

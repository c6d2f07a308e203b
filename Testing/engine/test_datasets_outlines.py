"""A case may outline only some of the structures, or leave voxels open: what it does not tell is unknown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.bundles import ModelLibrary
from apformer.datasets import (
    BLOCKS,
    Problem,
    SiteCase,
    SiteDataset,
    check_dataset,
    export_decathlon,
    import_cases,
    read_decathlon,
    read_pairs,
)
from apformer.datasets.table import make_table, with_label
from apformer.errors import ConfigError
from apformer.files import read_volume, write_labels
from dataset_samples import a_dataset, add_case, an_image, some_labels
from finetune_samples import a_base

TABLE = "Liver,Spleen,Tumor"


def labelled(case: SiteCase) -> tuple[int, ...] | None:
    assert case.revision is not None
    return case.revision.labelled


def problems(dataset: SiteDataset, *args: Any, **settings: Any) -> dict[str, Problem]:
    return {problem.kind: problem for problem in check_dataset(dataset, *args, read_files=False, **settings)}


# ---------------------------------------------------------------- kept with each version of the labels


def test_a_case_keeps_which_structures_were_outlined_besides_those_that_occur(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", labels=TABLE)
    add_case(dataset, 1, outlined=["tumor"])
    add_case(dataset, 2, outlined=[])
    add_case(dataset, 3)
    add_case(dataset, 4, outlined=["Spleen", "Tumor"])
    again = SiteDataset.open(dataset.root)
    assert [labelled(case) for case in again.cases()] == [(1, 3), (1,), None, None]
    assert again.index == dataset.index


def test_a_structure_that_the_table_does_not_have_was_outlined_by_nobody(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", labels="Left kidney")
    with pytest.raises(ConfigError, match="no 'left_kidney'") as caught:
        add_case(dataset, 1, outlined=["left_kidney"])
    assert "Left kidney" in caught.value.remedy and dataset.cases() == []


def test_a_correction_keeps_what_was_outlined_and_adds_what_now_occurs(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", labels=TABLE)
    case = add_case(dataset, 1, outlined=[])
    case = dataset.correct(case.name, some_labels(an_image(1), value=2))
    assert labelled(case) == (1, 2)
    assert labelled(dataset.correct(case.name, some_labels(an_image(1), value=3))) is None


def test_what_was_outlined_is_corrected_alone_and_restored_with_its_version(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", labels=TABLE)
    case = add_case(dataset, 1, outlined=[])
    case = dataset.correct(case.name, outlined=["Spleen"], who="Ann")
    assert labelled(case) == (1, 2) and case.current == 2 and case.history[-1].what == "corrected"
    assert np.array_equal(*(read_volume(case.revision_path(each)).array for each in case.revisions))
    assert dataset.correct(case.name, outlined=["Spleen"]).current == 2  # nothing new was said
    case = dataset.correct(case.name, restore=1)
    assert labelled(case) == (1,)
    with pytest.raises(ConfigError, match="restored with what was outlined"):
        dataset.correct(case.name, restore=2, outlined=["Tumor"])


def test_what_was_outlined_in_no_labels_cannot_be_said(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", labels=TABLE)
    case, _ = dataset.add(an_image(1), patient="one")
    with pytest.raises(ConfigError, match="has no labels"):
        dataset.correct(case.name, outlined=["Liver"])


# ---------------------------------------------------------------- the index


def test_an_index_without_unknowns_is_written_as_before_there_were_any(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", patients=1, labels=TABLE)
    before = json.loads((dataset.root / "index.json").read_text())
    assert before["schema"] == 1 and "labelled" not in before["cases"][0]["revisions"][0]
    add_case(dataset, 2, outlined=[])
    after = json.loads((dataset.root / "index.json").read_text())
    assert after["schema"] == 2 and after["cases"][1]["revisions"][0]["labelled"] == [1]
    dataset.remove("case-0002")
    assert json.loads((dataset.root / "index.json").read_text())["schema"] == 1


def test_an_index_with_unknown_voxels_is_refused_by_older_programs(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", labels=TABLE)
    dataset.add(an_image(1), some_labels(an_image(1), value=9), patient="one", mapping={"9": "ignore"})
    assert json.loads((dataset.root / "index.json").read_text())["schema"] == 2


def test_a_label_that_had_the_value_of_unknown_voxels_before_stays_one(tmp_path: Path) -> None:
    labels = make_table(["Liver"])
    dataset = SiteDataset.create(tmp_path / "data", [replace(labels[0], value=255)])
    dataset.add(an_image(1), some_labels(an_image(1), value=255), patient="one")
    assert json.loads((dataset.root / "index.json").read_text())["schema"] == 1
    assert "empty masks" not in problems(dataset)


def test_no_new_label_can_stand_for_unknown_voxels() -> None:
    for value, name in ((255, "Liver"), (None, "Ignore")):
        with pytest.raises(ConfigError, match="cannot be label"):
            with_label((), name, value)


# ---------------------------------------------------------------- imports and exports


def a_source(folder: Path, names: dict[str, str], entries: list[dict[str, Any]], value: int = 1) -> Path:
    """A Decathlon folder; the label map of each case has a block of `value`."""
    listed = []
    for seed, entry in enumerate(entries):
        image = an_image(seed)
        for kind, volume in (("imagesTr", image), ("labelsTr", some_labels(image, value=value))):
            write_labels(folder / kind / f"{seed}.nii.gz", volume, (), reference=volume)
        listed.append({"image": f"imagesTr/{seed}.nii.gz", "label": f"labelsTr/{seed}.nii.gz", **entry})
    (folder / "dataset.json").write_text(json.dumps({"labels": {"0": "background", **names}, "training": listed}))
    return folder


def test_a_decathlon_entry_says_which_of_its_values_were_outlined(tmp_path: Path) -> None:
    names = {"1": "Spleen", "2": "Tumor", "3": "Liver"}
    folder = a_source(tmp_path / "source", names, [{"labelled": [1, 3]}, {"labelled": []}, {}, {"labelled": [1, 2, 3]}])
    dataset = a_dataset(tmp_path / "data", labels=TABLE)
    report = import_cases(dataset, read_decathlon(folder))
    assert report.failed == {} and [labelled(case) for case in dataset.cases()] == [(1, 2), (2,), None, None]
    assert import_cases(dataset, read_decathlon(folder)).unchanged == report.added


@pytest.mark.parametrize("wrong", ["1", [-1], [70000], [1.5], [[1]], {"1": 1}])
def test_a_list_of_outlined_values_that_is_none_is_refused(tmp_path: Path, wrong: object) -> None:
    folder = a_source(tmp_path / "source", {"1": "Liver"}, [{"labelled": wrong}])
    with pytest.raises(ConfigError, match=r"dataset\.json cannot be used"):
        read_decathlon(folder)


def test_a_set_that_does_not_know_a_structure_did_not_outline_it(tmp_path: Path) -> None:
    folder = a_source(tmp_path / "source", {"1": "Liver"}, [{}])
    dataset = a_dataset(tmp_path / "data", labels=TABLE)
    report = import_cases(dataset, read_decathlon(folder))
    assert labelled(dataset.case("case-0001")) == (1,)
    assert "does not tell of Spleen, Tumor: taken as not outlined" in report.notes[-1]
    other = a_dataset(tmp_path / "other", labels=TABLE)
    import_cases(other, read_decathlon(folder), outlined=["Liver", "Spleen"])
    assert labelled(other.case("case-0001")) == (1, 2)
    with pytest.raises(ConfigError, match="no 'Kidney'"):
        import_cases(a_dataset(tmp_path / "third", labels=TABLE), read_decathlon(folder), outlined=["Kidney"])


def test_a_second_import_corrects_what_was_outlined(tmp_path: Path) -> None:
    folder = a_source(tmp_path / "source", {"1": "Liver", "2": "Spleen", "3": "Tumor"}, [{}])
    dataset = a_dataset(tmp_path / "data", labels=TABLE)
    import_cases(dataset, read_decathlon(folder))
    assert "in the data set already" in import_cases(dataset, read_decathlon(folder), outlined=[]).failed["0"].what
    assert import_cases(dataset, read_decathlon(folder), outlined=[], correct=True).corrected == ["case-0001"]
    assert labelled(dataset.case("case-0001")) == (1,)


def test_pairs_outline_what_is_said_and_can_ignore_a_value(tmp_path: Path) -> None:
    image, labels = an_image(1), some_labels(an_image(1))
    labels.array[0, 0, 0] = 9
    for name, volume in (("images/a.nii.gz", image), ("masks/a.nii.gz", labels)):
        write_labels(tmp_path / name, volume, (), reference=volume)
    dataset = a_dataset(tmp_path / "data", labels=TABLE)
    pairs = read_pairs(tmp_path / "images", tmp_path / "masks")
    assert import_cases(dataset, pairs, mapping={"9": "ignore"}, outlined=["Tumor"]).failed == {}
    case = dataset.case("case-0001")
    assert labelled(case) == (1, 3) and case.revision is not None and case.revision.counts == {1: 8, 255: 1}


def test_an_export_keeps_what_is_unknown(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", labels=TABLE)
    add_case(dataset, 1, outlined=["Tumor"])
    dataset.add(an_image(2), some_labels(an_image(2), value=9), patient="two", mapping={"9": "ignore"})
    add_case(dataset, 3)
    export_decathlon(dataset, tmp_path / "out")
    again = a_dataset(tmp_path / "again", labels=TABLE)
    assert import_cases(again, read_decathlon(tmp_path / "out")).failed == {}
    told = [(labelled(case), case.revision.counts) for case in again.cases() if case.revision]
    assert told == [((1, 3), {1: 8}), (None, {255: 8}), (None, {1: 8})]


def test_two_sets_with_an_organ_each_leave_the_others_open_whichever_comes_first(tmp_path: Path) -> None:
    folders = [a_source(tmp_path / name, {"1": name}, [{}]) for name in ("Liver", "Spleen")]
    image = an_image(99)
    write_labels(folders[1] / "imagesTr" / "0.nii.gz", image, (), reference=image)  # not that of the first set
    dataset = SiteDataset.create(tmp_path / "data", ())
    for folder in folders:
        assert import_cases(dataset, read_decathlon(folder), add_labels=True).failed == {}
    told = [(labelled(case), case.revision.counts) for case in dataset.cases() if case.revision]
    assert told == [((1,), {1: 8}), ((2,), {2: 8})]


def test_a_label_that_comes_later_was_outlined_in_no_earlier_version(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", patients=1, labels="Liver")
    dataset.correct("case-0001", some_labels(an_image(0), size=1))
    dataset.add_label("Spleen")
    case = SiteDataset.open(dataset.root).case("case-0001")
    assert [revision.labelled for revision in case.revisions] == [(1,), (1,)]
    assert len(case.history) == 2, "nobody has said anything of the case"


# ---------------------------------------------------------------- checks


def test_the_check_counts_in_how_many_cases_each_structure_was_outlined(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", patients=3, labels="Liver,Spleen")
    assert "partly outlined" not in problems(dataset)
    add_case(dataset, 7, outlined=[])
    found = problems(dataset)["partly outlined"]
    assert "of 4 completed cases: Liver in 4, Spleen in 3" in found.what and found.cases == ("case-0004",)
    assert found.severity != BLOCKS and "never outlined" not in problems(dataset)


def test_a_structure_outlined_in_no_completed_case_blocks_a_training_that_is_to_learn_it(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", labels="Ball,Spleen")
    for seed in range(3):
        add_case(dataset, seed, outlined=[])
    add_case(dataset, 3, outlined=["Spleen"], status="in progress")
    found = problems(dataset)["never outlined"]
    assert found.severity != BLOCKS and found.what == "Spleen is outlined in no completed case."
    assert "leaves it out" in found.meaning and "rare label" not in problems(dataset)
    assert problems(dataset, learned=["spleen"])["never outlined"].severity == BLOCKS
    assert "never outlined" not in problems(dataset, learned=["ball"])


def test_a_structure_outlined_nowhere_that_the_base_knows_is_kept(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", labels="Spleen,Ball")
    for seed in range(3):
        add_case(dataset, seed, outlined=[])
    found = problems(dataset, a_base(ModelLibrary([tmp_path / "models"])))["never outlined"]
    assert found.severity != BLOCKS and "is kept, and judged by nobody" in found.meaning


def test_a_label_map_of_unknown_voxels_alone_counts_as_empty(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "data", patients=3, labels="Liver")
    dataset.add(an_image(9), some_labels(an_image(9), value=9), patient="nine", mapping={"9": "ignore"})
    assert problems(dataset)["empty masks"].cases == ("case-0004",)

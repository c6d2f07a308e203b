"""The fine-tuning studies: patients who judge are in no site, results are kept and continued."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from apformer.bundles import ModelLibrary
from apformer.errors import ConfigError

pytest.importorskip("monai", reason="training needs MONAI (the extra 'train')")

import SimpleITK as sitk
from apformer.benchmarks import finetuning, head_neck_base
from apformer.commands.benchmark import STUDIES
from apformer.datasets.imports import Pair, Source

HIPPOCAMPUS = {1: "Anterior hippocampus", 2: "Posterior hippocampus"}


def a_source(patients: int) -> Source:
    pairs = [
        Pair(f"patient{number:03d}_frame0{frame}", (Path("image"),), Path("labels"))
        for number in range(patients)
        for frame in (1, 2)
    ]
    return Source(tuple(pairs), {3: "Left ventricle"})


def test_the_command_offers_every_study() -> None:
    assert tuple(finetuning.STUDIES) == STUDIES


def test_patients_are_ordered_alike_whatever_the_files_order_and_stay_whole() -> None:
    study = finetuning.STUDIES["site-shift"]
    source = a_source(40)
    turned = Source(source.pairs[::-1], source.names)
    patients = finetuning._patients(source, study)
    assert list(patients) == list(finetuning._patients(turned, study))
    assert all(len(pairs) == 2 for pairs in patients.values())
    assert list(patients) != sorted(patients), "neighbours in a list often come from one scanner"


def test_every_study_leaves_enough_patients_to_judge() -> None:
    small = {"atrium": 16, "abdomen": 16}  # patients that there are
    for name, study in finetuning.STUDIES.items():
        assert study.others >= (20 if name not in small else small[name] // 4)
        assert all(run.patients == 0 or run.patients >= 3 for run in study.runs)
        assert len({run.name for run in study.runs}) == len(study.runs)


def partly_outlined(patients: int) -> Source:
    """Every third patient is complete; of the others, every second has the rare organ."""
    names = dict(enumerate(finetuning.ORGANS, 1))
    labelled = {0: tuple(names), 1: (1, 2, 7), 2: (1, 2)}
    pairs = [Pair(f"hn_{n:03d}", (Path("image"),), Path("labels"), labelled[n % 3]) for n in range(patients)]
    return Source(tuple(pairs), names)


def test_who_judges_partial_labels_outlines_something_rare_and_takes_no_complete_patient_away() -> None:
    study, source = finetuning.STUDIES["partial-labels"], partly_outlined(90)
    patients = finetuning._patients(source, study)
    assert all(pairs[0].labelled == (1, 2, 7) for pairs in list(patients.values())[: study.others])
    complete, everyone, absent = (finetuning._learn_from(patients, one, study, source) for one in study.runs)
    assert len(complete) == 30 and all(len(pair.labelled or ()) == 7 for pair in complete)
    assert len(everyone) == 70 and everyone == absent and set(complete) < set(everyone)


# ------------------------------------------------------------------ a base that the study trains


def a_head(folder: Path, stem: str) -> Pair:
    """A volume of 32^3 with a bright organ at the patient's right and front, in the upper half; in RAS."""
    labels = np.zeros((32, 32, 32), np.uint8)  # k, j, i: to the head, to the front, to the right
    labels[16:28, 18:22, 19:23] = 5
    labels[2:5, 10:12, 10:12] = 2  # another organ, which is not learned
    paths = folder / f"{stem}.nii.gz", folder / f"{stem}_labels.nii.gz"
    for path, array in zip(paths, (np.where(labels == 5, 400.0, -1000.0).astype(np.float32), labels), strict=True):
        image = sitk.GetImageFromArray(array)
        image.SetDirection((-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0))  # ITK counts to the left and the back
        image.SetSpacing((4.0, 4.0, 2.5))
        sitk.WriteImage(image, str(path))
    return Pair(stem, (paths[0],), paths[1], (2, 5))


def test_the_head_is_shown_as_the_livers_slices_are(tmp_path: Path) -> None:
    source = Source((a_head(tmp_path, "hn_001"), a_head(tmp_path, "hn_002")), dict(enumerate(finetuning.ORGANS, 1)))
    made = head_neck_base._pictures(source, tmp_path / "pictures").pairs
    assert len(made) == 2 * head_neck_base.SLICES and all(pair.labelled == (2, 5) for pair in made)
    for pair in made:
        picture, labels = (sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in (pair.images[0], pair.labels))
        assert picture.shape == labels.shape == (256, 256) and picture.dtype == np.uint8
        assert set(np.unique(labels)) == {0, 5}, "slices are those that show what is learned"
        assert (picture.min(), picture.max()) == (0, 255), "HU, clipped"
        rows, columns = np.nonzero(labels)
        assert rows.mean() < 128 and columns.mean() < 128, "front above, the patient's right on the left"
        assert picture[labels == 5].mean() > 200, "the organ lies where its label does"


def test_a_study_that_trains_its_base_asks_for_the_cases(tmp_path: Path) -> None:
    study = finetuning.STUDIES["other-organs"]
    library, bases = ModelLibrary([tmp_path]), [one.base for one in study.runs]
    assert bases == [None, finetuning.BASE, head_neck_base.NAME]
    for one in study.runs[:2]:
        assert finetuning._train_base(one, library, study, tmp_path, None, None, print) is None
    with pytest.raises(ConfigError) as caught:
        finetuning._train_base(study.runs[2], library, study, tmp_path, None, None, print)
    assert "--old head-neck-ct" in caught.value.remedy


def test_a_site_of_other_organs_names_none_of_the_bases(tmp_path: Path) -> None:
    study, base = finetuning.STUDIES["other-organs"], ModelLibrary().find(finetuning.BASE)
    source = Source((), {1: "Liver"})
    site = finetuning._site(source, [], study.runs[1], base, study, tmp_path / "site")
    assert [label.name for label in site.labels] == ["Liver"]
    heart = finetuning.STUDIES["new-structure"]
    site = finetuning._site(Source((), {3: "Left ventricle"}), [], heart.runs[1], base, heart, tmp_path / "heart")
    assert site.labels[0].name == base.labels[0].name and len(site.labels) == 3


def test_results_of_other_settings_are_not_continued(tmp_path: Path) -> None:
    study = finetuning.STUDIES["site-shift"]
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"study": "site-shift", "minutes": 1.0, "others": study.others, "runs": {}}))
    with pytest.raises(ConfigError, match="other settings"):
        finetuning._read(results, "site-shift", study)


def test_a_data_set_of_another_study_is_told() -> None:
    with pytest.raises(ConfigError, match="does not look like"):
        finetuning._patients(replace(a_source(3), names=HIPPOCAMPUS), finetuning.STUDIES["scratch"])


def test_a_data_set_without_the_studys_labels_is_told() -> None:
    with pytest.raises(ConfigError, match="no label Anterior hippocampus, Posterior hippocampus"):
        finetuning._patients(a_source(3), finetuning.STUDIES["scratch"])


def test_the_table_shows_what_is_known_and_a_dash_for_the_rest() -> None:
    known = {"mean_dice": 0.9, "pooled_dice": 0.92, "hd95_mm": None}
    entry = {"others": {"labels": {"Left ventricle cavity": known}}}
    text = finetuning.render({"study": "site-shift", "others": 20, "minutes": 15.0, "runs": {"base": entry}})
    assert "0.900" in text and "0.920" in text
    assert text.splitlines()[-1].count("-") == 3
    entry["others"]["labels"]["Left ventricle cavity"] = {"mean_dice": 0.9, "pooled_dice": 0.92, "hd95_px": 4.25}
    text = finetuning.render({"study": "site-shift", "others": 20, "minutes": 15.0, "runs": {"base": entry}})
    assert "4.250" in text, "of pictures, in pixels"

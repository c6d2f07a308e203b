"""A site's cases: added, found again, corrected, restored, removed; and nothing that names a patient."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from apformer.bundles.labels import Label
from apformer.datasets import COMPLETED, FLAGGED, IN_PROGRESS, DuplicateCaseError, SiteDataset
from apformer.datasets.identity import name_patients, patient_code, voxel_hash
from apformer.errors import ConfigError, InputError
from apformer.files import read_volume, write_labels
from apformer.volume import Source, Volume
from dataset_samples import GRID, a_dataset, add_case, an_image, some_labels
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture
def dataset(tmp_path: Path) -> SiteDataset:
    return a_dataset(tmp_path / "data")


OBLIQUE = np.array([[0.6, -0.8, 0, 1 / 3], [0.8, 0.6, 0, 2.0], [0, 0, 1.7, 3.1], [0, 0, 0, 1.0]])


@pytest.mark.parametrize("matrix", [GRID, OBLIQUE], ids=["float32", "float64"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64", "float16", "int64"])
def test_images_keep_every_voxel_and_their_grid(dataset: SiteDataset, dtype: str, matrix: np.ndarray) -> None:
    voxels = (np.random.default_rng(1).normal(100, 20, (3, 4, 5))).astype(dtype)
    image = Volume(voxels, matrix)
    case, _ = dataset.add(image, some_labels(image), patient="1")
    stored, labels = read_volume(case.image_path), read_volume(case.labels_path or "")
    assert np.array_equal(stored.array, voxels)
    assert np.array_equal(stored.ijk_to_ras, matrix)
    assert labels.array.dtype == np.uint8 and np.array_equal(labels.array, some_labels(image).array)
    assert np.array_equal(labels.ijk_to_ras, matrix)


def test_channels_and_colour_pictures_are_kept(dataset: SiteDataset, tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    several = Volume(noise.normal(size=(4, 3, 5, 6)).astype(np.float32), OBLIQUE)
    case, _ = dataset.add(several, some_labels(replace(several, array=several.array[0])), patient="1")
    stored = read_volume(case.image_path)
    assert np.array_equal(stored.array, several.array) and np.allclose(stored.ijk_to_ras, OBLIQUE, atol=1e-12)
    for dtype, highest in ((np.uint8, 256), (np.uint16, 65536)):
        picture = tmp_path / f"{highest}.png"
        pixels = noise.integers(0, highest, (7, 9, 3)).astype(dtype)
        sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(picture))
        case, _ = dataset.add(picture, patient="2")
        assert case.image.file == "image.png" and case.modality == "RGB"
        assert np.array_equal(read_volume(case.image_path).array[:, 0], np.moveaxis(pixels, -1, 0))


def test_nothing_that_names_the_patient_or_the_file_is_stored(
    dataset: SiteDataset, tmp_path: Path, write_dicom: Callable[..., list[Path]]
) -> None:
    files = write_dicom("Secret^Name", positions=[(0, 0, 2.5 * k) for k in range(4)])
    case, notes = dataset.add(tmp_path / "Secret^Name")
    assert case.modality == "CT" and case.source == "dicom" and notes == ()
    assert case.patient == patient_code("1", dataset.index.salt)  # the PatientID of the samples
    import pydicom

    header = pydicom.dcmread(files[0])
    secrets = [header.SeriesInstanceUID, header.StudyInstanceUID, "Secret", "A^B", str(tmp_path), "20200101"]
    for path in (path for path in dataset.root.rglob("*") if path.is_file()):
        content = path.read_bytes()
        content += sitk_text(path) if path.name.startswith("image") else b""
        assert not [secret for secret in secrets if secret.encode() in content], path


def sitk_text(path: Path) -> bytes:
    image = sitk.ReadImage(str(path))
    return " ".join(f"{key} {image.GetMetaData(key)}" for key in image.GetMetaDataKeys()).encode()


def test_a_patient_has_one_pseudonym_in_a_data_set_and_another_elsewhere(tmp_path: Path) -> None:
    here, there = a_dataset(tmp_path / "here"), a_dataset(tmp_path / "there")
    first, second = add_case(here, 1, patient=" Müller 7 "), add_case(here, 2, patient="MÜLLER 7")
    assert first.patient == second.patient != add_case(here, 3, patient="Müller 8").patient
    assert add_case(there, 1, patient="Müller 7").patient != first.patient


def test_files_of_one_patient_are_recognised_by_their_names() -> None:
    slices = [f"liver_{volume}_{k}" for volume in (1, 2, 3) for k in range(4)]
    assert len(set(name_patients(slices)[0])) == 3 and name_patients(slices)[1] is not None
    volumes = [f"hippocampus_{n:03d}" for n in range(9)]
    assert name_patients(volumes) == (volumes, None)
    assert name_patients(["a-1-x", "a-2-x"], r"^a-(?P<patient>\d)")[0] == ["1", "2"]
    for pattern in ("(", "z"):
        with pytest.raises(ConfigError):
            name_patients(volumes, pattern)


def test_the_same_image_is_found_again_whatever_its_file(dataset: SiteDataset, tmp_path: Path) -> None:
    image = an_image(1)
    case, _ = dataset.add(image, some_labels(image), patient="1")
    as_float = replace(image, array=image.array.astype(np.float32))
    write_labels(tmp_path / "again.nrrd", image.oriented("LAS"), (), reference=image.oriented("LAS"))
    for same in (image, as_float, image.oriented("RPI"), tmp_path / "again.nrrd"):
        with pytest.raises(DuplicateCaseError, match="case-0001") as caught:
            dataset.add(same, patient="2")
        assert caught.value.case.number == case.number
    moved = replace(image, ijk_to_ras=image.ijk_to_ras + np.eye(4)[:, [3, 3, 3, 3]] * 0 + np.diag([0.5, 0, 0, 0]))
    dataset.add(moved, patient="1")
    changed = image.array.copy()
    changed[0, 0, 0] += 1
    dataset.add(image.with_array(changed), patient="1")
    assert len(dataset.cases()) == 3


@given(order=st.permutations("RAS"), flips=st.tuples(*[st.booleans()] * 3), dtype=st.sampled_from(["i2", "f4", ">i4"]))
@settings(max_examples=20, derandomize=True, deadline=None)
def test_the_hash_of_voxels_does_not_depend_on_axes_or_type(
    order: list[str], flips: tuple[bool, ...], dtype: str
) -> None:
    image = an_image(3)
    opposite = dict(zip("RAS", "LPI", strict=True))
    code = "".join(opposite[axis] if flip else axis for axis, flip in zip(order, flips, strict=True))
    turned = image.oriented(code)
    assert voxel_hash(replace(turned, array=turned.array.astype(dtype))) == voxel_hash(image)


def test_corrections_keep_the_older_labels_and_say_who_and_when(dataset: SiteDataset) -> None:
    image = an_image(1)
    case, _ = dataset.add(image, some_labels(image), patient="1", proposed_by="liver-ct 1.0.0", who="model")
    assert case.status == IN_PROGRESS
    again, _ = dataset.add(image, some_labels(image, value=2), patient="1", correct=True, who="Ann", comment="edge")
    assert (again.name, again.status, again.current) == (case.name, COMPLETED, 2)
    assert again.proposal is not None and again.proposal.number == 1
    same = dataset.correct(case.name, some_labels(image, value=2))
    assert len(same.revisions) == 2  # nothing changed, so no version is added
    restored = dataset.correct(case.name, restore=1, status=FLAGGED, who="Bob")
    assert restored.current == 1 and restored.labels_path == restored.revision_path(restored.revisions[0])
    third = dataset.correct(case.name, some_labels(image, size=3))
    assert [revision.number for revision in third.revisions] == [1, 2, 3]
    assert np.array_equal(read_volume(third.revision_path(third.revisions[1])).array, some_labels(image, value=2).array)
    told = [
        (event.what, event.who, event.status, event.revision)
        for event in SiteDataset.open(dataset.root).case(case.name).history
    ]
    assert told == [
        ("added", "model", IN_PROGRESS, 1),
        ("corrected", "Ann", COMPLETED, 2),
        ("described", None, COMPLETED, 2),
        ("restored", "Bob", FLAGGED, 1),
        ("corrected", None, FLAGGED, 3),
    ]
    with pytest.raises(ConfigError, match="no version 9"):
        dataset.correct(case.name, restore=9)


def test_a_removed_case_is_gone_and_its_name_is_not_used_again(dataset: SiteDataset) -> None:
    folder = add_case(dataset, 1).folder
    dataset.remove("case-0001")
    assert not folder.exists() and add_case(dataset, 1).name == "case-0002"
    with pytest.raises(ConfigError, match="no case 'case-0001'"):
        dataset.remove("case-0001")


def test_labels_of_a_segmentation_are_matched_by_name(
    dataset: SiteDataset, tmp_path: Path, two_labels: tuple[Label, Label]
) -> None:
    image = an_image(1)
    array = some_labels(image).array.copy()
    array[3, 5, 4] = 3
    write_labels(tmp_path / "a.seg.nrrd", image.with_array(array), two_labels, reference=image)
    with pytest.raises(ConfigError, match=r"3 \(Left kidney\)") as caught:
        dataset.add(image, tmp_path / "a.seg.nrrd", patient="1")
    assert "add-label" in caught.value.remedy and "--map" in caught.value.remedy
    case, _ = dataset.add(image, tmp_path / "a.seg.nrrd", patient="1", mapping={"left kidney": "tumor"})
    assert case.revision is not None and case.revision.counts == {1: 8, 2: 1}
    dataset.remove(case.name)
    label = dataset.add_label("left kidney", 9)
    case, _ = dataset.add(image, tmp_path / "a.seg.nrrd", patient="1", mapping={"Liver": None})
    assert case.revision is not None and case.revision.counts == {label.value: 1}


def test_values_without_names_are_those_of_the_table_or_of_a_mapping(dataset: SiteDataset) -> None:
    image = an_image(1)
    with pytest.raises(ConfigError, match="does not have: 7"):
        dataset.add(image, some_labels(image, value=7), patient="1")
    case, _ = dataset.add(image, some_labels(image, value=7), patient="1", mapping={"7": "Tumor"})
    assert case.revision is not None and case.revision.counts == {2: 8}
    with pytest.raises(InputError, match="no whole numbers"):
        dataset.correct(case.name, image.with_array(np.full(image.spatial_shape, 0.5)))
    with pytest.raises(InputError, match="3 channels"):
        dataset.correct(case.name, image.with_array(np.zeros((3, *image.spatial_shape), np.uint8)))


def test_a_white_mask_needs_no_mapping_where_there_is_one_label(tmp_path: Path) -> None:
    one, two = a_dataset(tmp_path / "one", labels="Polyp"), a_dataset(tmp_path / "two")
    image = an_image(1)
    case, _ = one.add(image, some_labels(image, value=255), patient="1")
    assert case.revision is not None and case.revision.counts == {1: 8}
    with pytest.raises(ConfigError, match="255"):
        two.add(image, some_labels(image, value=255), patient="1")


def test_a_name_that_is_almost_one_of_the_table_is_asked_about(tmp_path: Path) -> None:
    data = a_dataset(tmp_path / "kidneys", labels="Left kidney")
    image = an_image(1)
    with pytest.raises(ConfigError, match=r"1 \(left_kidney\)") as caught:
        data.add(image, some_labels(image), names={1: "left_kidney"}, patient="1")
    assert "--map 1=Left kidney" in caught.value.remedy
    data.add(image, some_labels(image), names={1: " LEFT  kidney"}, patient="1")


def test_two_labels_of_one_name_are_refused_unless_they_are_told_apart(dataset: SiteDataset) -> None:
    image = an_image(1)
    array = some_labels(image).array.copy()
    array[3] = 2
    names = {1: "Liver", 2: "liver"}
    with pytest.raises(InputError, match="'Liver' and 'liver'"):
        dataset.add(image, image.with_array(array), names=names, patient="1")
    case, _ = dataset.add(image, image.with_array(array), names=names, mapping={"2": "Tumor"}, patient="1")
    assert case.revision is not None and case.revision.counts == {1: 8, 2: 30}


def test_labels_on_turned_or_cropped_grids_are_placed_exactly(dataset: SiteDataset) -> None:
    from apformer.volume import Roi

    image = an_image(1, matrix=OBLIQUE)
    labels = some_labels(image)
    turned = labels.oriented("IPR")
    cropped = turned.cropped(
        Roi((0, 0, 0), (turned.spatial_shape[2], turned.spatial_shape[1], turned.spatial_shape[0]))
    )
    part = labels.cropped(Roi((1, 1, 0), (4, 5, 3)))
    for seed, given_labels in enumerate((turned, cropped, part)):
        other = an_image(10 + seed, matrix=OBLIQUE)
        case, _ = dataset.add(other, given_labels, patient="1")
        assert np.array_equal(read_volume(case.labels_path or "").array, labels.array)


def test_labels_on_another_grid_are_refused_with_both_grids(dataset: SiteDataset) -> None:
    image = an_image(1)
    shifted, coarse = image.ijk_to_ras.copy(), image.ijk_to_ras.copy()
    shifted[0, 3] += 0.7
    coarse[:3, 2] *= 2
    far = image.ijk_to_ras.copy()
    far[2, 3] += 300
    for matrix in (shifted, coarse, far):
        with pytest.raises(InputError, match="not on the grid of the image: 5 x 6 x 4 voxels of") as caught:
            dataset.add(image, replace(some_labels(image), ijk_to_ras=matrix), patient="1")
        assert "reference geometry" in caught.value.remedy
    assert dataset.cases() == [] and not (dataset.root / "cases").exists()


def test_a_case_is_completed_only_with_labels(dataset: SiteDataset) -> None:
    case, notes = dataset.add(an_image(1), patient="1")
    assert case.status == IN_PROGRESS and case.labels_path is None and notes == ()
    for attempt in (
        lambda: dataset.add(an_image(2), patient="1", status=COMPLETED),
        lambda: dataset.correct(case.name, status=COMPLETED),
        lambda: dataset.correct(case.name, status="finished"),
    ):
        with pytest.raises(ConfigError):
            attempt()


def test_images_that_cannot_be_trained_on_are_refused(dataset: SiteDataset, tmp_path: Path) -> None:
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"\x1f\x8bnonsense")
    flat = Volume(np.zeros((3, 4, 5), np.int16), GRID)
    for image, words in (
        (broken, "could not be read"),
        (tmp_path / "none.nii", "does not exist"),
        (flat, "the value 0"),
    ):
        with pytest.raises(InputError, match=words):
            dataset.add(image, patient="1")
    with pytest.raises(InputError, match="which patient"):
        dataset.add(an_image(1))
    with pytest.raises(InputError, match="nothing to correct"):
        dataset.add(an_image(1), some_labels(an_image(1)), patient="1", correct=True)
    with pytest.raises(ConfigError, match="one plain line"):
        add_case(dataset, 1, comment="a\nb")


def test_a_file_without_patient_is_a_patient_of_its_own_and_that_is_told(dataset: SiteDataset, tmp_path: Path) -> None:
    image = an_image(1)
    write_labels(tmp_path / "x.nii.gz", image, (), reference=image)
    case, notes = dataset.add(tmp_path / "x.nii.gz")
    assert "patient of its own" in notes[-1]
    assert case.patient == patient_code("x", dataset.index.salt)


def test_the_label_table_takes_names_once_and_keeps_values(dataset: SiteDataset) -> None:
    add_case(dataset, 1)
    assert dataset.add_label("Cyst", color=(1, 2, 3)).value == 3
    for name in ("liver", " LIVER ", "Background", "", "x" * 99):
        with pytest.raises(ConfigError):
            dataset.add_label(name)
    with pytest.raises(ConfigError, match="share the value 3"):
        dataset.add_label("Vein", 3)
    assert dataset.rename_label("cyst", "Lesion").value == 3
    with pytest.raises(ConfigError):
        dataset.rename_label("Lesion", "liver")
    with pytest.raises(ConfigError, match="no 'Bone'"):
        dataset.rename_label("Bone", "B")
    names = [(label.value, label.name) for label in SiteDataset.open(dataset.root).labels]
    assert names == [(1, "Liver"), (2, "Tumor"), (3, "Lesion")]


def test_a_data_set_is_made_only_in_an_empty_folder(tmp_path: Path, dataset: SiteDataset) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    for folder, words in ((tmp_path / "full", "not empty"), (dataset.root, "data set already")):
        with pytest.raises(ConfigError, match=words):
            SiteDataset.create(folder, ())
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_paths_with_blanks_and_letters_of_any_script_work(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path / "données 数据 set", patients=1)
    assert np.array_equal(read_volume(dataset.case("case-0001").image_path).array, an_image(0).array)


def test_a_volume_from_memory_names_no_source(dataset: SiteDataset) -> None:
    image = replace(an_image(1), source=Source(Path("/home/secret/x.nii"), kind="nifti"), notes=("secret",))
    dataset.add(image, patient="secret")
    assert "secret" not in json.dumps([case.as_dict() for case in dataset.cases()])

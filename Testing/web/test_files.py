"""Files to the page and back: uploads as they come, downloads that fit the image they were made on."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.files import read_segment_names, read_volume, write_scalar
from apformer.volume import Volume
from web_page import WebPage
from web_samples import a_crop, write_slices
from web_server import Served

NAMES = ["Anterior hippocampus", "Posterior hippocampus"]


@pytest.fixture(scope="module")
def a_hippocampus(installed: None) -> Volume:
    return a_crop()


def check(labels: Volume, image: Volume, told_ml: dict[str, float]) -> None:
    """The label map lies on the image's grid, voxel for voxel, and holds what the page says."""
    assert labels.spatial_shape == image.spatial_shape
    np.testing.assert_allclose(labels.ijk_to_ras, image.ijk_to_ras, atol=1e-4)
    counted = [np.count_nonzero(labels.array == value) * image.voxel_volume_ml for value in (1, 2)]
    assert counted == pytest.approx([told_ml[name] for name in NAMES], abs=0.006)


def test_a_wrong_file_is_refused_with_what_it_means_and_what_to_do(a_page: WebPage, tmp_path: Path) -> None:
    damaged, letter = tmp_path / "damaged.nii.gz", tmp_path / "letter.docx"
    for path in (damaged, letter):
        path.write_bytes(b"no image")
    a_page.upload(damaged)
    what, meaning, remedy = a_page.error("damaged.nii.gz")
    assert "/" not in what.split("damaged.nii.gz")[0]  # the server's folders are no business of the user
    assert meaning
    assert remedy
    a_page.upload(letter)
    what, meaning, remedy = a_page.error("There is no image among the uploaded files (letter.docx)")
    assert "NIfTI" in meaning
    assert remedy == "Choose such a file, or the folder with the DICOM slices."
    assert a_page.text("No image loaded").is_visible()


def test_a_nifti_image_is_segmented_and_downloaded_on_its_own_grid(
    a_page: WebPage, a_hippocampus: Volume, tmp_path: Path
) -> None:
    write_scalar(tmp_path / "left-hippocampus.nii.gz", a_hippocampus)
    a_page.upload(tmp_path / "left-hippocampus.nii.gz")
    a_page.wait_for_image("left-hippocampus")
    told = a_page.segment()
    assert list(told) == NAMES
    nifti = a_page.download("NIfTI", tmp_path)
    assert nifti.name.endswith(".nii.gz")
    check(read_volume(nifti), a_hippocampus, told)
    slicers = a_page.download(".seg.nrrd", tmp_path)
    assert read_segment_names(slicers) == dict(enumerate(NAMES, 1))
    check(read_volume(slicers), a_hippocampus, told)
    a_page.text("DICOM SEG").click()
    _, _, remedy = a_page.error("A DICOM segmentation refers to the DICOM slices")
    assert remedy.startswith("Download .seg.nrrd or NIfTI")


@pytest.mark.parametrize("kind", ["nrrd", "mha"])
def test_nrrd_and_mha_images_are_loaded(a_page: WebPage, a_hippocampus: Volume, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"crop-as-{kind}.{kind}"
    write_scalar(path, a_hippocampus)
    a_page.upload(path)
    a_page.wait_for_image(f"crop-as-{kind}")


def test_a_downloaded_segmentation_is_uploaded_again_for_review(
    a_page: WebPage, a_hippocampus: Volume, tmp_path: Path
) -> None:
    write_scalar(tmp_path / "right-hippocampus.nii.gz", a_hippocampus)
    a_page.upload(tmp_path / "right-hippocampus.nii.gz")
    a_page.wait_for_image("right-hippocampus")
    told = a_page.segment()
    again = a_page.download(".seg.nrrd", tmp_path)
    a_page.upload(again)
    a_page.press("3")
    a_page.page.get_by_label("Segmentation").first.wait_for()
    assert a_page.volumes() == told


def test_a_dicom_folder_is_segmented_and_downloaded_as_a_dicom_segmentation(
    a_page: WebPage, a_hippocampus: Volume, tmp_path: Path, write_dicom: Any
) -> None:
    import pydicom

    study = write_slices(write_dicom, a_hippocampus, "study", "T1 hippocampus")
    a_page.upload(study)
    a_page.wait_for_image("T1 hippocampus")
    told = a_page.segment()
    written = pydicom.dcmread(a_page.download("DICOM SEG", tmp_path))
    assert written.Modality == "SEG"
    assert [one.SegmentLabel for one in written.SegmentSequence] == NAMES
    assert written.PatientID == "1"  # as in the slices
    slices = [pydicom.dcmread(path) for path in study.iterdir()]
    places = {tuple(np.round(one.ImagePositionPatient, 3)) for one in slices}
    shared = written.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
    np.testing.assert_allclose(np.array(shared, float), np.array(slices[0].ImageOrientationPatient, float), atol=1e-6)
    counted = dict.fromkeys((1, 2), 0)
    for frame, about in zip(written.pixel_array, written.PerFrameFunctionalGroupsSequence, strict=True):
        assert tuple(np.round(about.PlanePositionSequence[0].ImagePositionPatient, 3)) in places
        counted[about.SegmentIdentificationSequence[0].ReferencedSegmentNumber] += np.count_nonzero(frame)
    assert [count / 1000.0 for count in counted.values()] == pytest.approx(
        list(told.values()), abs=0.006
    )  # 1 mm voxels


def test_the_real_dicom_series_gives_a_segmentation_that_refers_to_it(
    a_page: WebPage, data_root: Path, tmp_path: Path
) -> None:
    import pydicom

    folder = data_root / "dicom" / "hippocampus-crop"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    slices = [pydicom.dcmread(path, stop_before_pixels=True) for path in folder.glob("*.dcm")]
    a_page.upload(folder)
    a_page.page.locator(".row-item.chosen", has_text="35 x 51 x 32 voxels").first.wait_for()
    a_page.choose_model("hippocampus-mr")
    told = a_page.segment()
    assert all(volume > 0.5 for volume in told.values())
    written = pydicom.dcmread(a_page.download("DICOM SEG", tmp_path))
    referred = written.ReferencedSeriesSequence[0]
    assert referred.SeriesInstanceUID == slices[0].SeriesInstanceUID
    assert {one.ReferencedSOPInstanceUID for one in referred.ReferencedInstanceSequence} == {
        one.SOPInstanceUID for one in slices
    }


def test_a_zip_with_two_series_offers_a_choice(
    a_page: WebPage, a_hippocampus: Volume, tmp_path: Path, write_dicom: Any
) -> None:
    packed = tmp_path / "study.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("first series", "second series"):
            for path in write_slices(write_dicom, a_hippocampus, name, name).iterdir():
                archive.write(path, f"{name}/{path.name}")
    a_page.upload(packed)
    a_page.notice("2 DICOM series were found")
    a_page.page.locator(".row-item", has_text="second series").click()
    a_page.wait_for_image("second series")


def test_names_in_a_file_are_words_and_no_part_of_the_page(
    a_page: WebPage, a_hippocampus: Volume, tmp_path: Path, write_dicom: Any
) -> None:
    name = "<img src=x onerror=\"document.title='taken'\">{{ 7 * 7 }}"
    a_page.upload(write_slices(write_dicom, a_hippocampus, "markup", name))
    a_page.wait_for_image(name)
    assert a_page.page.title() == "APFormer"
    assert a_page.page.locator(".bar-image img").count() == 0


def test_an_upload_beyond_the_bound_is_refused_and_nothing_of_it_is_kept(
    a_page: WebPage, a_server: Served, tmp_path: Path
) -> None:
    before = sorted(a_server.files())
    large, bomb = tmp_path / "large.nii", tmp_path / "bomb.zip"
    large.write_bytes(bytes(9_000_000))
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("large.nii", bytes(9_000_000))  # 9 kB, packed
    a_page.upload(large)
    _, _, remedy = a_page.error("The upload is larger than what is left of this session's 8 MB")
    assert "--upload-mb" in remedy
    a_page.notice("The upload is larger").get_by_title("Dismiss").click()
    a_page.page.locator(".notice", has_text="The upload is larger").wait_for(state="detached")
    a_page.upload(bomb)
    a_page.error("The upload is larger than what is left")
    a_page.page.locator(".drop", has_text="Drop").wait_for()  # nothing is being read any more
    assert sorted(a_server.files()) == before

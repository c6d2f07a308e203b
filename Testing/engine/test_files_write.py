"""Results on disk: label values and geometry as they were, names and terminology for Slicer, nothing half written."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from apformer.errors import InputError, OutputError
from apformer.files import read_segment_names, read_volume, write_labels, write_scalar
from apformer.volume import Volume

SUFFIXES = [".nii.gz", ".nii", ".nrrd", ".mha", ".seg.nrrd"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_labels_come_back_on_the_same_grid(
    tmp_path: Path, an_image: Volume, a_label_map: Volume, two_labels, suffix: str
) -> None:
    path = tmp_path / "made" / f"mask{suffix}"
    write_labels(path, a_label_map, two_labels, reference=an_image, provenance={"model": "liver-ct 1.0.0"})
    back = read_volume(path)
    np.testing.assert_array_equal(back.array, a_label_map.array)
    assert back.array.dtype == np.uint8
    expected = an_image.ijk_to_ras
    exact = expected.astype(np.float32) if suffix.startswith(".nii") else expected
    np.testing.assert_array_equal(back.ijk_to_ras, exact)
    assert b"liver-ct 1.0.0" in (path.read_bytes() if suffix != ".nii.gz" else b"liver-ct 1.0.0")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_itk_sees_the_labels_where_it_sees_the_image(
    tmp_path: Path, an_image: Volume, a_label_map: Volume, two_labels, suffix: str
) -> None:
    plain = suffix.replace(".seg", "")
    write_scalar(tmp_path / f"image{plain}", an_image)
    image = read_volume(tmp_path / f"image{plain}")
    write_labels(tmp_path / f"mask{suffix}", image.with_array(a_label_map.array), two_labels, reference=image)
    itk_image = sitk.ReadImage(str(tmp_path / f"image{plain}"))
    itk_mask = sitk.ReadImage(str(tmp_path / f"mask{suffix}"))
    assert itk_mask.GetSize() == itk_image.GetSize()
    assert itk_mask.GetSpacing() == itk_image.GetSpacing()
    assert itk_mask.GetOrigin() == itk_image.GetOrigin()
    assert itk_mask.GetDirection() == itk_image.GetDirection()


def test_a_segmentation_has_names_colours_and_terminology(
    tmp_path: Path, an_image: Volume, a_label_map: Volume, two_labels
) -> None:
    import slicerio

    path = tmp_path / "mask.seg.nrrd"
    write_labels(path, a_label_map, two_labels, reference=an_image, provenance={"model": "m", "note": "two\nlines"})
    read = slicerio.read_segmentation(str(path))
    assert [segment["name"] for segment in read["segments"]] == ["Liver", "Left kidney"]
    assert [segment["labelValue"] for segment in read["segments"]] == [1, 3]
    np.testing.assert_allclose(read["segments"][0]["color"], [221 / 255, 130 / 255, 101 / 255], atol=1e-6)
    kidney = read["segments"][1]["terminology"]
    assert kidney["category"] == ["SCT", "123037004", "Anatomical Structure"]
    assert kidney["type"] == ["SCT", "64033007", "Kidney"]
    assert kidney["typeModifier"] == ["SCT", "7771000", "Left"]
    geometry = read["conversionParameters"][0]
    numbers = [float(number) for number in geometry["value"].split(";")[:16]]
    assert geometry["name"] == "Reference image geometry"
    np.testing.assert_array_equal(np.reshape(numbers, (4, 4)), an_image.ijk_to_ras)
    assert geometry["value"].endswith(";0;6;0;5;0;4;")
    assert read["APFormer_note"] == "two lines"
    assert read_segment_names(path) == {1: "Liver", 3: "Left kidney"}


def write_layers(path: Path, *masks: np.ndarray) -> None:
    import slicerio

    segmentation = slicerio.create_segmentation(masks[0].shape, np.diag([2.0, 2.0, 3.0, 1.0]))
    voxels = np.stack(masks).astype(np.uint8)
    segmentation["voxels"] = voxels
    segmentation["segments"] = [
        {"id": f"s{n}", "name": f"part {n}", "labelValue": 1, "layer": n} for n in range(len(masks))
    ]
    slicerio.write_segmentation(str(path), segmentation)


def test_layers_that_do_not_overlap_are_merged_and_numbered_anew(tmp_path: Path) -> None:
    first, second = np.zeros((4, 3, 2), bool), np.zeros((4, 3, 2), bool)  # (i, j, k)
    first[0, 0, 0], second[3, 2, 1] = True, True
    write_layers(tmp_path / "layers.seg.nrrd", first, second)
    volume = read_volume(tmp_path / "layers.seg.nrrd")
    assert volume.array.shape == (2, 3, 4)
    assert (volume.array[0, 0, 0], volume.array[1, 2, 3], volume.array.sum()) == (1, 2, 3)
    assert "numbered anew: 1 part 0, 2 part 1" in volume.notes[0]
    assert read_segment_names(tmp_path / "layers.seg.nrrd") == {1: "part 0", 2: "part 1"}
    assert volume.spacing_ijk == (2, 2, 3)


def test_layers_that_overlap_are_refused(tmp_path: Path) -> None:
    first, second = np.zeros((4, 3, 2), bool), np.zeros((4, 3, 2), bool)
    first[0:2], second[1:3] = True, True
    write_layers(tmp_path / "layers.seg.nrrd", first, second)
    with pytest.raises(InputError, match=r"part 1 of .* overlaps other segments in 6 voxels"):
        read_volume(tmp_path / "layers.seg.nrrd")


def full_disk(*_args: object, **_kwargs: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def itk_full_disk(*_args: object, **_kwargs: object) -> None:
    raise RuntimeError("ITK ERROR: could not write the requested bytes")


@pytest.mark.parametrize(
    ("suffix", "call", "failure"),
    [
        (".nii.gz", "apformer.files.nifti._put", full_disk),
        (".nii", "apformer.files.nifti._put", full_disk),
        (".nrrd", "apformer.files.nrrd._packed", full_disk),
        (".seg.nrrd", "apformer.files.nrrd._packed", full_disk),
        (".mha", "SimpleITK.WriteImage", itk_full_disk),
    ],
)
def test_a_full_disk_leaves_the_earlier_result(
    tmp_path: Path, an_image: Volume, a_label_map: Volume, two_labels, monkeypatch, suffix: str, call: str, failure
) -> None:
    path = tmp_path / f"mask{suffix}"
    path.write_text("earlier")
    monkeypatch.setattr(call, failure)
    with pytest.raises(OutputError) as caught:
        write_labels(path, a_label_map, two_labels, reference=an_image)
    assert "space" in caught.value.remedy
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_labels_on_another_grid_are_refused(tmp_path: Path, an_image: Volume, a_label_map: Volume, two_labels) -> None:
    moved = an_image.ijk_to_ras.copy()
    moved[0, 3] += 1
    for labels in (Volume(a_label_map.array, moved), Volume(a_label_map.array[1:], an_image.ijk_to_ras)):
        with pytest.raises(OutputError, match="not on the grid"):
            write_labels(tmp_path / "mask.nii", labels, two_labels, reference=an_image)


def test_what_is_no_label_map_or_no_known_format_is_refused(
    tmp_path: Path, an_image: Volume, a_label_map: Volume, two_labels
) -> None:
    with pytest.raises(OutputError, match="no label map"):
        write_labels(tmp_path / "m.nii", an_image.with_array(np.zeros((5, 6, 7))), two_labels, reference=an_image)
    for name in ("mask.txt", "mask", "mask.jpg"):
        with pytest.raises(OutputError, match="names no format"):
            write_labels(tmp_path / name, a_label_map, two_labels, reference=an_image)
    with pytest.raises(OutputError, match="no scalar map"):
        write_scalar(tmp_path / "u.nii", an_image.with_array(np.zeros((2, 5, 6, 7))))
    with pytest.raises(OutputError, match="names no format"):
        write_scalar(tmp_path / "u.dcm", an_image)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".seg.nrrd", ".dcm"])
def test_a_value_without_a_name_is_not_lost(
    tmp_path: Path, an_image: Volume, a_label_map: Volume, two_labels, suffix: str
) -> None:
    with pytest.raises(OutputError, match=r"without a name: 3\."):
        write_labels(tmp_path / f"mask{suffix}", a_label_map, two_labels[:1], reference=an_image)
    assert list(tmp_path.iterdir()) == []


def test_a_yes_no_mask_is_written_as_bytes(tmp_path: Path, an_image: Volume, a_label_map: Volume, two_labels) -> None:
    labels = an_image.with_array(a_label_map.array > 0)
    write_labels(tmp_path / "mask.nii.gz", labels, two_labels, reference=an_image)
    assert read_volume(tmp_path / "mask.nii.gz").array.dtype == np.uint8


def test_the_same_result_gives_the_same_nifti_file(tmp_path: Path, an_image: Volume, a_label_map: Volume, two_labels):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_labels(tmp_path / name, a_label_map, two_labels, reference=an_image)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_errors_have_three_parts_ready_for_json(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_volume(tmp_path / "missing.nii.gz")
    assert all(json.loads(json.dumps(caught.value.as_dict())).values())

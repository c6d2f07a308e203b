"""Label maps come in as whole numbers from 0 up, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from apformer.errors import InputError
from apformer.label_maps import read_label_map, whole_numbers
from apformer.volume import Volume
from PIL import Image


def row(*values: float, dtype: type = np.float32) -> Volume:
    return Volume(np.array([[values]], dtype), np.eye(4))


def test_numbers_that_a_format_has_scaled_are_rounded_and_that_is_told() -> None:
    labels = whole_numbers(row(0, 0.996, 2.0000001, -0.004))
    assert labels.array.tolist() == [[[0, 1, 2, 0]]] and labels.array.dtype.kind == "i"
    assert len(labels.notes) == 1 and "rounded" in labels.notes[0] and "0.004" in labels.notes[0]


def test_whole_numbers_stay_as_they_are_without_a_word() -> None:
    for values in (row(0, 1, 300), row(0, 1, 300, dtype=np.uint16), row(0, 1, dtype=np.bool_)):
        labels = whole_numbers(values)
        assert labels.notes == () and labels.array.dtype.kind in "iu"
        assert np.array_equal(labels.array, values.array)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0, 0.5, 1), "no whole numbers"),
        ((0, 0.98, 1), "no whole numbers"),
        ((0, np.nan, 1), "no numbers"),
        ((0, np.inf, 1), "no numbers"),
        ((0, -1, 1), "negative"),
        ((-1000, 40, 3), "negative"),
    ],
)
def test_values_that_no_label_map_has_are_refused_in_words(values: tuple[float, ...], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        whole_numbers(row(*values))
    assert caught.value.meaning and caught.value.remedy


def test_colours_are_no_label_values() -> None:
    with pytest.raises(InputError, match="3 channels"):
        whole_numbers(Volume(np.zeros((3, 1, 2, 2), np.uint8), np.eye(4)))


def a_disc() -> np.ndarray:
    return (np.hypot(*np.mgrid[-16:16, -16:16]) < 9).astype(np.uint8) * 255


def test_a_jpeg_is_told_by_its_content_and_thresholded_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"  # in truth a JPEG
    Image.fromarray(a_disc()).save(path, "JPEG", quality=60)
    with pytest.raises(InputError, match="JPEG") as caught:
        read_label_map(path)
    assert "changes values" in caught.value.meaning
    labels = read_label_map(path, threshold=True)
    assert set(np.unique(labels.array)) == {0, 255} and "half white" in labels.notes[0]
    assert np.mean(labels.array[0] == a_disc()) > 0.99


def test_a_png_mask_is_read_as_it_is(tmp_path: Path) -> None:
    Image.fromarray(a_disc()).save(tmp_path / "mask.png")
    labels = read_label_map(tmp_path / "mask.png")
    assert np.array_equal(labels.array[0], a_disc()) and labels.notes == ()


def test_a_scaled_nifti_file_holds_the_labels_it_was_made_of(tmp_path: Path) -> None:
    import struct

    path = tmp_path / "labels.nii"
    sitk.WriteImage(sitk.GetImageFromArray(np.array([[[0, 127, 255]]], np.uint8)), str(path))
    content = bytearray(path.read_bytes())
    content[112:120] = struct.pack("<ff", 2 / 255, 0.0)  # scl_slope and scl_inter
    path.write_bytes(content)
    labels = read_label_map(path)
    assert labels.array.tolist() == [[[0, 1, 2]]] and "rounded" in labels.notes[0]


def test_the_shared_scaled_labels_are_read(cases_root: Path) -> None:
    labels = read_label_map(cases_root / "14-scaled-labels" / "labels.nii.gz")
    assert set(np.unique(labels.array)) == {0, 1, 2} and len(labels.notes) == 1

"""DICOM series as hospitals have them: copies, slices that do not belong, several volumes in one, wrong UIDs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from apformer.errors import InputError
from apformer.files import list_series, read_volume
from dicom_samples import by_height, edit, fill, stack, value, write_bare
from pydicom.uid import generate_uid

TWELVE = stack(*range(12))


def heights(folder: Path, **how: object) -> list[float]:
    """z of each slice that is read, in mm."""
    volume = read_volume(folder, **how)
    return [float(z) for z in volume.ijk_to_ras[2, 3] + volume.ijk_to_ras[2, 2] * np.arange(len(volume.array))]


# Copies


def test_slices_of_one_uid_are_no_copies(write_dicom, tmp_path: Path) -> None:
    for path in write_dicom(positions=stack(0, 2, 4)):
        edit(path, SOPInstanceUID="1.2.3.4")
    volume = read_volume(tmp_path / "series")
    np.testing.assert_array_equal(volume.array[:, 0, 0] + 1024, [1, 2, 3])
    assert "3 files share a SOPInstanceUID" in volume.notes[0]


@pytest.mark.parametrize("uid", ["", None])
def test_slices_without_a_uid_are_no_copies(write_dicom, tmp_path: Path, uid: str | None) -> None:
    for path in write_dicom(positions=stack(0, 2, 4)):
        edit(path, SOPInstanceUID=uid)
    volume = read_volume(tmp_path / "series")
    assert volume.spatial_shape[0] == 3
    assert "3 files have no SOPInstanceUID" in volume.notes[0]


def test_a_copy_with_another_uid_is_ignored_and_named(write_dicom, tmp_path: Path) -> None:
    files = write_dicom(positions=stack(0, 2, 4))
    shutil.copy(files[1], tmp_path / "series" / "zz.dcm")
    edit(tmp_path / "series" / "zz.dcm", SOPInstanceUID=generate_uid(), InstanceNumber=99)
    volume = read_volume(tmp_path / "series")
    assert volume.spatial_shape[0] == 3
    assert f"1 copy of a slice was ignored: zz.dcm of {files[1].name}" in volume.notes[0]


def test_a_slice_twice_with_other_voxels_is_refused_naming_both_files(write_dicom, tmp_path: Path) -> None:
    files = write_dicom(positions=TWELVE)
    shutil.copy(files[4], tmp_path / "series" / "zz.dcm")
    fill(tmp_path / "series" / "zz.dcm", np.full((4, 5), 77, np.uint16))
    with pytest.raises(InputError, match="1 slices that lie where another") as caught:
        read_volume(tmp_path / "series")
    assert files[4].name in caught.value.what
    assert "zz.dcm" in caught.value.what
    assert "--skip" in caught.value.remedy
    for pattern in ("zz.dcm", "z*.dcm", str(tmp_path / "series" / "zz.dcm")):
        volume = read_volume(tmp_path / "series", skip=[pattern])
        assert (volume.spatial_shape[0], volume.notes) == (12, ())


def test_a_file_to_skip_that_is_not_there_is_told(write_dicom, tmp_path: Path) -> None:
    write_dicom(positions=stack(0, 2))
    assert "no file nothing.dcm to skip" in read_volume(tmp_path / "series", skip=["nothing.dcm"]).notes[0]


def test_a_damaged_file_can_be_skipped(write_dicom, tmp_path: Path) -> None:
    write_dicom(positions=stack(0, 2))
    (tmp_path / "series" / "broken.dcm").write_bytes(b"no DICOM at all")
    with pytest.raises(InputError, match=r"broken\.dcm could not be read"):
        list_series(tmp_path / "series")
    assert [series.slices for series in list_series(tmp_path / "series", skip=["broken.dcm"])] == [2]


# Slices that do not belong


@pytest.mark.parametrize(
    "odd",
    [
        {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        {"PixelSpacing": [8, 8]},
        {"Rows": 2, "PixelData": bytes(20)},
        {"ImagePositionPatient": None},
        {"ImagePositionPatient": [10, -20, 5.4]},
    ],
)
def test_one_odd_slice_is_left_out_and_named(write_dicom, tmp_path: Path, odd: dict) -> None:
    files = by_height(write_dicom(positions=TWELVE))
    shutil.copy(files[3], tmp_path / "series" / "odd.dcm")
    edit(tmp_path / "series" / "odd.dcm", **odd, SOPInstanceUID=generate_uid())
    volume = read_volume(tmp_path / "series")
    np.testing.assert_array_equal(volume.array[:, 0, 0] + 1024, np.arange(1, 13))
    assert "odd.dcm" in volume.notes[0]
    assert "left out" in volume.notes[0]
    assert [series.slices for series in list_series(tmp_path / "series")] == [12]


def test_a_slice_without_position_that_leaves_a_gap_is_not_left_out(write_dicom, tmp_path: Path) -> None:
    files = by_height(write_dicom(positions=TWELVE))
    edit(files[5], ImagePositionPatient=None)
    with pytest.raises(InputError, match="without a position") as caught:
        read_volume(tmp_path / "series")
    assert files[5].name in caught.value.what


def test_axial_and_coronal_slices_in_one_series_are_a_choice(write_dicom, tmp_path: Path) -> None:
    files = write_dicom(positions=stack(*range(6)))
    along = write_dicom("other", positions=[(0.0, 2.0 * k, 0.0) for k in range(7)], orientation=(1, 0, 0, 0, 0, -1))
    for path in along:
        edit(path, SeriesInstanceUID=value(files[0], "SeriesInstanceUID"))
        shutil.move(path, tmp_path / "series")
    axial, coronal = list_series(tmp_path / "series")
    assert (axial.slices, coronal.slices) == (6, 7)
    assert "axial" in axial.description
    assert "coronal" in coronal.description
    assert read_volume(tmp_path / "series", series_uid=coronal.uid).spatial_shape[0] == 7


def test_a_localizer_series_alone_is_read(write_dicom, tmp_path: Path) -> None:
    for path in write_dicom(positions=stack(0, 10, 20)):
        edit(path, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert read_volume(tmp_path / "series").spatial_shape[0] == 3


# Several volumes in one series


def two_volumes(write_dicom, positions: list[tuple[float, float, float]]) -> tuple[list[Path], list[Path]]:
    """A series of two halves of `positions`, which differ in nothing but their voxels, counted alike."""
    files = write_dicom(positions=positions)
    half = len(positions) // 2
    stored = {path: int(np.frombuffer(value(path, "PixelData"), np.uint16)[0]) for path in files}
    first, second = ([path for path in files if (stored[path] > half) == late] for late in (False, True))
    for group, level in ((first, 100), (second, 900)):
        for number, path in enumerate(by_height(group), 1):
            edit(path, InstanceNumber=number, PixelData=np.full((4, 5), level + number, np.uint16).tobytes())
    return first, second


@pytest.mark.parametrize(
    ("keyword", "values", "words"),
    [
        ("AcquisitionNumber", (1, 2), "acquisition 2 of 2"),
        ("AcquisitionTime", ("101500", "101730.5"), "acquisition at"),
        ("ContentTime", ("101500", "101730.5"), "image at"),
        ("EchoTime", (4.6, 92.0), "echo time 92 (2 of 2)"),
        ("EchoNumbers", (1, 2), "echo 2 of 2"),
        ("TemporalPositionIdentifier", (1, 2), "time point 2 of 2"),
        ("DiffusionBValue", (0.0, 1000.0), "b-value 1000 (2 of 2)"),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]), "image type"),
        ("TriggerTime", (12.5, 400.0), "trigger time 400 (2 of 2)"),
    ],
)
@pytest.mark.parametrize("shift", [0.0, 1.0, 0.6])
def test_two_volumes_are_told_apart_by_what_differs(
    write_dicom, tmp_path: Path, keyword: str, values: tuple, words: str, shift: float
) -> None:
    halves = two_volumes(write_dicom, [*stack(0, 2, 4, 6), *stack(*(z + shift for z in (0, 2, 4, 6)))])
    for group, different in zip(halves, values, strict=True):
        for path in group:
            edit(path, **{keyword: different})
    first, second = list_series(tmp_path / "series")
    uid = value(halves[0][0], "SeriesInstanceUID")
    assert (first.uid, second.uid, first.slices, second.slices) == (f"{uid}#1", f"{uid}#2", 4, 4)
    assert words in second.description
    for series, level in ((first, 100), (second, 900)):
        volume = read_volume(tmp_path / "series", series_uid=series.uid)
        np.testing.assert_array_equal(volume.array[:, 0, 0] + 1024, level + np.arange(1, 5))
        assert volume.spacing_ijk[2] == 2
        assert volume.source.series_uid == uid
    for wanted in (None, uid):
        with pytest.raises(InputError, match="holds 2") as caught:
            read_volume(tmp_path / "series", series_uid=wanted)
        assert first.uid in caught.value.what


def test_volumes_taken_slice_by_slice_are_told_apart_by_their_times(write_dicom, tmp_path: Path) -> None:
    halves = two_volumes(write_dicom, [*stack(0, 2, 4, 6), *stack(0, 2, 4, 6)])
    for late, group in enumerate(halves):
        for k, path in enumerate(by_height(group)):
            edit(path, AcquisitionTime=f"1015{10 * late + k:02d}")
    assert [series.description for series in list_series(tmp_path / "series")] == [
        "synthetic, time 1 of 2", "synthetic, time 2 of 2",
    ]  # fmt: skip


def test_echoes_and_time_points_together_tell_four_volumes_apart(write_dicom, tmp_path: Path) -> None:
    files = by_height(write_dicom(positions=[place for place in stack(0, 2, 4) for _ in range(4)]))
    for n, path in enumerate(files):
        edit(path, EchoTime=[5, 90][n % 2], TemporalPositionIdentifier=[1, 2][n // 2 % 2])
    listed = list_series(tmp_path / "series")
    assert [series.slices for series in listed] == [3, 3, 3, 3]
    assert "echo time 5, time point 2 (2 of 4)" in listed[1].description


def test_volumes_that_nothing_tells_apart_are_refused_naming_files(write_dicom, tmp_path: Path) -> None:
    halves = two_volumes(write_dicom, [*stack(0, 2, 4, 6), *stack(0, 2, 4, 6)])
    with pytest.raises(InputError, match="4 slices that lie where another") as caught:
        read_volume(tmp_path / "series")
    assert by_height(halves[0])[0].name in caught.value.what


def interleaved(write_dicom, **both: object) -> None:
    """Two passes over a volume of 12 slices 2 mm apart: every other slice."""
    for path in write_dicom(positions=stack(*range(0, 24, 2)), shape=(8, 8)):
        k = round(float(value(path, "ImagePositionPatient")[2]) / 2)
        voxels = np.random.default_rng(k).integers(50 + k, 400 + k, (8, 8), dtype=np.uint16)
        edit(path, AcquisitionNumber=1 + k % 2, InstanceNumber=k + 1, **both)
        fill(path, voxels)


@pytest.mark.parametrize("thickness", [{"SliceThickness": 2.0}, {"SliceThickness": 3.5, "SpacingBetweenSlices": 2.0}])
def test_two_passes_over_one_volume_are_read_as_one_and_told(write_dicom, tmp_path: Path, thickness: dict) -> None:
    interleaved(write_dicom, **thickness)
    volume = read_volume(tmp_path / "series")
    assert volume.spatial_shape[0] == 12
    assert "acquisition 1 and acquisition 2 lie between each other" in volume.notes[0]


def test_passes_whose_slices_reach_to_the_next_of_their_own_are_two_volumes(write_dicom, tmp_path: Path) -> None:
    interleaved(write_dicom, SliceThickness=4.0)
    assert [series.slices for series in list_series(tmp_path / "series")] == [6, 6]


def test_volumes_between_each_other_that_are_numbered_alike_are_two(write_dicom, tmp_path: Path) -> None:
    halves = two_volumes(write_dicom, [*stack(0, 2, 4, 6), *stack(1, 3, 5, 7)])
    first, second = list_series(tmp_path / "series")
    assert "every 2. slice (2 of 2)" in second.description
    assert set(first.files) == set(halves[0])


def test_time_points_are_listed_in_their_order(write_dicom, tmp_path: Path) -> None:
    for n, path in enumerate(by_height(write_dicom(positions=[place for place in stack(0, 2) for _ in range(12)]))):
        edit(path, TemporalPositionIdentifier=1 + n % 12)
    said = [series.description.partition(", ")[2] for series in list_series(tmp_path / "series")]
    assert said == [f"time point {n} of 12" for n in range(1, 13)]


def test_pieces_of_one_volume_that_follow_each_other_are_one(write_dicom, tmp_path: Path) -> None:
    for n, path in enumerate(by_height(write_dicom(positions=TWELVE))):
        edit(path, AcquisitionNumber=1 + n // 4, AcquisitionTime=f"10150{n // 4}")
    volume = read_volume(tmp_path / "series")
    assert (volume.spatial_shape[0], volume.notes) == (12, ())


def test_brightness_that_alternates_is_told(write_dicom, tmp_path: Path) -> None:
    for n, path in enumerate(by_height(write_dicom(positions=TWELVE))):
        fill(path, np.full((4, 5), 300 if n % 2 else 900, np.uint16))
    assert "every other slice is brighter" in read_volume(tmp_path / "series").notes[0]


# UIDs and files


def test_slices_with_a_series_each_are_joined_when_they_form_one_stack(write_dicom, tmp_path: Path) -> None:
    for path in write_dicom(positions=TWELVE):
        edit(path, SeriesInstanceUID=generate_uid())
    (series,) = list_series(tmp_path / "series")
    assert series.slices == 12
    assert heights(tmp_path / "series") == list(range(12))
    assert "a SeriesInstanceUID of its own" in read_volume(tmp_path / "series").notes[0]


@pytest.mark.parametrize(
    "apart",
    [
        {"StudyInstanceUID": True, "FrameOfReferenceUID": True},
        {"SeriesNumber": True},
        {"SeriesDescription": True},
    ],
)
def test_slices_that_do_not_clearly_belong_together_are_not_joined(
    write_dicom, tmp_path: Path, apart: dict[str, bool]
) -> None:
    for n, path in enumerate(write_dicom(positions=stack(0, 2, 4))):
        other = {keyword: generate_uid() if keyword.endswith("UID") else str(n) for keyword in apart}
        edit(path, SeriesInstanceUID=generate_uid(), **other)
    assert [series.slices for series in list_series(tmp_path / "series")] == [1, 1, 1]


def test_slices_with_a_series_each_and_uneven_places_are_not_joined(write_dicom, tmp_path: Path) -> None:
    for path in write_dicom(positions=stack(0, 2, 9)):
        edit(path, SeriesInstanceUID=generate_uid())
    assert [series.slices for series in list_series(tmp_path / "series")] == [1, 1, 1]


def test_files_without_a_series_uid_are_one_series_by_what_they_have_in_common(write_dicom, tmp_path: Path) -> None:
    for folder, heading in (("a", "arterial"), ("b", "venous")):
        for path in write_dicom(folder, positions=stack(0, 2, 4), description=heading):
            edit(path, SeriesInstanceUID=None)
    arterial, venous = list_series(tmp_path)
    assert (arterial.slices, venous.slices) == (3, 3)
    volume = read_volume(tmp_path, series_uid=venous.uid)
    assert volume.source.series_uid is None
    assert "no SeriesInstanceUID" in volume.notes[0]


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("name", ["IM{:04d}", "{}", "slice.{}", "{}.dcm"])
def test_bare_files_are_recognised_by_their_content(write_dicom, tmp_path: Path, implicit: bool, name: str) -> None:
    files = write_dicom(positions=stack(0, 2.5, 5))
    for n, path in enumerate(files):
        write_bare(path, implicit)
        path.rename(path.with_name(name.format(n)))
    folder = tmp_path / "series"
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array[:, 0, 0] + 1024, [1, 2, 3])
    assert read_volume(folder / name.format(0)).spatial_shape == (1, 4, 5)


def test_what_is_no_dicom_in_the_folder_is_skipped(write_dicom, tmp_path: Path) -> None:
    write_dicom(positions=stack(0, 2))
    folder = tmp_path / "series"
    (folder / "._000.dcm").write_bytes(b"\0\5\x16\7" + bytes(200))
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600))
    (folder / "readme").write_text("The images of a patient.\n" * 20)
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + b"\xff" * 300)
    (folder / "zeros").write_bytes(bytes(4096))
    assert [series.slices for series in list_series(folder)] == [2]


# The small inputs


def test_the_series_of_one_sop_uid_is_whole(cases_root: Path) -> None:
    volume = read_volume(cases_root / "11-same-sop-uid" / "series")
    assert volume.spatial_shape == (12, 101, 122)
    assert "12 files share a SOPInstanceUID" in volume.notes[0]


def test_the_localizer_and_the_copy_are_left_out(cases_root: Path, data_root: Path) -> None:
    plain = read_volume(data_root / "dicom" / "hippocampus-crop")
    for name, said in (("localizer-in-series", "left out: 032.dcm"), ("one-slice-twice", "032.dcm of 010.dcm")):
        volume = read_volume(cases_root / "12-extra-slice" / name)
        np.testing.assert_array_equal(volume.array, plain.array)
        assert said in volume.notes[0]


def test_the_two_acquisitions_are_a_choice(cases_root: Path, data_root: Path) -> None:
    folder = cases_root / "26-interleaved-acquisitions" / "series"
    first, second = list_series(folder)
    assert "acquisition 1 of 2" in first.description
    assert "acquisition 2 of 2" in second.description
    plain = read_volume(data_root / "dicom" / "hippocampus-crop")
    np.testing.assert_array_equal(read_volume(folder, series_uid=first.uid).array, plain.array)
    assert read_volume(folder, series_uid=second.uid).ijk_to_ras[2, 3] == plain.ijk_to_ras[2, 3] + 0.5
    with pytest.raises(InputError, match="holds 2 series"):
        read_volume(folder)

"""DICOM: order, geometry, units, several series, tilt, gaps; and segmentations that refer to the slices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from apformer.errors import InputError, OutputError
from apformer.files import list_series, read_volume, write_labels
from dicom_samples import edit, stack


def test_slices_are_sorted_along_their_normal_and_in_hounsfield_units(write_dicom, tmp_path: Path) -> None:
    files = write_dicom(positions=stack(0, 2.5, 5, 7.5))
    volume = read_volume(tmp_path / "series")
    assert volume.array.shape == (4, 4, 5)
    np.testing.assert_array_equal(volume.array[:, 0, 0], [-1023, -1022, -1021, -1020])
    assert volume.array.dtype.kind == "i"
    np.testing.assert_allclose(volume.spacing_ijk, (3.0, 2.0, 2.5))  # columns 3 mm apart, rows 2 mm
    np.testing.assert_array_equal(volume.ijk_to_ras[:3, 3], [-10, 20, 0])
    assert (volume.orientation, volume.modality, volume.notes) == ("LPS", "CT", ())
    assert sorted(volume.source.dicom_files) == files
    assert read_volume(volume.source.dicom_files[2]).array[0, 0, 0] == -1021


def test_oblique_slices_lie_where_their_headers_say(write_dicom, tmp_path: Path) -> None:
    along_i, along_j = np.array([0.8, 0.6, 0.0]), np.array([0.0, 0.0, -1.0])  # coronal, turned
    normal = np.cross(along_i, along_j)
    positions = [tuple(np.array([1.0, 2.0, 3.0]) + normal * 4.0 * k) for k in range(3)]
    write_dicom(positions=positions, orientation=(*along_i, *along_j))
    volume = read_volume(tmp_path / "series")
    for k in range(3):
        right, front, up, _ = volume.ijk_to_ras @ [2, 1, k, 1]
        expected = np.array(positions[k]) + along_i * 3.0 * 2 + along_j * 2.0
        np.testing.assert_allclose((-right, -front, up), expected, atol=1e-9)
        assert volume.array[k, 0, 0] == k + 1 - 1024


def test_the_real_series_is_read(data_root: Path) -> None:
    folder = data_root / "dicom" / "hippocampus-crop"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    volume = read_volume(folder)
    assert volume.array.shape == (32, 51, 35)
    assert volume.array.dtype == np.int16
    assert (volume.modality, volume.spacing_ijk) == ("MR", (1.0, 1.0, 1.0))
    assert [path.name for path in volume.source.dicom_files] == [f"{n}.dcm" for n in range(1, 33)]


def test_several_series_are_listed_and_one_is_chosen(write_dicom, tmp_path: Path) -> None:
    write_dicom("study", positions=stack(0, 1), description="arterial")
    write_dicom("study", positions=stack(0, 1, 2), description="venous")
    arterial, venous = list_series(tmp_path / "study")
    assert (venous.description, venous.modality, venous.slices) == ("venous", "CT", 3)
    with pytest.raises(InputError, match="holds 2 series") as caught:
        read_volume(tmp_path / "study")
    for part in (arterial.uid, venous.uid, "arterial", "3 slices", "CT"):
        assert part in caught.value.what
    assert read_volume(tmp_path / "study", series_uid=venous.uid).spatial_shape[0] == 3
    with pytest.raises(InputError, match=r"no series 1\.2\.3"):
        read_volume(tmp_path / "study", series_uid="1.2.3")


def test_gantry_tilt_is_refused(write_dicom, tmp_path: Path) -> None:
    write_dicom(positions=stack(0, 2.5, 5, 7.5, tilt=0.2))
    with pytest.raises(InputError, match=r"gantry tilt.*11\.3 degrees"):
        read_volume(tmp_path / "series")


def test_rounded_positions_are_no_gap_and_no_tilt(write_dicom, tmp_path: Path) -> None:
    write_dicom(positions=[(10.0, -20.0 + 0.05 * (k % 2), round(0.625 * k, 1)) for k in range(9)])
    volume = read_volume(tmp_path / "series")
    assert volume.notes == ()
    assert volume.spacing_ijk[2] == pytest.approx(0.625)


def test_a_missing_slice_is_filled_with_a_note(write_dicom, tmp_path: Path) -> None:
    write_dicom(positions=stack(0, 2, 4, 8, 10))
    volume = read_volume(tmp_path / "series")
    np.testing.assert_array_equal(volume.array[:, 0, 0] + 1024, [1, 2, 3, 4, 4, 5])  # 3.5 rounds to even
    assert volume.spacing_ijk[2] == 2
    assert "uneven slice gaps" in volume.notes[0]
    assert volume.source.dicom_files == ()


def test_uneven_gaps_are_interpolated_in_place(write_dicom, tmp_path: Path) -> None:
    heights = [0.0, 2.0, 4.0, 5.0, 7.0]
    write_dicom(positions=stack(*heights), slopes=[10.0] * 5)
    volume = read_volume(tmp_path / "series")
    at = [0, 2, 4, 6]
    expected = np.interp(at, heights, [10, 20, 30, 40, 50]) - 1024
    np.testing.assert_allclose(volume.array[:, 0, 0], np.rint(expected))


def test_a_large_gap_is_refused(write_dicom, tmp_path: Path) -> None:
    write_dicom(positions=stack(0, 2, 4, 12, 14))
    with pytest.raises(InputError, match=r"gap of 8\.00 mm"):
        read_volume(tmp_path / "series")


def test_two_volumes_in_one_series_are_refused(write_dicom, tmp_path: Path) -> None:
    write_dicom(positions=stack(0, 2, 4, 0, 2, 4))
    with pytest.raises(InputError, match="3 slices that lie where another"):
        read_volume(tmp_path / "series")


def test_copies_of_a_slice_are_ignored_with_a_note(write_dicom, tmp_path: Path) -> None:
    files = write_dicom(positions=stack(0, 2, 4))
    (tmp_path / "series" / "copy.dcm").write_bytes(files[1].read_bytes())
    volume = read_volume(tmp_path / "series")
    assert volume.spatial_shape[0] == 3
    assert "1 copy of a slice was ignored" in volume.notes[0]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "different orientation"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "right angles"),
        ({"PixelSpacing": [0, 3]}, "pixel spacing"),
        ({"PixelSpacing": None}, "no pixel spacing"),
        ({"ImagePositionPatient": None}, "without a position"),
        ({"Rows": 2}, "different size"),
    ],
)
def test_slices_that_form_no_volume_are_refused(write_dicom, tmp_path: Path, values: dict, words: str) -> None:
    files = write_dicom(positions=stack(0, 2, 4))
    edit(files[1], **values)
    with pytest.raises(InputError, match=words):
        read_volume(tmp_path / "series")


def test_slopes_that_differ_between_slices_keep_their_fractions(write_dicom, tmp_path: Path) -> None:
    write_dicom(positions=stack(0, 2, 4), slopes=[1.0, 0.25, 1.0])
    volume = read_volume(tmp_path / "series")
    np.testing.assert_allclose(volume.array[:, 0, 0], [-1023, -1023.5, -1021])


def test_a_single_slice_without_position_is_read_with_a_note(write_dicom, tmp_path: Path) -> None:
    (path,) = write_dicom(positions=stack(0))
    assert read_volume(path).spacing_ijk == (3.0, 2.0, 2.5)
    edit(path, ImagePositionPatient=None)
    volume = read_volume(path)
    assert volume.orientation == "LPS"
    assert "no position" in volume.notes[0]
    path.write_bytes(path.read_bytes().replace(b"2.0\\3.0", b"2.0\\3x0"))
    with pytest.raises(InputError, match="PixelSpacing cannot be decoded"):
        read_volume(path)


def multi_frame(write_dicom, tmp_path: Path, heights: list[float]) -> Path:
    """An enhanced CT file with one frame per height, in that order; frame n holds n + 1."""
    import pydicom
    from pydicom.dataset import Dataset
    from pydicom.uid import EnhancedCTImageStorage

    (path,) = write_dicom(positions=stack(0))
    image = pydicom.dcmread(path)
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    image.NumberOfFrames = len(heights)
    image.PixelData = np.repeat(np.arange(1, len(heights) + 1, dtype=np.uint16), 20).tobytes()
    shared, orientation, measures, transform = Dataset(), Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing, measures.SliceThickness = [2.0, 3.0], 2.0
    transform.RescaleSlope, transform.RescaleIntercept, transform.RescaleType = 1, -1024, "HU"
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    shared.PixelValueTransformationSequence = [transform]
    image.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for number, height in enumerate(heights, 1):
        frame, position, content = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [10.0, -20.0, height]
        content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = "1", number, [1, number]
        frame.PlanePositionSequence, frame.FrameContentSequence = [position], [content]
        frames.append(frame)
    image.PerFrameFunctionalGroupsSequence = frames
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(image, keyword)
    image.save_as(path)
    return path


def test_a_multi_frame_file_is_sorted_by_position(write_dicom, tmp_path: Path) -> None:
    path = multi_frame(write_dicom, tmp_path, [4.0, 0.0, 2.0, 6.0])
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array[:, 0, 0], np.array([2, 3, 1, 4]) - 1024)
    np.testing.assert_allclose(volume.spacing_ijk, (3.0, 2.0, 2.0))
    np.testing.assert_array_equal(volume.ijk_to_ras[:3, 3], [-10, 20, 0])
    assert volume.source.dicom_files == (path,)


def test_more_places_than_frames_are_refused(write_dicom, tmp_path: Path) -> None:
    path = multi_frame(write_dicom, tmp_path, [0.0, 2.0, 4.0])
    edit(path, NumberOfFrames=2)
    with pytest.raises(InputError, match="places of 3 frames and has 2"):
        read_volume(path)


def test_two_time_points_in_one_file_are_a_choice_of_its_folder(write_dicom, tmp_path: Path) -> None:
    import pydicom

    path = multi_frame(write_dicom, tmp_path, [0.0, 0.0, 2.0, 2.0, 4.0, 4.0])
    image = pydicom.dcmread(path)
    for n, frame in enumerate(image.PerFrameFunctionalGroupsSequence):
        frame.FrameContentSequence[0].TemporalPositionIndex = 1 + n % 2
    image.save_as(path)
    with pytest.raises(InputError, match="holds 2 volumes: time point 1 of 2; time point 2 of 2"):
        read_volume(path)
    first, second = list_series(path.parent)
    for series, expected in ((first, [1, 3, 5]), (second, [2, 4, 6])):
        volume = read_volume(path.parent, series_uid=series.uid)
        np.testing.assert_array_equal(volume.array[:, 0, 0] + 1024, expected)


def test_two_multi_frame_files_of_one_series_are_stacked(write_dicom, tmp_path: Path) -> None:
    lower = multi_frame(write_dicom, tmp_path, [0.0, 2.0])
    lower.rename(tmp_path / "lower.dcm")
    upper = multi_frame(write_dicom, tmp_path, [6.0, 4.0])
    (tmp_path / "lower.dcm").rename(upper.parent / "lower.dcm")
    edit(upper, SeriesInstanceUID="1.2.3")
    edit(upper.parent / "lower.dcm", SeriesInstanceUID="1.2.3")
    np.testing.assert_array_equal(read_volume(upper.parent).array[:, 0, 0] + 1024, [1, 2, 2, 1])


def test_frames_scaled_differently_are_refused(write_dicom, tmp_path: Path) -> None:
    import pydicom
    from pydicom.dataset import Dataset

    path = multi_frame(write_dicom, tmp_path, [0.0, 2.0])
    image = pydicom.dcmread(path)
    for slope, frame in enumerate(image.PerFrameFunctionalGroupsSequence, 1):
        transform = Dataset()
        transform.RescaleSlope, transform.RescaleIntercept = slope, 0
        frame.PixelValueTransformationSequence = [transform]
    image.save_as(path)
    with pytest.raises(InputError, match="scales its frames differently"):
        read_volume(path)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no images here")
    with pytest.raises(InputError, match="holds no DICOM images"):
        read_volume(tmp_path)


def test_a_truncated_slice_is_refused(write_dicom, tmp_path: Path) -> None:
    files = write_dicom(positions=stack(0, 2, 4), shape=(64, 64))
    files[1].write_bytes(files[1].read_bytes()[:-4000])
    with pytest.raises(InputError, match="could not be read"):
        read_volume(tmp_path / "series")


@pytest.mark.parametrize("damage", [(b"2.5", b"2x5"), (b"CS", b"C\xff"), (b"0.0\\", b"0e.\\")])
def test_a_header_with_altered_bytes_is_refused(write_dicom, tmp_path: Path, damage: tuple[bytes, bytes]) -> None:
    (path,) = write_dicom(positions=stack(0))
    assert damage[0] in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(*damage))
    with pytest.raises(InputError, match="could not be read"):
        read_volume(path)


def labels_for(volume, *voxels: tuple[int, int, int]):
    array = np.zeros(volume.spatial_shape, np.uint8)
    array[1, :2, :3] = 1
    for voxel in voxels:
        array[voxel] = 3
    return volume.with_array(array)


def test_a_dicom_segmentation_refers_to_the_slices(write_dicom, tmp_path: Path, two_labels) -> None:
    import highdicom as hd

    write_dicom(positions=stack(0, 2, 4, 6))
    image = read_volume(tmp_path / "series")
    labels = labels_for(image, (3, 2, 4))
    write_labels(tmp_path / "seg.dcm", labels, two_labels, reference=image, provenance={"model": "liver-ct"})
    segmentation = hd.seg.segread(tmp_path / "seg.dcm")
    assert [segmentation.get_segment_description(n).segment_label for n in (1, 2)] == ["Liver", "Left kidney"]
    kidney = segmentation.get_segment_description(2)
    assert kidney.segmented_property_type.value == "64033007"
    modifier = kidney.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
    assert modifier.CodeMeaning == "Left"
    assert kidney.algorithm_identification.name == "liver-ct"
    uids = [uid for _, _, uid in segmentation.get_source_image_uids()]
    pixels = segmentation.get_pixels_by_source_instance(uids, combine_segments=True)
    by_uid = dict(zip(uids, pixels, strict=True))
    import pydicom

    for k, path in enumerate(image.source.dicom_files):
        expected = np.where(labels.array[k] == 3, 2, labels.array[k])  # segment numbers
        stored = by_uid.get(pydicom.dcmread(path).SOPInstanceUID, np.zeros_like(expected))
        np.testing.assert_array_equal(stored, expected)


def test_names_in_a_dicom_segmentation_are_utf_8(write_dicom, tmp_path: Path, two_labels) -> None:
    import pydicom

    for path in write_dicom(positions=stack(0, 2, 4, 6)):
        edit(path, SpecificCharacterSet="ISO_IR 100", PatientName="M\u00fcller^J\u00f6rg")
    image = read_volume(tmp_path / "series")
    named = (replace(two_labels[0], name="Gro\u00dfe Mu\u0308ll"), replace(two_labels[1], name="\u809d\u81d3 a\\b"))
    write_labels(tmp_path / "seg.dcm", labels_for(image, (3, 2, 4)), named, reference=image)
    written = pydicom.dcmread(tmp_path / "seg.dcm")
    assert written.SpecificCharacterSet == "ISO_IR 192"
    assert [one.SegmentLabel for one in written.SegmentSequence] == ["Gro\u00dfe M\u00fcll", "\u809d\u81d3 a/b"]
    assert written.PatientName == "M\u00fcller^J\u00f6rg"


@pytest.mark.parametrize("uid", ["1.2.3", None])
def test_a_dicom_segmentation_needs_slices_with_uids_of_their_own(
    write_dicom, tmp_path: Path, two_labels, uid: str | None
) -> None:
    for path in write_dicom(positions=stack(0, 2)):
        edit(path, SOPInstanceUID=uid)
    image = read_volume(tmp_path / "series")
    with pytest.raises(OutputError, match="by their UIDs"):
        write_labels(tmp_path / "seg.dcm", labels_for(image), two_labels, reference=image)


def test_a_dicom_segmentation_of_a_multi_frame_file_lies_in_place(write_dicom, tmp_path: Path, two_labels) -> None:
    import highdicom as hd

    image = read_volume(multi_frame(write_dicom, tmp_path, [4.0, 0.0, 2.0, 6.0]))
    labels = labels_for(image, (0, 0, 0))
    write_labels(tmp_path / "seg.dcm", labels, two_labels, reference=image)
    volume = hd.seg.segread(tmp_path / "seg.dcm").get_volume(combine_segments=True)
    for segment, value in ((1, 1), (2, 3)):
        for index in np.argwhere(volume.array == segment):
            left, back, up, _ = volume.affine @ [*index, 1]
            i, j, k, _ = np.rint(np.linalg.solve(image.ijk_to_ras, [-left, -back, up, 1])).astype(int)
            assert labels.array[k, j, i] == value
        assert np.count_nonzero(volume.array == segment) == np.count_nonzero(labels.array == value)


def test_a_dicom_segmentation_needs_dicom_slices_and_voxels(
    write_dicom, tmp_path: Path, an_image, a_label_map, two_labels
) -> None:
    with pytest.raises(OutputError, match="needs the DICOM slices"):
        write_labels(tmp_path / "seg.dcm", a_label_map, two_labels, reference=an_image)
    write_dicom(positions=stack(0, 2))
    image = read_volume(tmp_path / "series")
    empty = image.with_array(np.zeros(image.spatial_shape, np.uint8))
    with pytest.raises(OutputError, match="segmentation is empty"):
        write_labels(tmp_path / "seg.dcm", empty, two_labels, reference=image)
    assert not (tmp_path / "seg.dcm").exists()


def test_a_segmentation_beside_the_slices_is_no_second_series(write_dicom, tmp_path: Path, two_labels) -> None:
    write_dicom(positions=stack(0, 2, 4))
    image = read_volume(tmp_path / "series")
    write_labels(tmp_path / "series" / "seg.dcm", labels_for(image), two_labels, reference=image)
    assert read_volume(tmp_path / "series").spatial_shape == (3, 4, 5)
    with pytest.raises(InputError, match="is no image"):
        read_volume(tmp_path / "series" / "seg.dcm")


def test_a_dicom_segmentation_of_the_real_series_is_written(data_root: Path, tmp_path: Path, two_labels) -> None:
    folder = data_root / "dicom" / "hippocampus-crop"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    image = read_volume(folder)
    write_labels(tmp_path / "seg.dcm", labels_for(image, (9, 9, 9)), two_labels, reference=image)
    assert (tmp_path / "seg.dcm").stat().st_size > 1000

"""NIfTI: voxels of the stored type, the matrix of the header, and refusal of headers that cannot be trusted."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from apformer.errors import InputError, OutputError
from apformer.files import read_volume, write_scalar
from apformer.volume import Volume
from hypothesis import given, settings
from hypothesis import strategies as st

PIXDIM, DIM, DATATYPE, SLOPE, UNITS, FORMS, SFORM = 76, 40, 70, 112, 123, 252, 280


@pytest.fixture
def a_header(tmp_path: Path, an_image: Volume) -> bytearray:
    """`an_image` as NIfTI-1, written by ITK, to be spoiled byte by byte."""
    image = sitk.GetImageFromArray(an_image.array)
    image.SetSpacing((0.5, 0.75, 2.0))
    sitk.WriteImage(image, str(tmp_path / "itk.nii"))
    return bytearray((tmp_path / "itk.nii").read_bytes())


def read_spoiled(folder: Path, content: bytes, *patches: tuple[int, str, tuple]) -> Volume:
    content = bytearray(content)
    for offset, form, values in patches:
        content[offset : offset + struct.calcsize(form)] = struct.pack(form, *values)
    (folder / "spoiled.nii").write_bytes(content)
    return read_volume(folder / "spoiled.nii")


def test_voxels_and_geometry_agree_with_itk(tmp_path: Path, an_image: Volume) -> None:
    write_scalar(tmp_path / "image.nii.gz", an_image)
    itk = sitk.ReadImage(str(tmp_path / "image.nii.gz"))
    ours = read_volume(tmp_path / "image.nii.gz")
    assert ours.array.dtype == np.int16
    np.testing.assert_array_equal(sitk.GetArrayFromImage(itk), ours.array)
    for index in ((0, 0, 0), (6, 5, 4)):
        right, front, up, _ = ours.ijk_to_ras @ [*index, 1]
        np.testing.assert_allclose(itk.TransformIndexToPhysicalPoint(index), (-right, -front, up), atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(quaternion=st.tuples(*[st.floats(-1, 1)] * 4), flip=st.booleans(), spacing=st.tuples(*[st.floats(0.1, 9)] * 3))
def test_the_matrix_comes_back_from_sform_and_from_qform(tmp_path_factory, quaternion, flip, spacing) -> None:
    length = np.linalg.norm(quaternion)
    a, b, c, d = np.array(quaternion) / length if length > 0.1 else (1.0, 0.0, 0.0, 0.0)
    rotation = np.array([
        [1 - 2 * (c * c + d * d), 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), 1 - 2 * (b * b + d * d), 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), 1 - 2 * (b * b + c * c)],
    ])  # fmt: skip
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.array(spacing) * [1, -1 if flip else 1, 1]
    matrix[:3, 3] = [10.5, -200.25, 3.125]
    path = tmp_path_factory.mktemp("nifti") / "image.nii"
    write_scalar(path, Volume(np.arange(8.0).reshape(2, 2, 2), matrix))
    from_sform = read_volume(path)
    np.testing.assert_array_equal(from_sform.ijk_to_ras, matrix.astype(np.float32))
    from_qform = read_spoiled(path.parent, path.read_bytes(), (FORMS, "<hh", (1, 0)))
    # a = sqrt(1 - b² - c² - d²) keeps half the digits of float32 near a half turn
    np.testing.assert_allclose(from_qform.ijk_to_ras[:3, :3] / spacing, matrix[:3, :3] / spacing, atol=2e-3)
    np.testing.assert_array_equal(from_qform.ijk_to_ras[:3, 3], matrix[:3, 3])
    write_scalar(path, from_sform)
    np.testing.assert_array_equal(read_volume(path).ijk_to_ras, from_sform.ijk_to_ras)


@pytest.mark.parametrize("spacing", [0.0, -0.75, float("nan"), float("inf")])
def test_spacing_that_is_not_positive_is_refused(tmp_path: Path, a_header: bytearray, spacing: float) -> None:
    with pytest.raises(InputError, match="spacing"):
        read_spoiled(tmp_path, a_header, (PIXDIM + 8, "<f", (spacing,)))


def test_a_singular_or_sheared_sform_is_refused(tmp_path: Path, a_header: bytearray) -> None:
    with pytest.raises(InputError, match="singular"):
        read_spoiled(tmp_path, a_header, (FORMS, "<hh", (0, 1)), (SFORM, "<8f", (0.5, 0, 0, 0, 0.5, 0, 0, 0)))
    with pytest.raises(InputError, match=r"spacing|singular"):
        read_spoiled(tmp_path, a_header, (FORMS, "<hh", (0, 1)), (SFORM, "<12f", (0,) * 12))
    with pytest.raises(InputError, match="sheared"):
        read_spoiled(tmp_path, a_header, (FORMS, "<hh", (0, 1)), (SFORM, "<4f", (0.5, 0.3, 0, 0)))


def test_two_voxel_sizes_in_one_header_are_noted(tmp_path: Path, a_header: bytearray) -> None:
    volume = read_spoiled(tmp_path, a_header, (PIXDIM + 4, "<f", (4.0,)), (FORMS, "<hh", (0, 1)))
    assert volume.spacing_ijk == pytest.approx((4.0, 0.75, 2.0))
    assert "two voxel sizes" in volume.notes[0]


def test_a_header_without_orientation_is_noted(tmp_path: Path, a_header: bytearray) -> None:
    volume = read_spoiled(tmp_path, a_header, (FORMS, "<hh", (0, 0)))
    np.testing.assert_array_equal(volume.ijk_to_ras, np.diag([-0.5, -0.75, 2.0, 1.0]))
    assert "no orientation" in volume.notes[0]


def test_units_are_converted_to_millimetres(tmp_path: Path, a_header: bytearray) -> None:
    volume = read_spoiled(tmp_path, a_header, (UNITS, "<B", (3,)))
    assert volume.spacing_ijk == pytest.approx((0.0005, 0.00075, 0.002))


def test_a_series_of_volumes_is_refused(tmp_path: Path) -> None:
    four = sitk.JoinSeries([sitk.Image(3, 3, 3, sitk.sitkInt16)] * 2)
    sitk.WriteImage(four, str(tmp_path / "four.nii"))
    with pytest.raises(InputError, match=r"4 dimensions \(3 x 3 x 3 x 2\)"):
        read_volume(tmp_path / "four.nii")


def test_a_fourth_axis_of_one_is_no_series(tmp_path: Path, a_header: bytearray, an_image: Volume) -> None:
    volume = read_spoiled(tmp_path, a_header, (DIM, "<5h", (4, 7, 6, 5, 1)))
    np.testing.assert_array_equal(volume.array, an_image.array)


def test_a_single_slice_and_vectors_are_read(tmp_path: Path) -> None:
    flat = np.arange(12, dtype=np.uint8).reshape(3, 4)
    sitk.WriteImage(sitk.GetImageFromArray(flat), str(tmp_path / "flat.nii"))
    np.testing.assert_array_equal(read_volume(tmp_path / "flat.nii").array, flat[None])
    vectors = np.random.default_rng(0).normal(size=(2, 3, 4, 3)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(vectors, isVector=True), str(tmp_path / "vectors.nii"))
    np.testing.assert_array_equal(read_volume(tmp_path / "vectors.nii").array, np.moveaxis(vectors, -1, 0))
    colours = np.arange(72, dtype=np.uint8).reshape(2, 3, 4, 3)
    sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), str(tmp_path / "colours.nii"))
    read = read_volume(tmp_path / "colours.nii")
    np.testing.assert_array_equal(read.array, np.moveaxis(colours, -1, 0))


def test_scaled_voxels_become_float_and_unscaled_keep_their_type(tmp_path: Path, a_header: bytearray, an_image) -> None:
    assert read_spoiled(tmp_path, a_header).array.dtype == np.int16
    scaled = read_spoiled(tmp_path, a_header, (SLOPE, "<2f", (0.5, -10.0)))
    assert scaled.array.dtype == np.float32
    np.testing.assert_allclose(scaled.array, an_image.array * 0.5 - 10)


def test_the_other_byte_order_is_read(tmp_path: Path) -> None:
    header = bytearray(352)
    struct.pack_into(">i", header, 0, 348)
    struct.pack_into(">8h", header, DIM, 3, 2, 1, 1, 1, 1, 1, 1)
    struct.pack_into(">hh", header, DATATYPE, 4, 16)
    struct.pack_into(">8f", header, PIXDIM, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into(">f", header, 108, 352)
    header[344:348] = b"n+1\0"
    (tmp_path / "big.nii").write_bytes(bytes(header) + struct.pack(">2h", -5, 300))
    volume = read_volume(tmp_path / "big.nii")
    np.testing.assert_array_equal(volume.array, [[[-5, 300]]])
    assert volume.array.dtype.isnative


def test_nifti_2_is_read(tmp_path: Path) -> None:
    header = bytearray(544)
    struct.pack_into("<i", header, 0, 540)
    header[4:12] = b"n+2\0\r\n\x1a\n"
    struct.pack_into("<hh", header, 12, 512, 16)
    struct.pack_into("<8q", header, 16, 3, 2, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<8d", header, 104, 1, 1.5, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<q", header, 168, 544)
    struct.pack_into("<ii", header, 344, 0, 1)
    struct.pack_into("<12d", header, 400, 1.5, 0, 0, 7, 0, 1, 0, 8, 0, 0, 1, 9)
    (tmp_path / "two.nii").write_bytes(bytes(header) + struct.pack("<2H", 5, 60000))
    volume = read_volume(tmp_path / "two.nii")
    np.testing.assert_array_equal(volume.array, [[[5, 60000]]])
    np.testing.assert_array_equal(volume.ijk_to_ras[:3, 3], [7, 8, 9])


@pytest.mark.parametrize("kept", [10, 200, 352, 400])
@pytest.mark.parametrize("gzipped", [False, True])
def test_a_truncated_file_is_refused(tmp_path: Path, a_header: bytearray, kept: int, gzipped: bool) -> None:
    path = tmp_path / ("cut.nii.gz" if gzipped else "cut.nii")
    path.write_bytes(gzip.compress(bytes(a_header[:kept])) if gzipped else a_header[:kept])
    with pytest.raises(InputError, match="could not be read"):
        read_volume(path)


def test_a_cut_or_altered_gzip_stream_is_refused(tmp_path: Path, a_header: bytearray) -> None:
    packed = bytearray(gzip.compress(bytes(a_header)))
    (tmp_path / "cut.nii.gz").write_bytes(packed[:-20])
    with pytest.raises(InputError, match="could not be read"):
        read_volume(tmp_path / "cut.nii.gz")
    packed[-6] ^= 0xFF  # in the checksum
    (tmp_path / "altered.nii.gz").write_bytes(packed)
    with pytest.raises(InputError, match="could not be read"):
        read_volume(tmp_path / "altered.nii.gz")


def test_a_header_that_promises_more_than_memory_is_refused(tmp_path: Path, a_header: bytearray) -> None:
    with pytest.raises(InputError, match="could not be read"):
        read_spoiled(tmp_path, a_header, (DIM, "<4h", (3, 32767, 32767, 32767)))


def test_an_image_without_voxels_and_complex_voxels_are_refused(tmp_path: Path, a_header: bytearray) -> None:
    with pytest.raises(InputError, match="is empty"):
        read_spoiled(tmp_path, a_header, (DIM, "<4h", (3, 7, 0, 5)))
    with pytest.raises(InputError, match="complex"):
        read_spoiled(tmp_path, a_header, (DATATYPE, "<h", (32,)))
    with pytest.raises(InputError, match="dimensions"):
        read_spoiled(tmp_path, a_header, (DIM, "<h", (99,)))


def test_what_nifti_cannot_hold_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not fit into NIfTI"):
        write_scalar(tmp_path / "half.nii", Volume(np.zeros((2, 2, 2), np.float16), np.eye(4)))
    assert list(tmp_path.iterdir()) == []


def test_a_large_ct_is_read_in_its_own_type_with_one_copy(tmp_path: Path) -> None:
    import tracemalloc

    voxels = np.zeros((78, 256, 256), np.int16)
    voxels[40, 100, 100] = 900
    write_scalar(tmp_path / "ct.nii.gz", Volume(voxels, np.diag([0.7, 0.7, 5.0, 1.0])))
    tracemalloc.start()
    volume = read_volume(tmp_path / "ct.nii.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert volume.array.dtype == np.int16
    assert peak < 1.5 * voxels.nbytes


@pytest.mark.parametrize("offset", [float("nan"), float("inf")])
def test_a_voxel_offset_that_is_no_place_in_the_file_is_refused(tmp_path: Path, a_header, offset: float) -> None:
    with pytest.raises(InputError, match="could not be read"):
        read_spoiled(tmp_path, a_header, (108, "<f", (offset,)))

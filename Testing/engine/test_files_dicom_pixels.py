"""Voxels of DICOM files: their forms as ITK reads them, padding, memory that is asked for first, and damage."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from apformer.errors import InputError
from apformer.files import itk, list_series, read_volume
from apformer.files.dicom.file import open_dicom
from apformer.files.dicom.pixels import read_frames
from apformer.memory import memory_limit
from dicom_samples import as_big_endian, as_implicit, compress, edit, fill, overwrite, stack
from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    RLELossless,
)


def pixels(path: Path) -> np.ndarray:
    return read_frames(open_dicom(path)).array


# Forms


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("scale", [(1, 0), (1, -1024), (2, 5), (0.5, 0), (-1, 3), (0, 7)])
@pytest.mark.parametrize("bits", [(8, 8, 0), (8, 8, 1), (16, 12, 0), (16, 16, 0), (16, 16, 1), (16, 10, 1)])
def test_uncompressed_voxels_are_those_of_itk(
    write_dicom, tmp_path: Path, photometric: str, scale: tuple[float, float], bits: tuple[int, int, int]
) -> None:
    allocated, stored, signed = bits
    (path,) = write_dicom(positions=stack(0))
    low, high = (-(2 ** (stored - 1)), 2 ** (stored - 1)) if signed else (0, 2**stored)
    voxels = np.random.default_rng(stored).integers(low, high, (4, 5))
    edit(
        path, BitsAllocated=allocated, BitsStored=stored, HighBit=stored - 1, PixelRepresentation=signed,
        PhotometricInterpretation=photometric, RescaleSlope=scale[0], RescaleIntercept=scale[1],
        PixelData=voxels.astype(f"<{'i' if signed else 'u'}{allocated // 8}").tobytes(),
    )  # fmt: skip
    ours = pixels(path)
    try:
        theirs = itk.array_of(itk.read_image(path))
    except InputError:  # ITK gives up where the rescaled type is larger than the stored one by two sizes
        assert ours.min() >= low * abs(scale[0]) + scale[1] - 2**stored
        return
    np.testing.assert_array_equal(ours, theirs)
    assert ours.dtype == (np.float32 if theirs.dtype == np.float64 else theirs.dtype)


@pytest.mark.parametrize("planar", [0, 1])
def test_colours_and_palettes_are_those_of_itk(write_dicom, tmp_path: Path, planar: int) -> None:
    (path,) = write_dicom(positions=stack(0))
    voxels = np.random.default_rng(0).integers(0, 256, 60, dtype=np.uint8)
    eight = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "RescaleSlope": None, "RescaleIntercept": None}
    edit(path, **eight, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=planar,
         PixelData=voxels.tobytes())  # fmt: skip
    np.testing.assert_array_equal(pixels(path), itk.array_of(itk.read_image(path)))
    edit(path, SamplesPerPixel=1, PhotometricInterpretation="PALETTE COLOR", PixelData=voxels[:20].tobytes())
    for shift, colour in enumerate(("Red", "Green", "Blue")):
        table = np.roll(np.arange(256), shift * 9)
        kind, bits = ("<u2", 16) if planar else (np.uint8, 8)
        words = (table * 257 if planar else table).astype(kind).tobytes()
        edit(path, **{f"{colour}PaletteColorLookupTableDescriptor": [256, 0, bits],
                      f"{colour}PaletteColorLookupTableData": words})  # fmt: skip
    np.testing.assert_array_equal(pixels(path), itk.array_of(itk.read_image(path)))


def test_values_in_the_upper_bits_are_shifted_down(write_dicom, tmp_path: Path) -> None:
    (path,) = write_dicom(positions=stack(0))
    edit(path, BitsStored=12, HighBit=15, RescaleIntercept=0)
    fill(path, (np.arange(20, dtype=np.uint16) * 100 << 4).reshape(4, 5))
    np.testing.assert_array_equal(pixels(path).ravel(), np.arange(20) * 100)


def test_big_endian_and_implicit_files_are_read(write_dicom, tmp_path: Path) -> None:
    files = write_dicom(positions=stack(0, 2, 4))
    as_implicit(files[0])
    as_big_endian(files[1])
    np.testing.assert_array_equal(read_volume(tmp_path / "series").array[:, 0, 0] + 1024, [1, 2, 3])


def test_run_lengths_are_unpacked(write_dicom, tmp_path: Path) -> None:
    (path,) = write_dicom(positions=stack(0), shape=(40, 30))
    voxels = np.random.default_rng(0).integers(0, 4000, (40, 30), dtype=np.uint16)
    voxels[10:20] = 7
    fill(path, voxels)
    image = dcmread(path)
    image.compress(RLELossless)
    image.save_as(path)
    np.testing.assert_array_equal(pixels(path)[0], voxels.astype(int) - 1024)
    frame = next(generate_frames(image.PixelData, number_of_frames=1))
    for damaged in (frame[:-60], frame[:64] + b"\x81" * (len(frame) - 64), b"\7" + frame[1:], frame[:40]):
        compress(path, [damaged], RLELossless)
        with pytest.raises(InputError, match="run lengths"):
            pixels(path)


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
@pytest.mark.parametrize("frames", [1, 3])
def test_compressed_voxels_are_those_of_itk(tmp_path: Path, compressor: str, frames: int) -> None:
    path = tmp_path / "image.dcm"
    voxels = np.random.default_rng(0).integers(-500, 2000, (frames, 40, 36)).astype(np.int16)
    image = sitk.GetImageFromArray(voxels if frames > 1 else voxels[0])
    for tag, text in (("0008|0060", "CT"), ("0028|1052", "-24"), ("0028|1053", "1")):
        image.SetMetaData(tag, text)
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(path))
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    writer.Execute(image)
    assert dcmread(path).file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(pixels(path), itk.array_of(itk.read_image(path)))


@pytest.fixture
def a_jpeg(write_dicom) -> Path:
    """A slice of 16 x 24 pixels in baseline JPEG."""
    from PIL import Image

    (path,) = write_dicom(positions=stack(0), shape=(16, 24))
    edit(path, BitsAllocated=8, BitsStored=8, HighBit=7, RescaleIntercept=0)
    stream = io.BytesIO()
    Image.fromarray(np.arange(384, dtype=np.uint32).reshape(16, 24).astype(np.uint8)).save(stream, "JPEG", quality=95)
    compress(path, [stream.getvalue()], JPEGBaseline8Bit)
    return path


def test_a_jpeg_that_contradicts_the_header_is_refused(a_jpeg: Path) -> None:
    assert pixels(a_jpeg).shape == (1, 16, 24)
    edit(a_jpeg, Rows=60000, Columns=60000)
    with pytest.raises(InputError):
        pixels(a_jpeg)
    edit(a_jpeg, Rows=24, Columns=16)
    with pytest.raises(InputError, match="not those of its header"):
        pixels(a_jpeg)


def test_more_frames_than_there_are_is_refused(a_jpeg: Path) -> None:
    edit(a_jpeg, NumberOfFrames=2)
    with pytest.raises(InputError, match="1 pieces of compressed voxels for 2 frames"):
        pixels(a_jpeg)


@pytest.mark.parametrize("cut", [1, 9, 12, 100, 300])
def test_a_compressed_file_that_ends_too_early_is_refused(a_jpeg: Path, cut: int) -> None:
    a_jpeg.write_bytes(a_jpeg.read_bytes()[:-cut])
    with pytest.raises(InputError, match=a_jpeg.name):
        read_volume(a_jpeg)


def test_forms_that_cannot_be_verified_or_decoded_are_refused_with_a_way_out(write_dicom, tmp_path: Path) -> None:
    deflated, film = write_dicom(positions=stack(0, 2))
    image = dcmread(deflated)
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    image.save_as(deflated, enforce_file_format=True)
    with pytest.raises(InputError, match="no checksum") as caught:
        read_volume(deflated)
    assert "uncompressed" in caught.value.remedy
    compress(film, [b"\0\0\1\xb3"], MPEG2MPML)
    with pytest.raises(InputError, match="MPEG2"):
        read_volume(film)


# Padding


def padded(write_dicom, stored: np.ndarray, **values: object) -> Path:
    (path,) = write_dicom(positions=stack(0), shape=stored.shape)
    edit(path, PixelRepresentation=int(stored.dtype.kind == "i"), **values)
    fill(path, stored)
    return path


@pytest.mark.parametrize("implicit", [False, True])
def test_padding_of_mr_gets_the_lowest_value_of_the_others(write_dicom, implicit: bool) -> None:
    stored = np.array([[-32768, 40, 50], [60, 300, -32768]], np.int16)
    path = padded(write_dicom, stored, Modality="MR", PixelPaddingValue=-32768, RescaleIntercept=0)
    if implicit:  # there the header does not say whether the value has a sign
        as_implicit(path)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array[0], [[40, 40, 50], [60, 300, 40]])
    assert "2 voxels of padding (PixelPaddingValue) were given the value 40" in volume.notes[0]


def test_padding_of_ct_becomes_air(write_dicom) -> None:
    stored = np.array([[-2000, 40, -300], [60, 300, -2000]], np.int16)
    path = padded(write_dicom, stored, PixelPaddingValue=-2000, RescaleIntercept=0)
    np.testing.assert_array_equal(read_volume(path).array[0], [[-1000, 40, -300], [60, 300, -1000]])


def test_padding_is_told_in_stored_units_and_by_a_range(write_dicom) -> None:
    stored = np.array([[65530, 1000, 65535], [1064, 0, 2024]], np.uint16)
    path = padded(write_dicom, stored, Modality="MR", PixelPaddingValue=65535, PixelPaddingRangeLimit=65530)
    np.testing.assert_array_equal(read_volume(path).array[0], [[-1024, -24, -1024], [40, -1024, 1000]])


def test_padding_written_with_the_wrong_sign_is_recognised(write_dicom) -> None:
    path = padded(write_dicom, np.array([[-2000, 40], [60, 300]], np.int16), Modality="MR", RescaleIntercept=0,
                  PixelPaddingValue=0)  # fmt: skip
    overwrite(path, 0x00280120, b"SS", struct.pack("<h", -2000))
    data = path.read_bytes().replace(b"\x28\x00\x20\x01SS", b"\x28\x00\x20\x01US")
    path.write_bytes(data)
    np.testing.assert_array_equal(read_volume(path).array[0], [[40, 40], [60, 300]])


def test_padding_that_disturbs_nothing_is_left(write_dicom) -> None:
    stored = np.array([[0, 1, 500], [2, 0, 1000]], np.uint16)
    for padding in (0, 500, 7):  # just below the others, between them, nowhere
        path = padded(write_dicom, stored, Modality="MR", PixelPaddingValue=padding, RescaleIntercept=0)
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.array[0], stored)
        assert volume.notes == ()


def test_the_padded_series_is_the_plain_one_within_its_field_of_view(cases_root: Path, data_root: Path) -> None:
    plain = read_volume(data_root / "dicom" / "hippocampus-crop")
    volume = read_volume(cases_root / "25-pixel-padding" / "series")
    changed = volume.array != plain.array
    assert volume.array.min() == 2
    assert np.all(volume.array[changed] == 2)
    assert changed.sum() <= 8960
    assert "8960 voxels of padding" in volume.notes[0]


def test_the_hippocampus_is_found_in_the_padded_series(cases_root: Path, data_root: Path) -> None:
    from apformer.bundles import load_bundle
    from apformer.inference import Segmenter

    model = Path(__file__).resolve().parents[2] / "Resources" / "Models" / "hippocampus-mr"
    segmenter = Segmenter(load_bundle(model), "cpu")
    folders = (data_root / "dicom" / "hippocampus-crop", cases_root / "25-pixel-padding" / "series")
    plain, with_padding = (segmenter.segment(read_volume(folder)).labels.array > 0 for folder in folders)
    assert 2 * np.sum(plain & with_padding) / (plain.sum() + with_padding.sum()) > 0.9


# Memory and damage


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"NumberOfFrames": "300000000"}, "too short"),
        ({"NumberOfFrames": "-3"}, "NumberOfFrames is -3"),
        ({"NumberOfFrames": 2}, "without a position"),
        ({"Rows": 60000, "Columns": 60000}, "shorter than"),
        ({"Rows": 3}, "where its header says"),
        ({"Rows": 0}, "Rows is 0"),
        ({"BitsAllocated": 64}, "BitsAllocated is 64"),
        ({"BitsAllocated": 12, "BitsStored": 12, "HighBit": 11}, "BitsAllocated is 12"),
        ({"BitsStored": 17}, "BitsStored is 17"),
        ({"HighBit": 16}, "HighBit is 16"),
        ({"SamplesPerPixel": 3}, "do not make MONOCHROME2"),
        ({"SamplesPerPixel": 200}, "SamplesPerPixel is 200"),
        ({"PhotometricInterpretation": "RGB"}, "do not make RGB"),
        ({"PixelRepresentation": 2}, "PixelRepresentation is 2"),
        ({"PixelData": None}, "no voxels"),
    ],
)
def test_headers_that_contradict_their_voxels_are_refused(write_dicom, values: dict, words: str) -> None:
    (path,) = write_dicom(positions=stack(0))
    edit(path, **values)
    with pytest.raises(InputError, match=words) as caught:
        read_volume(path)
    assert path.name in caught.value.what


def test_a_number_of_frames_that_is_no_number_is_refused(write_dicom) -> None:
    (path,) = write_dicom(positions=stack(0))
    edit(path, NumberOfFrames=12345678)
    overwrite(path, 0x00280008, b"IS", b"many abc")
    with pytest.raises(InputError, match="NumberOfFrames"):
        read_volume(path)


def test_memory_is_asked_for_before_voxels_are_read(write_dicom, tmp_path: Path) -> None:
    write_dicom(positions=stack(*range(20)), shape=(64, 64))
    folder = tmp_path / "series"
    with memory_limit(20 * 64 * 64 * 4), pytest.raises(InputError, match="of memory"):
        read_volume(folder)
    with memory_limit(20 * 64 * 64 * 4 * 2):
        assert read_volume(folder).spatial_shape == (20, 64, 64)


def test_a_film_of_single_pixels_does_not_take_memory_for_its_places(write_dicom) -> None:
    (path,) = write_dicom(positions=stack(0))
    edit(path, SOPClassUID=MultiFrameGrayscaleWordSecondaryCaptureImageStorage, Rows=1, Columns=1,
         NumberOfFrames=100_000, PixelData=bytes(200_000))  # fmt: skip
    with memory_limit(10 << 20), pytest.raises(InputError, match="of memory"):
        read_volume(path)


def test_bytes_put_in_between_the_voxels_are_noticed(write_dicom) -> None:
    (path,) = write_dicom(positions=stack(0))
    data = path.read_bytes()
    path.write_bytes(data[:-20] + b"\1\2\3\4" + data[-20:])
    with pytest.raises(InputError, match="what follows its voxels"):
        read_volume(path)
    path.write_bytes(data + bytes(100))  # a block of the disk, filled up
    assert read_volume(path).spatial_shape == (1, 4, 5)


def test_a_sequence_nested_without_end_is_refused(write_dicom) -> None:
    (path,) = write_dicom(positions=stack(0))
    nested = struct.pack("<HH2sHLHHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    data = path.read_bytes()
    at = data.index(struct.pack("<HH", 0x0010, 0x0010))
    path.write_bytes(data[:at] + nested * 20_000 + data[at:])
    with pytest.raises(InputError, match="could not be read"):
        read_volume(path)
    with pytest.raises(InputError, match=path.name):
        list_series(path.parent)


@pytest.mark.parametrize(("element", "values"), [(0x0002, {"Rows": None}), (0x0010, {})])  # the kind, the syntax
def test_meta_information_of_an_unknown_type_is_refused(write_dicom, element: int, values: dict) -> None:
    (path,) = write_dicom(positions=stack(0))
    edit(path, **values)
    head = struct.pack("<HH", 0x0002, element)
    path.write_bytes(path.read_bytes().replace(head + b"UI", head + b"Ui", 1))
    with pytest.raises(InputError, match="cannot be decoded"):
        read_frames(open_dicom(path))


def test_a_slice_whose_header_lost_its_size_is_not_missed(write_dicom) -> None:
    files = write_dicom(positions=stack(0, 2, 4))
    data = files[0].read_bytes()
    at = data.index(struct.pack("<HH2s", 0x0010, 0x0020, b"LO")) + 6
    files[0].write_bytes(data[:at] + b"\xff\xff" + data[at + 2 :])
    for read in (list_series, read_volume):
        with pytest.raises(InputError, match=f"{files[0].name} could not be read: it should be an image"):
            read(files[0].parent)


def test_a_length_of_four_gigabytes_takes_no_memory(write_dicom) -> None:
    import tracemalloc

    (path,) = write_dicom(positions=stack(0))
    huge = struct.pack("<HH2sHL", 0x0009, 0x0010, b"OB", 0, 0xFFFFFF00)
    data = path.read_bytes()
    at = data.index(struct.pack("<HH", 0x0010, 0x0010))
    path.write_bytes(data[:at] + huge + data[at:])
    tracemalloc.start()
    with pytest.raises(InputError, match=path.name):
        read_volume(path)
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


def test_every_bit_of_a_header_can_flip_without_more_than_a_refusal(write_dicom) -> None:
    (path,) = write_dicom(positions=stack(0))
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for at in rng.choice(np.arange(132, len(data) - 40), 300, replace=False):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.integers(8)]) + data[at + 1 :])
        try:
            read_volume(path)
        except InputError as error:
            assert error.remedy
            refused += 1
    assert refused > 50

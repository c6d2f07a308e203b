"""One answer to "where is this voxel": headers of every kind are read as ITK, and so Slicer, reads them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from apformer.errors import InputError
from apformer.files import read_volume, write_labels
from apformer.volume import Volume

VOXELS = np.arange(24, dtype="<i2").reshape(4, 3, 2)


def assert_like_itk(path: Path, volume: Volume) -> None:
    image = sitk.ReadImage(str(path))
    found = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        found = np.moveaxis(found, -1, 0)
    np.testing.assert_array_equal(volume.array.reshape(found.shape), found)
    if image.GetDimension() == 3:
        for index in ((0, 0, 0), (1, 2, 3)):
            right, front, up, _ = volume.ijk_to_ras @ [*index, 1]
            np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), (-right, -front, up), atol=1e-4)


MHA = {
    "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False", "TransformMatrix": "0 1 0 1 0 0 0 0 1", "Offset": "1 2 3", "ElementSpacing": "1 2 3",
    "DimSize": "2 3 4", "ElementType": "MET_SHORT",
}  # fmt: skip


def mha(fields: dict[str, str | None], voxels: bytes = VOXELS.tobytes(), tail: str = "LOCAL\n") -> bytes:
    lines = [f"{key} = {value}\n" for key, value in {**MHA, **fields}.items() if value is not None]
    return ("".join(lines) + f"ElementDataFile = {tail}").encode() + voxels


@pytest.mark.parametrize(
    "content",
    [
        mha({}),
        mha({}, tail="LOCAL\r\n"),
        mha({}, tail="local\n"),
        mha({"BinaryDataByteOrderMSB": None, "ElementByteOrderMSB": "True"}, VOXELS.astype(">i2").tobytes()),
        mha({"ElementType": "MET_LONG"}, VOXELS.astype("<i4").tobytes()),
        mha({"ElementType": "MET_ULONG_LONG"}, VOXELS.astype("<u8").tobytes()),
        mha({"ElementType": "MET_FLOAT"}, VOXELS.astype("<f4").tobytes()),
        mha({"ElementSpacing": None, "ElementSize": "2 2 2"}),
        mha({"ElementSpacing": None}),
        mha({"TransformMatrix": None, "Rotation": "0 1 0 1 0 0 0 0 1"}),
        mha({"TransformMatrix": None, "Offset": None, "Origin": "4 5 6"}),
        mha({"Offset": None}),
        mha({"CenterOfRotation": "9 9 9", "AnatomicalOrientation": "RAI"}),
        mha({"ElementNumberOfChannels": "3", "ElementType": "MET_UCHAR"}, bytes(range(72))),
        mha({"NDims": "2", "DimSize": "6 4", "ElementSpacing": "1 1", "Offset": "0 0", "TransformMatrix": "1 0 0 1"}),
        mha({"NDims": "4", "DimSize": "2 3 4 1", "ElementSpacing": "1 2 3 1", "Offset": "1 2 3 0",
             "TransformMatrix": "0 1 0 0 1 0 0 0 0 0 1 0 0 0 0 1"}),
        mha({"ElementToIntensityFunctionSlope": "2", "ElementToIntensityFunctionOffset": "5"}),
    ],
)  # fmt: skip
def test_metaimage_headers(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "image.mha").write_bytes(content)
    if b"DimSize = 2 3 4 1" in content:
        np.testing.assert_array_equal(read_volume(tmp_path / "image.mha").array, VOXELS)
    else:
        assert_like_itk(tmp_path / "image.mha", read_volume(tmp_path / "image.mha"))


def test_a_metaimage_compressed_without_its_size_is_read_where_itk_hands_out_what_memory_held(tmp_path: Path) -> None:
    (tmp_path / "image.mha").write_bytes(mha({"CompressedData": "True"}, zlib.compress(VOXELS.tobytes())))
    np.testing.assert_array_equal(read_volume(tmp_path / "image.mha").array, VOXELS)


@pytest.mark.parametrize("missing", ["ElementSpacing", "TransformMatrix", "Offset"])
def test_what_a_metaimage_does_not_say_of_its_place_is_told(tmp_path: Path, missing: str) -> None:
    (tmp_path / "image.mha").write_bytes(mha({missing: None}))
    (note,) = read_volume(tmp_path / "image.mha").notes
    assert note.startswith("image.mha: the header gives no ")


NRRD = "NRRD0004\ntype: uint8\nencoding: raw\n"
PLAIN = NRRD + "dimension: 3\nsizes: 2 3 4\n"
VECTORS = NRRD + "dimension: 4\nsizes: 3 2 3 4\nspace: LPS\nspace directions: none (1,0,0) (0,1,0) (0,0,1)\n"


@pytest.mark.parametrize(
    "header",
    [
        PLAIN + "spacings: 1 2 3\n",
        PLAIN + "spacings: 1 2 3\naxis mins: 10 20 30\n",
        PLAIN + "spacings: 1 2 3\naxis mins: 10 20 30\ncenters: node node node\n",
        PLAIN + "space dimension: 3\nspace directions: (0,1,0) (2,0,0) (0,0,3)\nspace origin: (1,2,3)\n",
        PLAIN + "space: scanner-xyz\nspace directions: (0,1,0) (2,0,0) (0,0,3)\nspace origin: (1,2,3)\n",
        PLAIN + "space: RAS\nspace directions: (0,1,0) (2,0,0) (0,0,3)\n",
        PLAIN + "Space: Right-Anterior-Superior\nspace directions: (0,1,0) (2,0,0) (0,0,3)\nspace origin: (1,2,3)\n",
        PLAIN + "space: LPS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (-0.5,0,1e3)\n",
        PLAIN + 'space: LPS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace units: "mm" "mm" "mm"\nmin: 0\n',
        NRRD + "dimension: 2\nsizes: 6 4\nspacings: 2 3\n",
        VECTORS + "kinds: vector domain domain domain\n",
        VECTORS + "kinds: 3-color domain domain domain\n",
        VECTORS + "kinds: covariant-vector domain domain domain\n",
        NRRD + "dimension: 4\nsizes: 2 3 4 3\nkinds: space space space vector\nspace: LPS\n"
        "space directions: (1,0,0) (0,1,0) (0,0,1) none\n",
        NRRD.replace("raw", "ascii") + "dimension: 3\nsizes: 2 3 4\nspacings: 1 2 3\n",
        NRRD.replace("raw", "hex") + "dimension: 3\nsizes: 2 3 4\nspacings: 1 2 3\n",
    ],
)
def test_nrrd_headers(tmp_path: Path, header: str) -> None:
    numbers = range(72 if "dimension: 4" in header else 24)
    voxels = bytes(numbers)
    if "ascii" in header:
        voxels = " ".join(map(str, numbers)).encode()
    if "hex" in header:
        voxels = bytes(numbers).hex().encode()
    (tmp_path / "image.nrrd").write_bytes(header.encode() + b"\n" + voxels)
    assert_like_itk(tmp_path / "image.nrrd", read_volume(tmp_path / "image.nrrd"))


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (PLAIN + "sizes: 4 3 2\n", "twice"),
        (PLAIN + "spacings 1 2 3\n", "no field"),
        (PLAIN.replace("uint8", "int16"), "order the bytes"),
        (PLAIN.replace("uint8", "block"), "voxels of type block"),
        (PLAIN.replace("raw", "zrl"), "encoded as zrl"),
        (PLAIN.replace("2 3 4", "2 3"), "3 dimensions and the sizes"),
        (PLAIN.replace("2 3 4", "2 3 -4"), "3 dimensions and the sizes"),
        (PLAIN.replace("2 3 4", "2 3 four"), "sizes are not whole numbers"),
        (PLAIN.replace("dimension: 3", "dimension: 3e8"), "dimension in its header"),
        (PLAIN.replace("dimension: 3", "dimension: 256"), "256 dimensions"),
        (PLAIN + "kinds: domain domain\n", "2 kinds of 3 axes"),
        (PLAIN + "line skip: 3\n", "lines to skip"),
        (PLAIN + "space: LPS\nspace directions: (1,0,0) (0,1,0) none (0,0,1)\n", "4 space directions of 3 axes"),
    ],
)
def test_a_nrrd_header_that_contradicts_itself_is_refused(tmp_path: Path, header: str, words: str) -> None:
    (tmp_path / "image.nrrd").write_bytes(header.encode() + b"\n" + bytes(range(24)))
    with pytest.raises(InputError, match=words):
        read_volume(tmp_path / "image.nrrd")


@pytest.mark.parametrize(
    "header",
    [
        VECTORS + "kinds: list domain domain domain\n",
        VECTORS + "kinds: time domain domain domain\n",
        VECTORS,
        NRRD + "dimension: 4\nsizes: 3 2 3 4\nspacings: 1 1 1 1\n",
        NRRD + "dimension: 4\nsizes: 2 3 4 3\nkinds: domain domain domain list\nspace: LPS\n"
        "space directions: (1,0,0) (0,1,0) (0,0,1) none\n",
        NRRD + "dimension: 5\nsizes: 3 2 3 4 1\nkinds: list domain domain domain time\nspace: LPS\n"
        "space directions: none (1,0,0) (0,1,0) (0,0,1) none\n",
    ],
)
def test_a_nrrd_of_several_volumes_is_said_to_be_one(tmp_path: Path, header: str) -> None:
    (tmp_path / "series.nrrd").write_bytes(header.encode() + b"\n" + bytes(range(72)))
    with pytest.raises(InputError, match="It holds several volumes"):
        read_volume(tmp_path / "series.nrrd")


def test_a_sequence_of_slicer_is_said_to_be_several_volumes(cases_root: Path) -> None:
    with pytest.raises(InputError, match=r"4 dimensions \(3 x 35 x 51 x 16\).*It holds several volumes"):
        read_volume(cases_root / "18-sequence-nrrd" / "three-times.seq.nrrd")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("space: LPS\nspacings: 1 2 3\n", "no orientation"),
        ("space: LPS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n", "no position"),
        ("space: LPS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n"
         'space units: "um" "um" "um"\n', "lengths in um"),
        ("space dimension: 3\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n", "no anatomical"),
    ],
)  # fmt: skip
def test_what_a_nrrd_does_not_say_of_its_place_is_told(tmp_path: Path, lines: str, words: str) -> None:
    (tmp_path / "image.nrrd").write_bytes((PLAIN + lines).encode() + b"\n" + bytes(range(24)))
    assert any(words in note for note in read_volume(tmp_path / "image.nrrd").notes)


def turn(angle: float, spacing: tuple[float, float, float], origin: tuple[float, float, float]) -> np.ndarray:
    """The first three rows of a matrix turned about the axis from feet to head."""
    c, s = np.cos(angle), np.sin(angle)
    return np.column_stack([np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) * spacing, origin])


def nifti(
    qform_code: int, sform_code: int, sform: np.ndarray, quaternion: float = 0.0, pixdim=(1, 1, 2, 3), units: int = 2
) -> bytes:
    """2 x 3 x 4 voxels; `quaternion`: the sine of half the angle about the axis from feet to head."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, 2, 3, 4, 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, 4, 16)
    struct.pack_into("<4f", header, 76, *pixdim)
    struct.pack_into("<f", header, 108, 352)
    struct.pack_into("<f", header, 112, 1)
    header[123], header[344:348] = units, b"n+1\0"
    struct.pack_into("<hh", header, 252, qform_code, sform_code)
    struct.pack_into("<3f", header, 256, 0, 0, quaternion)
    struct.pack_into("<3f", header, 268, 10, 20, 30)
    struct.pack_into("<12f", header, 280, *sform.ravel())
    return bytes(header) + VOXELS.tobytes()


@pytest.mark.parametrize("qform_code", range(5))
@pytest.mark.parametrize("sform_code", range(5))
@pytest.mark.parametrize("same", [False, True])
def test_the_two_forms_of_nifti(tmp_path: Path, qform_code: int, sform_code: int, same: bool) -> None:
    sform = turn(0.2, (1, 2, 3), (10, 20, 30) if same else (-50, -60, -70))
    content = nifti(qform_code, sform_code, sform, quaternion=np.sin(0.1) if same else 0.0)
    (tmp_path / "image.nii").write_bytes(content)

    volume = read_volume(tmp_path / "image.nii")

    assert_like_itk(tmp_path / "image.nii", volume)
    told = [note for note in volume.notes if "two places" in note]
    assert bool(told) == (qform_code > 0 and sform_code > 0 and not same)


@pytest.mark.parametrize(
    "content",
    [
        nifti(1, 0, turn(0.2, (1, 2, 3), (0, 0, 0)), pixdim=(-1, 1, 2, 3)),
        nifti(0, 0, turn(0.2, (1, 2, 3), (0, 0, 0)), pixdim=(-1, 1, 2, 3)),
        nifti(1, 0, turn(0.2, (1, 2, 3), (0, 0, 0)), units=1),
        nifti(0, 1, turn(0.2, (1, 2, 3), (0, 0, 0)), units=3),
        nifti(0, 1, turn(0.2, (1.5, 2, 3), (5, 6, 7))),  # two voxel sizes
        nifti(2, 2, turn(0.2, (1.5, 2, 3), (5, 6, 7))),
        nifti(1, 1, np.array([[1, 0.8, 0, 5], [0, 2, 0, 6], [0, 0, 3, 7]])),  # a sheared sform beside a good qform
        nifti(-1, 1, turn(0.2, (1, 2, 3), (5, 6, 7))),
    ],
)
def test_odd_forms_of_nifti(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "image.nii").write_bytes(content)
    assert_like_itk(tmp_path / "image.nii", read_volume(tmp_path / "image.nii"))


FORMS = slice(252, 328)  # codes, quaternion, offset and sform in the header
PLACED_BY = (slice(76, 92), FORMS, slice(123, 124))  # with voxel sizes and units


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 4), (1, 2), (2, 1), (1, 1)])
def test_a_mask_has_the_forms_and_codes_of_its_image_to_the_bit(
    tmp_path: Path, two_labels, codes: tuple[int, int]
) -> None:
    content = nifti(*codes, turn(0.2, (1, 2, 3), (-50, -60, -70)), units=10)  # millimetres and seconds
    (tmp_path / "image.nii").write_bytes(content)
    image = read_volume(tmp_path / "image.nii")
    mask = Volume(np.ones((4, 3, 2), np.uint8), image.ijk_to_ras, source=image.source)

    write_labels(tmp_path / "mask.nii", mask, two_labels, reference=image)

    written = (tmp_path / "mask.nii").read_bytes()
    assert [written[part] for part in PLACED_BY] == [content[part] for part in PLACED_BY]


def test_forms_of_another_grid_are_not_written(tmp_path: Path, two_labels) -> None:
    (tmp_path / "image.nii").write_bytes(nifti(1, 2, turn(0.2, (1, 2, 3), (-50, -60, -70))))
    part = read_volume(tmp_path / "image.nii").oriented("RAS")
    mask = part.with_array(np.ones(part.spatial_shape, np.uint8))

    write_labels(tmp_path / "mask.nii", mask, two_labels, reference=mask)

    np.testing.assert_allclose(read_volume(tmp_path / "mask.nii").ijk_to_ras, part.ijk_to_ras, atol=1e-5)


@pytest.mark.parametrize("name", ["01-nifti-qform-sform/qform1-sform2", "02-nifti-no-orientation/noform"])
def test_cases_of_nifti_lie_where_itk_has_them_and_say_what_was_assumed(cases_root: Path, name: str) -> None:
    path = cases_root / f"{name}.nii.gz"
    volume = read_volume(path)
    image = sitk.ReadImage(str(path))
    right, front, up, _ = volume.ijk_to_ras @ [3, 5, 7, 1]
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((3, 5, 7)), (-right, -front, up), atol=1e-4)
    (note,) = volume.notes
    assert "12.0 degrees and 26" in note or "no orientation" in note

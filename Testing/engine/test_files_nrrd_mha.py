"""NRRD and MetaImage: exact geometry, and refusal of what ITK would repair without a word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from apformer.errors import InputError
from apformer.files import read_volume, write_scalar
from apformer.volume import Volume
from hypothesis import given, settings
from hypothesis import strategies as st

NRRD = "NRRD0004\ntype: uint8\ndimension: {n}\n{geometry}sizes: {sizes}\nencoding: raw\n\n"
MHA = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
    "TransformMatrix = {matrix}\nOffset = 0 0 0\nElementSpacing = {spacing}\nDimSize = 2 2 2\n"
    "ElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
)
LPS = "space: left-posterior-superior\n"


def read_nrrd(folder: Path, geometry: str, sizes: str = "2 2 2", voxels: bytes = bytes(range(8))) -> Volume:
    header = NRRD.format(n=len(sizes.split()), geometry=geometry, sizes=sizes)
    (folder / "made.nrrd").write_bytes(header.encode() + voxels)
    return read_volume(folder / "made.nrrd")


def read_mha(folder: Path, matrix: str, spacing: str, voxels: bytes = bytes(range(8))) -> Volume:
    (folder / "made.mha").write_bytes(MHA.format(matrix=matrix, spacing=spacing).encode() + voxels)
    return read_volume(folder / "made.mha")


def rotation(angles: tuple[float, float, float]) -> np.ndarray:
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        result = result @ turn
    return result


@settings(max_examples=60, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-4, 4).map(lambda angle: round(angle, 9))] * 3),  # ITK's SVD fails near 1e-300
    spacing=st.tuples(*[st.floats(0.05, 20)] * 3),
    origin=st.tuples(*[st.floats(-900, 900, allow_subnormal=False)] * 3),
)
def test_geometry_survives_to_the_bit(tmp_path_factory, angles, spacing, origin) -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(angles) * np.array(spacing)
    matrix[:3, 3] = origin
    matrix += 0.0  # no negative zeros
    folder = tmp_path_factory.mktemp("exact")
    volume = Volume(np.arange(24, dtype=np.int16).reshape(2, 3, 4), matrix)
    for name in ("image.nrrd", "image.mha"):
        write_scalar(folder / name, volume)
        back = read_volume(folder / name)
        np.testing.assert_array_equal(back.ijk_to_ras, matrix)
        np.testing.assert_array_equal(back.array, volume.array)
        assert back.array.dtype == np.int16


def test_world_positions_agree_with_itk(tmp_path: Path, an_image: Volume) -> None:
    for name in ("image.nrrd", "image.mha"):
        write_scalar(tmp_path / name, an_image)
        itk = sitk.ReadImage(str(tmp_path / name))
        right, front, up, _ = an_image.ijk_to_ras @ [6, 5, 4, 1]
        np.testing.assert_allclose(itk.TransformIndexToPhysicalPoint((6, 5, 4)), (-right, -front, up), atol=1e-9)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(itk), an_image.array)


def test_the_three_anatomical_spaces_are_told_apart(tmp_path: Path) -> None:
    directions = "space directions: (1,0,0) (0,2,0) (0,0,3)\nspace origin: (5,6,7)\n"
    spaces = {"left-posterior-superior": (-1, -1, 1), "right-anterior-superior": (1, 1, 1), "LAS": (-1, 1, 1)}
    for space, signs in spaces.items():
        volume = read_nrrd(tmp_path, f"space: {space}\n{directions}")
        np.testing.assert_array_equal(np.diag(volume.ijk_to_ras)[:3], np.array([1, 2, 3]) * signs)
        np.testing.assert_array_equal(volume.ijk_to_ras[:3, 3], np.array([5, 6, 7]) * signs)
        assert volume.notes == ()


def test_an_nrrd_without_a_space_is_noted(tmp_path: Path) -> None:
    volume = read_nrrd(tmp_path, "spacings: 1 2 3\n")
    assert volume.spacing_ijk == (1, 2, 3)
    assert "no anatomical space" in volume.notes[0]


@pytest.mark.parametrize(
    ("geometry", "words"),
    [
        ("spacings: 1 0 1\n", "spacing"),
        ("spacings: 1 -1 1\n", "spacing"),
        (LPS + "space directions: (1,0,0) (0,0,0) (0,0,1)\n", "spacing"),
        (LPS + "space directions: (1,0,0) (0,nan,0) (0,0,1)\n", "spacing"),
        (LPS + "space directions: (1,0,0) (1,0,0) (0,0,1)\n", "singular"),
        (LPS + "space directions: (1,0,0) (0.5,1,0) (0,0,1)\n", "sheared"),
        (LPS + "space directions: (1,0,0) (0,x,0) (0,0,1)\n", "could not be read"),
    ],
)
def test_an_nrrd_with_impossible_geometry_is_refused(tmp_path: Path, geometry: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_nrrd(tmp_path, geometry)


@pytest.mark.parametrize(
    ("matrix", "spacing", "words"),
    [
        ("1 0 0 0 1 0 0 0 1", "1 0 1", "spacing"),
        ("1 0 0 0 1 0 0 0 1", "1 -1 1", "spacing"),
        ("1 0 0 0 1 0 0 0 1", "1 nan 1", "spacing"),
        ("1 0 0 1 0 0 0 0 1", "1 1 1", "singular"),
        ("1 0 0 0.5 1 0 0 0 1", "1 1 1", "sheared"),
        ("1 0 0 0 0 0 0 0 1", "1 1 1", "spacing"),
        ("1 0 0 0 1 0 0 0 1", "1 one 1", "could not be read"),
    ],
)
def test_an_mha_with_impossible_geometry_is_refused(tmp_path: Path, matrix: str, spacing: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_mha(tmp_path, matrix, spacing)


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="could not be read"):
        read_nrrd(tmp_path, LPS + "space directions: (1,0,0) (0,1,0) (0,0,1)\n", voxels=bytes(5))
    with pytest.raises(InputError, match="could not be read"):
        read_mha(tmp_path, "1 0 0 0 1 0 0 0 1", "1 1 1", voxels=bytes(5))


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_compressed_file_cut_short_is_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 30000, (20, 20, 20)).astype(np.int16)
    path = tmp_path / f"image{suffix}"
    write_scalar(path, Volume(noise, np.eye(4)))
    content = path.read_bytes()
    for kept in (100, len(content) // 2, len(content) - 50):
        path.write_bytes(content[:kept])
        with pytest.raises(InputError):
            read_volume(path)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".seg.nrrd", ".nii", ".nii.gz", ".png", ".jpg", ".dcm", ""])
def test_a_file_of_text_missing_or_empty_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    with pytest.raises(InputError, match="does not exist"):
        read_volume(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="empty file"):
        read_volume(path)
    path.write_text("not an image at all, but long enough to hold a header " * 20)
    with pytest.raises(InputError, match=r"could not be read|unknown format"):
        read_volume(path)


def test_a_file_that_may_not_be_opened_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.nrrd"
    path.write_bytes(b"NRRD")

    def forbid(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbid)
    with pytest.raises(InputError, match="Permission denied"):
        read_volume(path)


def test_a_series_of_volumes_is_refused(tmp_path: Path) -> None:
    four = sitk.JoinSeries([sitk.Image(3, 3, 3, sitk.sitkInt16)] * 2)
    for suffix in (".nrrd", ".mha"):
        sitk.WriteImage(four, str(tmp_path / f"four{suffix}"))
        with pytest.raises(InputError, match=r"4 dimensions \(3 x 3 x 3 x 2\)"):
            read_volume(tmp_path / f"four{suffix}")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_vectors_become_channels_and_a_picture_one_slice(tmp_path: Path, suffix: str) -> None:
    vectors = np.arange(72, dtype=np.uint8).reshape(2, 3, 4, 3)
    sitk.WriteImage(sitk.GetImageFromArray(vectors, isVector=True), str(tmp_path / f"vectors{suffix}"))
    np.testing.assert_array_equal(read_volume(tmp_path / f"vectors{suffix}").array, np.moveaxis(vectors, -1, 0))
    flat = np.arange(12, dtype=np.int16).reshape(3, 4)
    sitk.WriteImage(sitk.GetImageFromArray(flat), str(tmp_path / f"flat{suffix}"))
    np.testing.assert_array_equal(read_volume(tmp_path / f"flat{suffix}").array, flat[None])

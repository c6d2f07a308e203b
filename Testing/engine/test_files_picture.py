"""PNG and JPEG pictures as one-slice volumes, and one-slice results as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from apformer.errors import InputError, OutputError
from apformer.files import read_volume, write_labels, write_scalar
from apformer.volume import Volume
from PIL import Image


@pytest.fixture
def a_gray() -> np.ndarray:
    """3 rows x 4 columns, all values different."""
    return np.arange(12, dtype=np.uint8).reshape(3, 4) * 20


def test_gray_becomes_one_slice_seen_from_the_feet(tmp_path: Path, a_gray: np.ndarray) -> None:
    Image.fromarray(a_gray).save(tmp_path / "gray.png")
    volume = read_volume(tmp_path / "gray.png")
    np.testing.assert_array_equal(volume.array, a_gray[None])
    assert (volume.array.dtype, volume.modality, volume.orientation) == (np.uint8, None, "LPS")
    assert volume.spacing_ijk == (1, 1, 1)


def test_sixteen_bit_is_kept(tmp_path: Path, a_gray: np.ndarray) -> None:
    Image.fromarray(a_gray.astype(np.uint16) * 100).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_volume(tmp_path / "deep.png").array, a_gray[None].astype(np.uint16) * 100)


def test_sixteen_bit_colour_is_kept(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 65536, (3, 4, 3)).astype(np.uint16)
    sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), str(tmp_path / "deep.png"))
    np.testing.assert_array_equal(read_volume(tmp_path / "deep.png").array, np.moveaxis(colours, -1, 0)[:, None])


def test_a_palette_is_resolved(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.save(tmp_path / "palette.png")
    assert read_volume(tmp_path / "palette.png").array[:, 0, 0].tolist() == [[10, 40], [20, 50], [30, 60]]


def test_colour_becomes_three_channels_without_transparency(tmp_path: Path, a_gray: np.ndarray) -> None:
    colours = np.stack([a_gray, a_gray + 1, a_gray + 2, np.full_like(a_gray, 9)], axis=-1)
    for name, pixels in (("rgb.png", colours[..., :3]), ("rgba.png", colours)):
        Image.fromarray(pixels).save(tmp_path / name)
        volume = read_volume(tmp_path / name)
        np.testing.assert_array_equal(volume.array, np.moveaxis(colours[..., :3], -1, 0)[:, None])
        assert volume.modality == "RGB"


def test_colour_with_equal_channels_is_gray(tmp_path: Path, a_gray: np.ndarray) -> None:
    Image.fromarray(np.stack([a_gray] * 3, axis=-1)).save(tmp_path / "rgb.png")
    Image.fromarray(np.stack([a_gray] * 3, axis=-1)).save(tmp_path / "rgb.jpg", quality=100)
    Image.fromarray(np.stack([a_gray, a_gray[::-1]], axis=-1)).save(tmp_path / "alpha.png")
    for name in ("rgb.png", "alpha.png"):
        volume = read_volume(tmp_path / name)
        np.testing.assert_array_equal(volume.array, a_gray[None])
        assert volume.modality is None
    assert read_volume(tmp_path / "rgb.jpg").array.shape == (1, 3, 4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_cameras_rotation_is_undone_as_pillow_does_it(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    rows = np.repeat(np.repeat(np.arange(6, dtype=np.uint8).reshape(2, 3) * 50, 8, axis=0), 8, axis=1)
    picture = Image.fromarray(rows)
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "turned.jpg", exif=exif, quality=100)
    with Image.open(tmp_path / "turned.jpg") as stored:
        upright = np.asarray(ImageOps.exif_transpose(stored))
    volume = read_volume(tmp_path / "turned.jpg")
    assert volume.array.shape[1:] == upright.shape
    assert np.abs(volume.array[0].astype(int) - upright).max() <= 2  # two JPEG decoders


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_truncated_picture_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"noise{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="could not be read"):
        read_volume(path)


def test_labels_of_one_slice_are_written_with_their_values(tmp_path: Path, a_gray: np.ndarray, two_labels) -> None:
    image = Volume(a_gray[None], np.diag([-1.0, -1.0, 1.0, 1.0]))
    labels = image.with_array((a_gray[None] > 100).astype(np.uint8) * 3)
    write_labels(tmp_path / "labels.png", labels, two_labels, reference=image)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "labels.png")), labels.array[0])


def test_several_slices_do_not_fit_into_a_png(
    tmp_path: Path, an_image: Volume, a_label_map: Volume, two_labels
) -> None:
    with pytest.raises(OutputError, match="5 slices"):
        write_labels(tmp_path / "labels.png", a_label_map, two_labels, reference=an_image)
    assert list(tmp_path.iterdir()) == []


def test_uncertainty_is_written_in_sixteen_bit(tmp_path: Path) -> None:
    uncertainty = Volume(np.array([[[0.0, 0.5, 1.0]]], np.float32), np.eye(4))
    write_scalar(tmp_path / "u.png", uncertainty)
    np.testing.assert_array_equal(read_volume(tmp_path / "u.png").array, [[[0, 32768, 65535]]])
    for wrong in (-0.1, 1.1, np.nan):
        with pytest.raises(OutputError, match="between 0 and 1"):
            write_scalar(tmp_path / "v.png", Volume(np.array([[[0.0, wrong]]]), np.eye(4)))
    assert not (tmp_path / "v.png").exists()

"""A .seg.nrrd file that is uploaded: laid over the image that it was drawn on, and over no other without a word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apformer.errors import InputError
from apformer.volume import Source, Volume

pytest.importorskip("slicer", reason="slicer-core is not installed")

from APFormerSlicerLib.scene.shown import segmentations_of
from APFormerSlicerLib.web.exporting import write_chosen
from APFormerSlicerLib.web.importing import _import_segmentation
from desk_samples import Seat, a_ct

TALL = (12, 8, 8)  # k, j, i


def downloaded(a_seat: Seat, folder: Path, volume: Volume | None = None, array: np.ndarray | None = None) -> Path:
    """The segmentation of an image of another session, as a file."""
    image = a_seat.load("of somebody", volume)
    a_seat.segment(array)
    path: Path = a_seat.do(lambda: write_chosen(a_seat.desk, "seg.nrrd", folder))
    a_seat.act("close_image", image.GetID())
    assert segmentations_of(a_seat.desk.scene) == []
    return path


def upload(a_seat: Seat, path: Path) -> None:
    a_seat.do(lambda: _import_segmentation(a_seat.desk, path))


def forget_origin(path: Path) -> None:
    """As another program writes it: nothing tells of the image. Lengths stay."""
    content = path.read_bytes()
    for name in (b"APFormer.Image", b"APFormer.FrameOf"):
        assert name in content
        content = content.replace(name, name.replace(b"APFormer", b"Somebody"))
    path.write_bytes(content)


def with_other_values(volume: Volume) -> Volume:
    return Volume(volume.array + 1, volume.ijk_to_ras, "CT")


def with_thicker_slices(volume: Volume) -> Volume:
    return Volume(volume.array, volume.ijk_to_ras @ np.diag([1.0, 1.0, 1.25, 1.0]), "CT")


def test_a_segmentation_is_laid_over_its_own_image_without_a_question(a_seat: Seat, tmp_path: Path) -> None:
    path = downloaded(a_seat, tmp_path)
    a_seat.load("again")
    upload(a_seat, path)
    assert a_seat.state.doubtful == ""
    assert [one["name"] for one in a_seat.state.segments] == ["anterior", "posterior"]
    assert a_seat.desk.segmentation.GetDisplayNode().GetVisibility()


def test_one_that_says_nothing_of_its_image_goes_by_its_geometry(a_seat: Seat, tmp_path: Path) -> None:
    path = downloaded(a_seat, tmp_path)
    forget_origin(path)
    a_seat.load("the same grid", with_other_values(a_ct()))
    upload(a_seat, path)
    assert a_seat.state.doubtful == "" and a_seat.state.segments


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (lambda: with_other_values(a_ct()), "other voxels"),
        (lambda: a_ct(TALL), "other voxels"),
        (lambda: with_thicker_slices(a_ct()), "size, spacing or place"),
        (lambda: a_ct(at=(0.7, 0.0, 0.0)), "size, spacing or place"),
    ],
    ids=["other voxels", "more slices", "thicker slices", "shifted"],
)
def test_one_of_another_image_is_not_seen_before_the_user_agrees(
    a_seat: Seat, tmp_path: Path, image: Callable[[], Volume], why: str
) -> None:
    path = downloaded(a_seat, tmp_path)
    shown = a_seat.load("another patient", image())
    upload(a_seat, path)
    assert path.name in a_seat.state.doubtful and "another patient" in a_seat.state.doubtful
    assert why in a_seat.state.doubtful
    (node,) = segmentations_of(a_seat.desk.scene)
    assert not node.GetDisplayNode().GetVisibility()
    assert a_seat.state.segments == [] == a_seat.state.segmentations
    a_seat.act("lay_over")
    assert a_seat.state.doubtful == ""
    assert a_seat.desk.segmentation is node and node.GetDisplayNode().GetVisibility()
    assert a_seat.desk.volume is shown and len(a_seat.state.segments) == 2


def test_one_that_reaches_outside_the_image_is_refused(a_seat: Seat, tmp_path: Path) -> None:
    array = np.zeros(TALL, np.uint8)
    array[9:11, 2:4, 2:4] = 1
    path = downloaded(a_seat, tmp_path, a_ct(TALL), array)
    forget_origin(path)
    a_seat.load("a shorter scan")
    with pytest.raises(InputError) as raised:
        upload(a_seat, path)
    assert f"{path.name} is not of a shorter scan: parts of it lie outside" in raised.value.what
    assert "another patient" in raised.value.meaning and "Choose the image" in raised.value.remedy
    assert segmentations_of(a_seat.desk.scene) == []


def test_one_of_another_frame_of_reference_is_refused(
    a_seat: Seat, tmp_path: Path, write_dicom: Callable[..., list[Path]]
) -> None:
    path = None
    for number in (1, 2):
        image = a_seat.load(f"patient {number}")
        (tmp_path / str(number)).mkdir()
        a_seat.desk.sources[image.GetID()] = Source(None, (a_slice(write_dicom, f"p{number}", f"1.2.3.{number}"),))
        if path is None:
            a_seat.segment()
            path = a_seat.do(lambda: write_chosen(a_seat.desk, "seg.nrrd", tmp_path))
    assert b"1.2.3.1" not in path.read_bytes()
    with pytest.raises(InputError, match="another frame of reference"):
        upload(a_seat, path)


def test_the_question_ends_when_another_image_is_chosen_or_the_file_is_left_out(a_seat: Seat, tmp_path: Path) -> None:
    path = downloaded(a_seat, tmp_path)
    first = a_seat.load("first", with_other_values(a_ct()))
    upload(a_seat, path)
    a_seat.load("second")
    assert a_seat.state.doubtful == ""
    assert segmentations_of(a_seat.desk.scene) == []
    a_seat.choose(first)
    upload(a_seat, path)
    a_seat.act("leave_out")
    assert a_seat.state.doubtful == ""
    assert segmentations_of(a_seat.desk.scene) == []
    a_seat.act("lay_over")
    assert a_seat.desk.segmentation is None


def a_slice(write_dicom: Callable[..., list[Path]], folder: str, frame_uid: str) -> Path:
    import pydicom

    (path,) = write_dicom(folder, positions=[(0.0, 0.0, 0.0)])
    one: Any = pydicom.dcmread(path)
    one.FrameOfReferenceUID = frame_uid
    one.save_as(path)
    return path

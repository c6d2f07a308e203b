"""Pictures of a fine-tuning: which slices are shown, from which side, in which colours and proportions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from apformer.bundles.labels import Code, Label
from apformer.errors import InputError
from apformer.finetuning.pictures import (
    OVERLAY_PIXELS,
    _cut_axis,
    _field,
    _rows,
    _view,
    _window,
    draw_case,
    draw_overlay,
)
from apformer.volume import Source, Volume
from PIL import Image

ANATOMY = Code("SCT", "123037004", "Anatomical Structure")
ORGAN = Code("SCT", "10200004", "Liver")
RED = Label(1, "Liver", (230, 40, 30), ANATOMY, ORGAN)
BLUE = Label(4, "Rate, in $ per _unit_ <b>", (40, 90, 240), ANATOMY, ORGAN)
LABELS = (RED, BLUE)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def volume(array: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0), **more: object) -> Volume:
    return Volume(array, LPS @ np.diag([*spacing, 1.0]), **more)  # type: ignore[arg-type]


@pytest.fixture
def a_case() -> dict[str, Volume]:
    """Ten axial slices of 30 x 40: a block of label 1 in slices 2 to 7, one of label 4 in slice 4.

    Before misses the second block; after is wrong in slice 6 only.
    """
    image = np.random.default_rng(0).normal(100, 20, (10, 30, 40)).astype(np.float32)
    reference = np.zeros(image.shape, np.uint8)
    reference[2:8, 8:20, 10:25] = 1
    reference[4, 22:26, 10:25] = 4
    image[reference > 0] += 150
    before, after = reference.copy(), reference.copy()
    before[before == 4] = 0
    after[6, 8:12] = 0
    named = {"reference": reference, "before": before, "after": after}
    return {"image": volume(image), **{name: volume(array) for name, array in named.items()}}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def share_of(color: tuple[int, int, int], shown: np.ndarray) -> float:
    return float((np.abs(shown - np.array(color)).sum(axis=-1) < 60).mean())


def viewed(case: dict[str, Volume]) -> object:
    return _view(case["image"], {"Reference": case["reference"], "After": case["after"]}, LABELS)


def test_a_case_shows_the_slice_with_most_structure_and_the_one_with_most_error(a_case: dict[str, Volume]) -> None:
    assert [index for index, _ in _rows(viewed(a_case))] == [4, 6]


def test_one_row_is_enough_when_the_slice_with_most_structure_has_most_error(a_case: dict[str, Volume]) -> None:
    a_case["after"].array[4, 8:20] = 0
    assert [index for index, _ in _rows(viewed(a_case))] == [4]


def test_a_case_without_structures_shows_what_was_found_in_it(a_case: dict[str, Volume]) -> None:
    a_case["reference"].array[:] = 0
    a_case["after"].array[:] = 0
    a_case["after"].array[9, 3:5, 3:5] = 1
    assert [index for index, _ in _rows(viewed(a_case))] == [9]


def test_labels_that_are_not_asked_for_are_neither_drawn_nor_counted_as_error(a_case: dict[str, Volume]) -> None:
    a_case["after"].array[1] = 9
    view = viewed(a_case)
    assert 9 not in view.masks["After"]
    assert [index for index, _ in _rows(view)] == [4, 6]


@pytest.mark.filterwarnings("ignore:Glyph")  # the font has no Chinese: a box is shown
def test_a_case_is_a_picture_with_every_label_in_its_colour(a_case: dict[str, Volume], tmp_path: Path) -> None:
    draw_case(**a_case, labels=LABELS, path=tmp_path / "case.png", title="case <1> $x_{$ 肝")
    shown = pixels(tmp_path / "case.png")
    assert share_of(RED.color, shown) > 0.002 and share_of(BLUE.color, shown) > 0.0005
    assert [file.name for file in tmp_path.iterdir()] == ["case.png"]


def test_a_case_without_a_result_before_has_one_column_less(a_case: dict[str, Volume], tmp_path: Path) -> None:
    draw_case(**a_case, labels=LABELS, path=tmp_path / "with.png", title="")
    draw_case(**{**a_case, "before": None}, labels=LABELS, path=tmp_path / "without.png", title="")
    assert pixels(tmp_path / "without.png").shape[1] / pixels(tmp_path / "with.png").shape[1] == pytest.approx(3 / 4)


def test_pixels_keep_their_physical_proportions(a_case: dict[str, Volume], tmp_path: Path) -> None:
    """With rows three times as far apart, an organ of as many rows as columns is three times as tall as it is wide."""
    square = np.zeros((1, 40, 40), np.uint8)
    square[0, 15:25, 15:25] = 1
    image = volume(np.zeros((1, 40, 40), np.float32), (2.0, 6.0, 1.0))
    case = {name: image.with_array(square) for name in ("reference", "after")}
    draw_case(image, case["reference"], None, case["after"], (RED,), tmp_path / "case.png")
    shown = pixels(tmp_path / "case.png")
    third = shown[30:-40, 2 * shown.shape[1] // 3 :]  # the result, without captions and legend
    red = (third[..., 0] > 150) & (third[..., 1] < 110) & (third[..., 2] < 110)
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    assert (rows[-1] - rows[0]) / (columns[-1] - columns[0]) == pytest.approx(3.0, rel=0.1)


@pytest.mark.parametrize(
    ("shape", "spacing", "axis"),
    [
        ((20, 20, 20), (1.0, 1.0, 1.2), 0),  # about isotropic: axial
        ((20, 20, 20), (1.0, 5.0, 1.0), 1),  # coronal slices
        ((20, 20, 20), (4.0, 1.0, 1.0), 2),  # sagittal slices
        ((20, 1, 20), (1.0, 1.0, 8.0), 1),  # one coronal slice
    ],
)
def test_slices_are_shown_as_they_were_acquired(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], axis: int
) -> None:
    assert _cut_axis(volume(np.zeros(shape, np.uint8), spacing)) == axis


@pytest.mark.parametrize("code", ["LPS", "RAI", "SAL", "PIR"])
def test_the_patients_right_front_and_head_are_where_radiologists_expect_them(code: str) -> None:
    """Whatever the order of the file: R is at the left of an axial slice, A at its top."""
    marked = np.zeros((6, 8, 10), np.uint8)
    marked[1, :2, :2] = 1  # LPS: low, anterior, right
    reference = volume(marked).oriented(code)
    image = reference.with_array(reference.array.astype(np.float32))
    view = _view(image, {"Reference": reference, "After": reference}, LABELS)
    assert view.ends == ("R", "A")
    assert np.argwhere(view.masks["Reference"]).tolist() == [[1, row, column] for row in (0, 1) for column in (0, 1)]


def test_coronal_slices_have_the_head_at_the_top() -> None:
    marked = np.zeros((6, 8, 10), np.uint8)
    marked[5, 3, 0] = 1  # highest, rightmost
    reference = volume(marked, (1.0, 6.0, 1.0))
    view = _view(reference, {"Reference": reference, "After": reference}, LABELS)
    assert view.ends == ("R", "S") and np.argwhere(view.masks["Reference"]).tolist() == [[3, 0, 0]]


def test_the_field_lies_around_the_structures_and_inside_the_image() -> None:
    marked = np.zeros((1, 200, 300), np.uint8)
    marked[0, 0:50, 100:180] = 1
    reference = volume(marked)
    view = _view(reference, {"Reference": reference, "After": reference}, LABELS)
    (top, bottom), (left, right) = _field(view, [0])
    assert top == 0 and 50 < bottom < 100
    assert 50 < left < 100 and 180 < right < 230


def test_ct_is_windowed_around_the_structures() -> None:
    image = np.full((1, 20, 20), -1000, np.int16)
    marked = np.zeros(image.shape, np.uint8)
    marked[0, 5:10, 5:10] = 1
    image[marked > 0] = 60
    ct = volume(image, modality="CT")
    view = _view(ct, {"Reference": ct.with_array(marked), "After": ct.with_array(marked)}, LABELS)
    assert _window(view, [0], _field(view, [0])) == (-190.0, 310.0)


def test_a_photograph_keeps_its_colours_and_has_no_anatomical_letters(tmp_path: Path) -> None:
    photograph = np.zeros((3, 1, 60, 80), np.uint8)
    photograph[1] = 200  # green
    image = volume(photograph, modality="RGB", source=Source(None, kind="picture"))
    marked = np.zeros((1, 60, 80), np.uint8)
    marked[0, 20:40, 20:40] = 1
    reference = image.with_array(marked)
    assert _view(image, {"Reference": reference, "After": reference}, LABELS).ends == ("", "")
    draw_case(image, reference, None, reference, LABELS, tmp_path / "case.png", "photo")
    assert share_of((0, 200, 0), pixels(tmp_path / "case.png")) > 0.3


def test_a_result_on_another_grid_is_refused(a_case: dict[str, Volume], tmp_path: Path) -> None:
    a_case["after"] = volume(a_case["after"].array, (1.0, 1.0, 2.0))
    with pytest.raises(InputError, match="grids lie"):
        draw_case(**a_case, labels=LABELS, path=tmp_path / "case.png", title="")
    a_case["after"] = volume(a_case["after"].array[:, 1:])
    with pytest.raises(InputError):
        draw_case(**a_case, labels=LABELS, path=tmp_path / "case.png", title="")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(96, 96), (60, 128), (512, 400), (3, 1)])
def test_an_overlay_is_a_small_picture_of_the_slices_proportions(shape: tuple[int, int], tmp_path: Path) -> None:
    draw_overlay(np.zeros((1, *shape)), np.zeros(shape, int), np.zeros(shape, int), LABELS, tmp_path / "o.png", "t")
    height, width, _ = pixels(tmp_path / "o.png").shape
    assert max(height - 22, width) == OVERLAY_PIXELS
    assert (height - 22) / width == pytest.approx(shape[0] / shape[1], rel=0.01)


def test_an_overlay_outlines_the_result_in_label_colours_and_the_reference_in_white(tmp_path: Path) -> None:
    image = np.zeros((2, 100, 100), np.float32)  # two MR sequences: the first is shown
    image[0, 0, 0], image[1] = 1, np.nan
    reference, predicted = np.zeros((100, 100), np.int64), np.zeros((100, 100), np.int64)
    reference[20:40, 20:40] = 1
    predicted[60:80, 60:80] = 4
    draw_overlay(image, reference, predicted, LABELS, tmp_path / "o.png", "epoch 3")
    shown = pixels(tmp_path / "o.png")
    blue, white = (np.argwhere((shown[:300] == color).all(axis=-1)) for color in (BLUE.color, (255, 255, 255)))
    assert blue.min(axis=0).tolist() == [180, 180] and blue.max(axis=0).tolist() == [239, 239]
    assert white[(white > 10).all(axis=1)].min() >= 60 and white.max() <= 119
    assert shown[210, 210].tolist() == [0, 0, 0]  # inside the outline the image stays visible


def test_an_overlays_title_is_cut_to_one_line_and_may_hold_any_letters(tmp_path: Path) -> None:
    blank = np.zeros((40, 40), int)
    draw_overlay(np.zeros((3, 40, 40)), blank, blank, LABELS, tmp_path / "o.png", "Fall 7, Größe 肝\n" + "long " * 40)
    caption = pixels(tmp_path / "o.png")[300:]
    assert caption.max() > 200 and caption[:, -4:].max() < 60

"""Curves, pictures in a row, pictures from arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], (0.0, 1.0)),
        ([0.4, 2.3], (0.0, 3.0)),
        ([0.02], (0.0, 0.02)),
        ([-0.3, 1.2], (-1.0, 2.0)),
        ([0.0], (0.0, 1e-6)),
    ],
)
def test_a_plot_ends_at_round_numbers(a_slicer: Any, values: list[float], expected: tuple[float, float]) -> None:
    from APFormerSlicerLib.widgets.curves import nice_range

    assert nice_range([list(enumerate(values, 1))]) == pytest.approx(expected)


def test_a_picture_is_made_of_an_array(a_slicer: Any) -> None:
    from APFormerSlicerLib.widgets.pictures import from_array

    array = np.zeros((2, 3, 3), np.uint8)
    array[1, 2] = (255, 0, 128)
    image = from_array(array).toImage()
    assert (image.width(), image.height()) == (3, 2)
    assert image.pixelColor(2, 1).name() == "#ff0080" and image.pixelColor(0, 0).name() == "#000000"


def test_pictures_stand_in_a_row_and_a_missing_one_is_left_out(a_slicer: Any, tmp_path: Path) -> None:
    import qt
    from APFormerSlicerLib.widgets.pictures import in_a_row

    picture = qt.QPixmap(100, 50)
    picture.fill(qt.QColor("red"))
    assert picture.save(str(tmp_path / "a.png"))
    row = in_a_row([tmp_path / "a.png", tmp_path / "none.png", tmp_path / "a.png"], 158)
    assert (row.width(), row.height()) == (104, 25)
    assert in_a_row([tmp_path / "none.png"], 100) is None and in_a_row([], 100) is None


def test_a_curve_has_the_colour_of_its_segments_and_its_name_that_of_the_text(a_slicer: Any) -> None:
    import qt
    from APFormerSlicerLib.widgets.curves import draw

    curves = {"Dice of Liver": [(1, 0.1), (2, 0.9)], "share of tokens kept": [(1, 0.5), (2, 0.5)],
              "loss: total": [(1, 1.0), (2, 0.5)]}  # fmt: skip
    image = draw(curves, qt.QColor("#102030"), {"Dice of Liver": "#ff0080"}).toImage()
    seen = {image.pixelColor(x, y).name() for x in range(image.width()) for y in range(image.height())}
    assert {"#ff0080", "#102030", "#0072b2"} <= seen
    without = draw(curves, qt.QColor("#102030")).toImage()
    assert "#ff0080" not in {without.pixelColor(x, y).name() for x in range(210) for y in range(190)}

"""The contact sheet: both sides in three planes, with the outlines of the result and of the atlas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bundles import Bundle, Label
from ..files import atomic_path
from ..volume import Roi, Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BACKGROUND, TEXT, FAINT, ATLAS, LOOKED = "#101216", "#f2f2f2", "#9aa0a8", "#ffffff", "#7ee081"
SIZE = (17.0, 7.7)  # inches
FIELD_MM = 60.0  # side of the square that a tile shows
POSITIONS = (0.25, 0.5, 0.75)  # slices, as fractions of the structure's extent along the plane's normal

Frame = tuple[float, float, float, float]  # left, right, bottom, top of what a tile shows, in voxels


@dataclass(frozen=True)
class Panel:
    """One side: its name, its ROI, on the template's grid (k, j, i) label map, atlas mask and the cells of the tokens
    that were kept, and a line about it."""

    side: str
    roi: Roi
    labels: np.ndarray
    atlas: np.ndarray
    looked: np.ndarray
    caption: str


@dataclass(frozen=True)
class Plane:
    """A plane of a RAS array (k, j, i): the array axis it cuts, and what lies at the left, right, bottom and top."""

    name: str
    axis: int
    ends: tuple[str, str, str, str]

    def cut(self, array: np.ndarray, index: int) -> np.ndarray:
        """Rows from bottom to top, columns from left to right of the picture; the patient's right is on the left."""
        part = np.take(array, index, axis=self.axis)
        return part if self.name == "sagittal" else part[:, ::-1]


PLANES = (
    Plane("sagittal", 2, ("P", "A", "I", "S")),
    Plane("coronal", 1, ("R", "L", "I", "S")),
    Plane("axial", 0, ("R", "L", "P", "A")),
)


@dataclass(frozen=True)
class View:
    """The template and what lies on it, brought to RAS axes."""

    image: np.ndarray
    labels: np.ndarray
    atlas: np.ndarray
    looked: np.ndarray
    box: np.ndarray
    spacing_kji: tuple[float, float, float]


def draw(path: Path, template: Volume, bundle: Bundle, panels: Sequence[Panel]) -> None:
    """Write the contact sheet as PNG.

    Args:
        panels: left side first; the right one is drawn on the left, as radiologists look at the patient.

    Raises:
        OutputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=100, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)  # no window system is needed, and pyplot's global state is left alone
    views = [_view(template, panel) for panel in panels]
    _draw_titles(figure, bundle)
    _draw_overviews(figure, views, bundle)
    for place, (panel, view) in enumerate(zip(reversed(panels), reversed(views), strict=True)):
        _draw_side(figure, panel, view, bundle, left=0.2575 + place * 0.3735)
    _draw_legend(figure, bundle)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, facecolor=BACKGROUND, metadata={"Software": "APFormerSlicer"})


def _view(template: Volume, panel: Panel) -> View:
    box = np.zeros(template.spatial_shape, np.uint8)
    box[panel.roi.slices_kji] = 1
    image, labels, atlas, looked, roi = (
        np.asarray(template.with_array(array).oriented("RAS").array)
        for array in (template.array, panel.labels, panel.atlas.astype(np.uint8), panel.looked.astype(np.uint8), box)
    )
    si, sj, sk = template.oriented("RAS").spacing_ijk
    return View(image, labels, atlas, looked, roi, (sk, sj, si))


def _draw_titles(figure: Figure, bundle: Bundle) -> None:
    title = f"Hippocampi of the ICBM152 T1 template · {bundle.name} {bundle.version}"
    figure.text(0.012, 0.965, title, color=TEXT, fontsize=17, weight="bold", va="center")
    note = (
        "regions of interest from MNI coordinates, not from a detector · "
        "radiological view: the patient's right is on the left"
    )
    figure.text(0.012, 0.932, note, color=FAINT, fontsize=10.5, va="center")


def _draw_overviews(figure: Figure, views: Sequence[View], bundle: Bundle) -> None:
    """Whole brain, coronal and axial, with both results, both ROIs, and in them the tokens that were kept."""
    first = views[0]
    whole = View(
        first.image,
        np.maximum.reduce([view.labels for view in views]),
        np.maximum.reduce([view.atlas for view in views]),
        np.maximum.reduce([view.looked for view in views]),
        np.maximum.reduce([view.box for view in views]),
        first.spacing_kji,
    )
    for plane, bottom in ((PLANES[1], 0.49), (PLANES[2], 0.085)):
        axes = figure.add_axes((0.012, bottom, 0.235, 0.39))
        index = _slices(whole, plane)[1]
        _draw_tile(axes, whole, plane, index, bundle, _brain_frame(whole, plane), width=1.0)
        _outline(axes, plane.cut(whole.box, index), 1, FAINT, 1.2, "dashed")
        _outline(axes, plane.cut(whole.looked, index), 1, LOOKED, 1.0, "solid")


def _draw_side(figure: Figure, panel: Panel, view: View, bundle: Bundle, left: float) -> None:
    width, gap = 0.1185, 0.003
    height, row_gap = width * SIZE[0] / SIZE[1], gap * SIZE[0] / SIZE[1]  # square tiles
    figure.text(left, 0.897, f"{panel.side.capitalize()} hippocampus", color=TEXT, fontsize=13, weight="bold")
    figure.text(left + 3 * width + 2 * gap, 0.897, panel.caption, color=FAINT, fontsize=10.5, ha="right")
    for row, plane in enumerate(PLANES):
        for column, index in enumerate(_slices(view, plane)):
            bottom = 0.885 - height - row * (height + row_gap)
            axes = figure.add_axes((left + column * (width + gap), bottom, width, height))
            _draw_tile(axes, view, plane, index, bundle, _close_frame(view, plane), width=1.8)
            if column == 0:
                _write(axes, plane.name, 0.03, 0.05, ha="left")


def _draw_tile(axes: Axes, view: View, plane: Plane, index: int, bundle: Bundle, frame: Frame, width: float) -> None:
    """One slice with filled labels, their outlines, and the atlas."""
    rows, columns = (view.spacing_kji[axis] for axis in range(3) if axis != plane.axis)
    image = plane.cut(view.image, index).astype(np.float32)
    white = _white(view)
    gray: dict[str, Any] = {"cmap": "gray", "vmin": 0.2 * white, "vmax": 1.05 * white, "interpolation": "bicubic"}
    axes.imshow(image, origin="lower", aspect=rows / columns, **gray)
    labels = plane.cut(view.labels, index)
    _outline(axes, plane.cut(view.atlas, index), 1, ATLAS, 0.75 * width, (0, (2.2, 1.6)))
    for label in bundle.labels:
        color = _color(label)
        _fill(axes, labels, label.value, color)
        _outline(axes, labels, label.value, color, width, "solid")
    left, right, bottom, top = frame
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
    axes.set_facecolor("black")
    for spine in axes.spines.values():
        spine.set_visible(False)
    _mark_ends(axes, plane)


def _color(label: Label) -> tuple[float, float, float]:
    red, green, blue = (part / 255 for part in label.color)
    return red, green, blue


def _fill(axes: Axes, labels: np.ndarray, value: int, color: tuple[float, ...]) -> None:
    overlay = np.zeros((*labels.shape, 4), np.float32)
    overlay[labels == value] = (*color, 0.28)
    axes.imshow(overlay, origin="lower", interpolation="nearest", aspect=axes.get_aspect())


def _outline(axes: Axes, labels: np.ndarray, value: int, color: Any, width: float, style: Any) -> None:
    mask = labels == value
    if mask.any():  # contour warns about a mask without an edge
        axes.contour(mask.astype(np.float32), levels=[0.5], colors=[color], linewidths=[width], linestyles=[style])


def _mark_ends(axes: Axes, plane: Plane) -> None:
    left, right, _, top = plane.ends
    for text, x, y in ((left, 0.03, 0.5), (right, 0.97, 0.5), (top, 0.5, 0.96)):
        _write(axes, text, x, y, ha="center")


def _write(axes: Axes, text: str, x: float, y: float, ha: str) -> None:
    """Small text that can be read on black and on white; x and y are fractions of the tile."""
    from matplotlib.patheffects import withStroke

    edge = [withStroke(linewidth=2.0, foreground="black")]
    axes.text(x, y, text, transform=axes.transAxes, color=TEXT, fontsize=8.5, ha=ha, va="center", path_effects=edge)


def _slices(view: View, plane: Plane) -> list[int]:
    """Where to cut: within the extent of result and atlas, or of the ROI when both are empty."""
    shown = (view.labels > 0) | (view.atlas > 0)
    if not shown.any():
        shown = view.box > 0
    others = tuple(axis for axis in range(3) if axis != plane.axis)
    found = np.flatnonzero(shown.any(axis=others))
    first, last = int(found[0]), int(found[-1])
    return [round(first + position * (last - first)) for position in POSITIONS]


def _close_frame(view: View, plane: Plane) -> Frame:
    """A square of `FIELD_MM` around the ROI."""
    row_axis, column_axis = (axis for axis in range(3) if axis != plane.axis)
    flat = plane.cut(np.ascontiguousarray(view.box), _middle(view.box, plane.axis))
    row, column = (float(np.mean(np.flatnonzero(flat.any(axis=axis)))) for axis in (1, 0))
    half_row, half_column = (FIELD_MM / 2 / view.spacing_kji[axis] for axis in (row_axis, column_axis))
    return column - half_column, column + half_column, row - half_row, row + half_row


def _brain_frame(view: View, plane: Plane) -> Frame:
    """The part of the slices that is not black, with a margin."""
    brain = plane.cut(view.image, _middle(view.box, plane.axis)) > 0.1 * _white(view)
    rows, columns = np.flatnonzero(brain.any(axis=1)), np.flatnonzero(brain.any(axis=0))
    return columns[0] - 6.0, columns[-1] + 6.0, rows[0] - 6.0, rows[-1] + 6.0


def _middle(box: np.ndarray, axis: int) -> int:
    found = np.flatnonzero(box.any(axis=tuple(other for other in range(3) if other != axis)))
    return int(found[len(found) // 2])


def _white(view: View) -> float:
    """The gray value shown as white."""
    return float(np.percentile(view.image[view.box > 0], 99.8))


def _draw_legend(figure: Figure, bundle: Bundle) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=_color(label), linewidth=3, label=label.name) for label in bundle.labels]
    dotted = (0, (2.2, 1.6))
    handles += [
        Line2D([], [], color=ATLAS, linewidth=1.5, linestyle=dotted, label="Harvard-Oxford atlas (another protocol)"),
        Line2D([], [], color=FAINT, linewidth=1.5, linestyle="dashed", label="region of interest"),
        Line2D([], [], color=LOOKED, linewidth=1.5, label="tokens kept"),
    ]
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.2505, 0.004),
        ncols=len(handles),
        frameon=False,
        labelcolor=TEXT,
        fontsize=11,
    )

"""Pictures of a fine-tuning: a case before and after, and a validation slice while the network trains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from ..files import atomic_path
from ..grid import check_same_grid
from ..volume import Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..bundles import Label

Labels: TypeAlias = "Sequence[Label]"
Field = tuple[tuple[int, int], tuple[int, int]]  # first and last + 1 of the rows and columns that a panel shows

BACKGROUND, TEXT, FAINT, REFERENCE = "#101216", "#f2f2f2", "#9aa0a8", "#ffffff"
PANEL_INCHES = 2.6
DPI = 100
OVERLAY_PIXELS = 300
CAPTION_PIXELS = 22  # the strip below an overlay that holds its title
THICK_SLICES = 1.5  # times the finest spacing: the axis with such steps is the one that the scanner cut along
MARGIN = 0.3  # around the structures, as a share of their extent: enough to see where they lie
LEAST_FIELD_MM = 40.0  # what a panel shows at least, so that a small structure keeps its surroundings
SOFT_TISSUE_HU = 250.0  # half the width of the CT window around the structures' median
MOST_NAMES, NAMES_PER_LINE, LONGEST_NAME = 11, 6, 22  # in the legend


@dataclass(frozen=True)
class View:
    """A case cut into slices, (slices, rows, columns) from top to bottom and from left to right.

    Attributes:
        image: values as stored, with one channel or three at the end.
        masks: label maps by title, the reference first.
        spacing: of rows and of columns, mm.
        ends: what lies at the left and at the top; empty for pictures.
        backwards: whether the slices run against the order of the file.
        is_ct: the values are Hounsfield units.
    """

    image: np.ndarray
    masks: dict[str, np.ndarray]
    spacing: tuple[float, float]
    ends: tuple[str, str]
    backwards: bool
    is_ct: bool


def draw_case(
    image: Volume,
    reference: Volume,
    before: Volume | None,
    after: Volume,
    labels: Labels,
    path: Path,
    title: str = "",
) -> None:
    """PNG with a row of panels for the slice with most of the structures and one for the slice with most error after.

    A row shows the image, the reference, and the results before (where there is one) and after, with the reference
    dotted in white. Slices are cut as the scanner cut them and shown as radiologists look at them, near the structures,
    with the pixels' physical aspect ratio. CT has a window of 500 HU around the structures' median.

    Args:
        image: (k, j, i) or (C, k, j, i); three channels of an RGB image are shown in colour, else the first channel.
        reference, before, after: label maps (k, j, i) on the grid of the image.
        labels: which values to draw; all others count as background.

    Raises:
        InputError: the grids differ.
        OutputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = {"Reference": reference, "Before": before, "After": after}
    maps = {name: volume for name, volume in found.items() if volume is not None}
    for volume in maps.values():
        check_same_grid(volume, image.with_array(volume.array))
    view = _view(image, maps, labels)
    rows = _rows(view)
    slices = [index for index, _ in rows]
    field = _field(view, slices)
    window = _window(view, slices, field)
    named = _names(view, labels)
    height_mm, width_mm = ((stop - start) * step for (start, stop), step in zip(field, view.spacing, strict=True))
    panel = PANEL_INCHES * height_mm / width_mm
    above, below, caption = 0.32 if title else 0.04, 0.1 + 0.22 * -(-(len(named) + 1) // NAMES_PER_LINE), 0.26
    size = ((1 + len(maps)) * PANEL_INCHES, len(rows) * (panel + caption) + above + below)
    figure = Figure(figsize=size, dpi=DPI, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)  # no window system is needed, and pyplot's global state is left alone
    top, bottom = 1 - (above + caption) / size[1], below / size[1]
    figure.subplots_adjust(0.006, bottom, 0.994, top, wspace=0.015, hspace=caption / panel)
    axes = figure.subplots(len(rows), 1 + len(maps), squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        _draw_row(line, view, row, window, field, labels)
    for axis, name in zip(axes[0], ("Image", *maps), strict=True):
        _write(axis, name, 0.97, 0.95, ha="right")
    figure.text(0.006, 1 - 0.18 / size[1], title, color=TEXT, fontsize=11, va="center", parse_math=False)
    _draw_legend(figure, named)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", facecolor=BACKGROUND, metadata={"Software": "APFormerSlicer"})


def _view(image: Volume, maps: dict[str, Volume], labels: Sequence[Label]) -> View:
    """The case turned to LPS, where i runs to the patient's left and is drawn to the right, and cut into slices."""
    turned = image.oriented("LPS")
    axis = _cut_axis(turned)
    colour = turned.modality == "RGB" and turned.channels == 3
    channels = turned.array.reshape(-1, *turned.spatial_shape)[: 3 if colour else 1]
    pixels = np.stack([_cut(channel, axis) for channel in channels], axis=-1)
    drawn = np.zeros(256, np.uint8)
    drawn[[label.value for label in labels]] = [label.value for label in labels]
    masks = {name: _cut(drawn[volume.oriented("LPS").array.astype(np.uint8)], axis) for name, volume in maps.items()}
    rows, columns = (turned.spacing_ijk[2 - other] for other in range(3) if other != axis)
    ends = ("", "") if image.source.kind == "picture" else (("R", "A"), ("R", "S"), ("A", "S"))[axis]
    backwards = image.reorientation("LPS").flips[2 - axis]
    return View(pixels, masks, (rows, columns), ends, backwards, image.modality == "CT")


def _cut_axis(turned: Volume) -> int:
    """The array axis that separates slices: the only one there is, or that with far apart slices, else axial."""
    if 1 in turned.spatial_shape:
        return turned.spatial_shape.index(1)
    steps = turned.spacing_ijk[::-1]
    return int(np.argmax(steps)) if max(steps) > THICK_SLICES * min(steps) else 0


def _cut(array: np.ndarray, axis: int) -> np.ndarray:
    """(k, j, i) in LPS -> (slices, rows, columns) with the patient's head or front at the top."""
    slices = np.moveaxis(array, axis, 0)
    return slices if axis == 0 else slices[:, ::-1]


def _rows(view: View) -> list[tuple[int, str]]:
    """(slice, why it is shown); one when the slice with most of the structures has most error too, or no error."""
    reference, after = view.masks["Reference"], view.masks["After"]
    sizes = (reference > 0).sum(axis=(1, 2))
    if not sizes.any():
        sizes = (after > 0).sum(axis=(1, 2))
    largest = int(sizes.argmax()) if sizes.any() else len(sizes) // 2
    errors = (reference != after).sum(axis=(1, 2))
    worst = int(errors.argmax())
    if not errors.any():
        return [(largest, "most of the structures; no error in any slice")]
    if errors[largest] == errors[worst]:
        return [(largest, "most of the structures, and most error")]
    return [(largest, "most of the structures"), (worst, "most error after")]


def _field(view: View, slices: Sequence[int]) -> Field:
    """What the panels show: the structures in these slices with a margin, never longer than about 2:1."""
    shown = np.any([(mask[list(slices)] > 0).any(axis=0) for mask in view.masks.values()], axis=0)
    shape = shown.shape
    if not shown.any():
        return (0, shape[0]), (0, shape[1])
    ends = []
    for axis, step in enumerate(view.spacing):
        found = np.flatnonzero(shown.any(axis=1 - axis))
        ends.append((found[0] * step, (found[-1] + 1) * step))
    extents = [stop - start for start, stop in ends]
    sides = [max(extent * (1 + 2 * MARGIN), LEAST_FIELD_MM, 0.55 * max(extents)) for extent in extents]
    field = []
    for (start, stop), side, step, length in zip(ends, sides, view.spacing, shape, strict=True):
        middle = (start + stop) / 2
        low, high = math.floor((middle - side / 2) / step), math.ceil((middle + side / 2) / step)
        field.append((max(0, low), min(length, high)))
    return field[0], field[1]


def _window(view: View, slices: Sequence[int], field: Field) -> tuple[float, float]:
    """The values shown as black and as white."""
    rows, columns = (slice(*ends) for ends in field)
    if view.is_ct:
        inside = view.image[view.masks["Reference"] > 0]
        middle = float(np.median(inside)) if inside.size else 50.0
        return middle - SOFT_TISSUE_HU, middle + SOFT_TISSUE_HU
    if view.image.shape[-1] == 3 and view.image.dtype == np.uint8:
        return 0.0, 255.0
    return _percentiles(view.image[list(slices), rows, columns])


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, (0.5, 99.5))
    return float(low), float(high)


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """low..high to 0..1, cut off beyond."""
    return np.clip((values.astype(np.float32) - low) / max(high - low, 1e-6), 0.0, 1.0)


def _draw_row(
    axes: Sequence[Axes], view: View, row: tuple[int, str], window: tuple[float, float], field: Field, labels: Labels
) -> None:
    index, why = row
    image = _scaled(view.image[index], *window)
    for axis, name in zip(axes, ("Image", *view.masks), strict=True):
        gray_or_rgb = image if image.shape[-1] == 3 else image[..., 0]
        aspect = view.spacing[0] / view.spacing[1]
        axis.imshow(gray_or_rgb, cmap="gray", vmin=0, vmax=1, interpolation="bilinear", aspect=aspect)
        if name != "Image":
            _draw_masks(axis, view, index, name, labels)
        (top, bottom), (left, right) = field
        axis.set(xlim=(left - 0.5, right - 0.5), ylim=(bottom - 0.5, top - 0.5), xticks=[], yticks=[])
        axis.set_facecolor("black")
        for spine in axis.spines.values():
            spine.set_visible(False)
    _write(axes[0], view.ends[0], 0.03, 0.5, ha="left")
    _write(axes[0], view.ends[1], 0.5, 0.95, ha="center")
    count = len(view.image)
    number = count - index if view.backwards else index + 1
    place = f"Slice {number} of {count}: {why}" if count > 1 else why.capitalize()
    axes[0].set_title(place, loc="left", fontsize=9, color=FAINT, pad=4)


def _draw_masks(axis: Axes, view: View, index: int, name: str, labels: Labels) -> None:
    """The reference filled; a result as outlines over the reference's dotted ones."""
    mask, reference = view.masks[name][index], view.masks["Reference"][index]
    for label in labels:
        color = _color(label)
        if name == "Reference":
            filled = np.zeros((*mask.shape, 4), np.float32)
            filled[mask == label.value] = (*color, 0.3)
            axis.imshow(filled, interpolation="nearest", aspect=axis.get_aspect())
        _outline(axis, mask == label.value, color, 1.5, "solid")
    if name != "Reference":
        for label in labels:
            _outline(axis, reference == label.value, REFERENCE, 0.9, (0, (1.2, 1.6)))


def _outline(axis: Axes, mask: np.ndarray, color: Any, width: float, style: Any) -> None:
    if mask.any():  # contour warns about a mask without an edge
        rows, columns = (np.arange(-1, length + 1) for length in mask.shape)
        padded = np.pad(mask, 1).astype(np.float32)  # so that the outline is closed at the image's edge
        axis.contour(columns, rows, padded, [0.5], colors=[color], linewidths=[width], linestyles=[style])


def _color(label: Label) -> tuple[float, float, float]:
    red, green, blue = (part / 255 for part in label.color)
    return red, green, blue


def _write(axis: Axes, words: str, x: float, y: float, ha: Literal["left", "center", "right"]) -> None:
    """Small text that can be read on black and on white; x and y are fractions of the panel."""
    from matplotlib.patheffects import withStroke

    edge = [withStroke(linewidth=2.0, foreground="black")]
    axis.text(x, y, words, transform=axis.transAxes, color=TEXT, fontsize=8.5, ha=ha, va="center", path_effects=edge)


def _names(view: View, labels: Labels) -> list[Label]:
    """The labels that occur in the case."""
    found = set[int]().union(*(np.unique(mask).tolist() for mask in view.masks.values()))
    return [label for label in labels if label.value in found][:MOST_NAMES]


def _draw_legend(figure: Figure, named: Sequence[Label]) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=_color(label), linewidth=3) for label in named]
    dotted = Line2D([], [], color=REFERENCE, linewidth=1.5, linestyle=(0, (1.2, 1.6)))
    names = [label.name if len(label.name) <= LONGEST_NAME else f"{label.name[:LONGEST_NAME]}..." for label in named]
    legend = figure.legend(
        handles=[*lines, dotted],
        labels=["name"] * (len(lines) + 1),  # the real ones come below: legend() drops names that start with "_"
        loc="lower left",
        bbox_to_anchor=(0.0, 0.0),
        ncols=NAMES_PER_LINE,
        frameon=False,
        labelcolor=TEXT,
        fontsize=9,
        borderpad=0.3,
    )
    for entry, name in zip(legend.get_texts(), [*names, "reference"], strict=True):
        entry.set_parse_math(False)  # a name may hold dollar signs
        entry.set_text(name)


def draw_overlay(
    image: np.ndarray,
    reference: np.ndarray,
    predicted: np.ndarray,
    labels: Sequence[Label],
    path: Path,
    title: str = "",
) -> None:
    """Small PNG of one slice: the result's outline in label colours, the reference dotted in white.

    Made with Pillow, many times faster than matplotlib, because it is drawn while a network trains.

    Args:
        image: (C, rows, columns), the first row at the top, any real values; three channels are shown in colour, else
            the first one in gray.
        reference, predicted: (rows, columns), label values.

    Raises:
        OutputError: the file cannot be written.
    """
    from PIL import Image, ImageDraw, ImageFont

    rows, columns = reference.shape
    scale = OVERLAY_PIXELS / max(rows, columns)
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    channels = np.nan_to_num(image if image.shape[0] == 3 else image[:1]).astype(np.float32)
    pixels = np.moveaxis(np.rint(255 * _scaled(channels, *_percentiles(channels))).astype(np.uint8), 0, -1)
    gray_or_rgb = Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])
    shown = np.array(gray_or_rgb.resize(size, Image.Resampling.BICUBIC).convert("RGB"))
    truth, result = (
        np.asarray(Image.fromarray(array.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))
        for array in (reference, predicted)
    )
    dotted = np.add.outer(np.arange(size[1]), np.arange(size[0])) // 2 % 2 == 0
    for label in labels:
        shown[_edge(result == label.value, 2)] = label.color
    for label in labels:
        shown[_edge(truth == label.value, 1) & dotted] = 255
    sheet = Image.new("RGB", (size[0], size[1] + CAPTION_PIXELS), BACKGROUND)
    sheet.paste(Image.fromarray(shown), (0, 0))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    pen.text((6, size[1] + CAPTION_PIXELS / 2), _fitting(title, pen, font, size[0] - 12), TEXT, font, anchor="lm")
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")


def _edge(mask: np.ndarray, thickness: int) -> np.ndarray:
    """The outermost pixels of a mask, `thickness` deep; what lies outside the image is not part of it."""
    inner = np.pad(mask, thickness)
    for _ in range(thickness):
        shrunk = inner.copy()
        for axis in (0, 1):
            for step in (1, -1):
                shrunk &= np.roll(inner, step, axis)  # what comes round is the padding, which is empty
        inner = shrunk
    return mask & ~inner[thickness:-thickness, thickness:-thickness]


def _fitting(title: str, pen: Any, font: Any, width: float) -> str:
    """The title on one line, cut at the end when it is too long."""
    title = " ".join(title.split())
    if pen.textlength(title, font) <= width:
        return title
    while title and pen.textlength(f"{title}...", font) > width:
        title = title[:-1]
    return f"{title}..."

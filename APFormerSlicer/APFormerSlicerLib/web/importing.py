"""Files that a user uploaded, and the demonstration's volume: read beside the event loop, then put on the scene."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apformer.errors import InputError
from apformer.memory import memory_limit
from apformer.volume import Volume

from ..scene.loading import new_volume_node
from ..scene.shown import latest_of, segmentations_of
from .desk import Desk
from .doubtful import read_for
from .inbox import Inbox
from .quota import Upload
from .unpacking import unpack
from .uploads import Offered

DEMO_MODEL = "hippocampus-mr"  # that of the command-line demonstration
_SEGMENTATION = ".seg.nrrd"
_SLICE = ".dcm"
_ELSEWHERE = {".mhd": ".mha", ".nhdr": ".nrrd"}  # headers that name their voxels' file -> the form that holds both
_MOST_SEGMENTATIONS = 50
_LONGEST_WORDS = 120  # of what a DICOM file says about itself
_BOX_COLOR = (0.31, 0.64, 0.78)  # the page's own
_BOX_LINE = 0.1  # half of Slicer's width


@dataclass(frozen=True)
class Found:
    """What is among uploaded files.

    Attributes:
        images: files that are images each. segmentations: .seg.nrrd files. dicom: a folder with DICOM files, or None.
    """

    images: tuple[Path, ...]
    segmentations: tuple[Path, ...]
    dicom: Path | None


def look_at(inbox: Inbox) -> Found:
    """Unpack zip files, and tell images from DICOM slices.

    Raises:
        InputError: a zip file cannot be unpacked or is too large; a header names its voxels' file; nothing here can be
            read.
    """
    from apformer.files import IMAGE_SUFFIXES, suffix_of
    from apformer.files.dicom.mark import looks_like_dicom

    for path in [path for path in inbox.files if path.suffix.lower() == ".zip"]:
        unpack(path, inbox)
        inbox.drop(path)
    everything = list(inbox.files)
    for path in everything:
        if path.suffix.lower() in _ELSEWHERE:
            raise _elsewhere(path)
    segmentations = tuple(path for path in everything if suffix_of(path) == _SEGMENTATION)
    # Hospitals name slices in any way, "1.2.840.113.7" too.
    slices = [path for path in everything if suffix_of(path) == _SLICE or suffix_of(path) not in IMAGE_SUFFIXES]
    dicom = inbox.upload.folder if any(looks_like_dicom(path) for path in slices) else None
    others = {*segmentations, *slices}
    images = tuple(path for path in everything if path not in others)
    if not (images or segmentations or dicom):
        names = ", ".join(path.name for path in everything[:3]) or "nothing"
        raise InputError(
            f"There is no image among the uploaded files ({names}{', ...' if len(everything) > 3 else ''}).",
            "NIfTI, NRRD, MHA and DICOM files, zip files of these, and .seg.nrrd segmentations can be read.",
            "Choose such a file, or the folder with the DICOM slices.",
        )
    return Found(images, segmentations, dicom)


def _elsewhere(path: Path) -> InputError:
    whole = _ELSEWHERE[path.suffix.lower()]
    return InputError(
        f"{path.name} is a header that names another file for its voxels.",
        f"Such headers could name any file of this computer, so {' and '.join(_ELSEWHERE)} are not taken here.",
        f"Save the image as {whole} or .nii.gz, which hold header and voxels in one file, and upload that.",
    )


async def import_files(desk: Desk, inbox: Inbox) -> list[Any]:
    """The volume nodes of uploaded files; the last one is chosen and shown. Several DICOM series become a choice.

    Raises:
        InputError: a file cannot be read, or takes more than the session may have.
    """
    found = await asyncio.to_thread(look_at, inbox)
    nodes = []
    for path in found.images:
        nodes.append(await import_image(desk, path, upload=inbox.upload))
    if found.dicom is not None:
        nodes += await _import_dicom(desk, found.dicom, inbox.upload)
    with memory_limit(desk.uploads.quota.reading_bytes):
        for path in found.segmentations:
            _import_segmentation(desk, path)
            inbox.drop(path)
    return nodes


async def import_image(
    desk: Desk, path: Path, series_uid: str | None = None, name: str | None = None, upload: Upload | None = None
) -> Any:
    """The node of one image file, or of one DICOM series in a folder. Raises InputError."""
    from apformer.files import read_volume

    with memory_limit(desk.uploads.quota.reading_bytes):
        volume = await asyncio.to_thread(read_volume, path, series_uid=series_uid)
    return place(desk, volume, name or _name_of(path), upload)


async def import_offered(desk: Desk, series: Offered) -> None:
    """Load a series that was offered; the others are not offered any more. Raises InputError."""
    try:
        await import_image(desk, series.upload.folder, series.uid, series.title, series.upload)
    finally:
        desk.uploads.offer([])


async def import_demo(desk: Desk) -> Any:
    """The demonstration's volume, with a box around both hippocampi and one around each. Raises InputError when it is
    not installed."""
    from apformer.demo.inputs import SIDES, read_template

    volume = await asyncio.to_thread(read_template)
    node = place(desk, volume, "Demo: T1 template")
    desk.workflow.state.model = DEMO_MODEL
    _, across, down = SIDES[0].centre_ras
    both = _box(desk.scene, "Both hippocampi", (0.0, across, down), width_mm=90.0)
    for side in SIDES:
        _box(desk.scene, f"{side.name.capitalize()} hippocampus", side.centre_ras)
    desk.workflow.state.roi = both
    desk.views.centre_on(SIDES[0].centre_ras)
    return node


def place(desk: Desk, volume: Volume, name: str, upload: Upload | None = None) -> Any:
    """Put a volume on the scene, choose it and show it. Raises InputError: the session holds too much already."""
    node = new_volume_node(desk.scene, volume, name)
    if upload is not None:  # the demonstration's volume is the server's own
        try:
            desk.uploads.add_image(node, upload)
        except InputError:
            desk.scene.RemoveNode(node)
            raise
    desk.sources[node.GetID()] = volume.source
    desk.notices.warn(volume.notes)
    choose(desk, node)
    return node


def choose(desk: Desk, node: Any) -> None:
    """Make it the volume that everything is about, with its region and the segmentation that was looked at last."""
    state = desk.workflow.state
    state.segmentation = None  # of the image before
    state.volume = node
    state.segmentation = None if node is None else latest_of(node)
    desk.views.show_volume(node)
    if node is not None:
        desk.workers[0].start()  # loading torch takes seconds: meanwhile the user looks at the image


def close(desk: Desk, node: Any) -> None:
    """Remove an image with its segmentations and its files; a job at it is cancelled."""
    node_id, was_chosen = node.GetID(), node is desk.volume
    for segmentation in segmentations_of(desk.scene, node):
        desk.scene.RemoveNode(segmentation)
    desk.scene.RemoveNode(node)
    desk.sources.pop(node_id, None)
    desk.uploads.close_image(node_id)
    if was_chosen:
        left = desk.workflow.volumes()
        choose(desk, left[0] if left else None)


def _import_segmentation(desk: Desk, path: Path) -> None:
    if desk.volume is None:
        raise InputError(
            f"{path.name} is a segmentation, and no image is chosen.",
            "A segmentation is reviewed on the image that it was drawn on.",
            "Upload the image first, then the segmentation.",
        )
    if len(segmentations_of(desk.scene)) >= _MOST_SEGMENTATIONS:
        raise InputError(
            f"There are {_MOST_SEGMENTATIONS} segmentations already.",
            "Each takes memory of a computer that others use too.",
            "Close an image that you do not need any more: its segmentations go with it.",
        )
    node, against = read_for(path, desk.volume, desk.sources.get(desk.volume.GetID()))
    if against:
        desk.doubtful.ask(node, desk.volume, f"{path.name} may not be of {desk.volume.GetName()}: {against}.")
    else:
        lay_over(desk, node)


def lay_over(desk: Desk, segmentation_node: Any) -> None:
    """Show a segmentation over the chosen image, for review."""
    segmentation_node.SetReferenceImageGeometryParameterFromVolumeNode(desk.volume)
    segmentation_node.GetDisplayNode().SetVisibility(True)
    desk.workflow.state.segmentation = segmentation_node


async def _import_dicom(desk: Desk, folder: Path, upload: Upload) -> list[Any]:
    from apformer.files import list_series

    with memory_limit(desk.uploads.quota.reading_bytes):
        listed = await asyncio.to_thread(list_series, folder)
    if len(listed) > 1:
        desk.uploads.offer(
            [
                Offered(
                    series.uid,
                    (series.description or series.uid)[:_LONGEST_WORDS],
                    f"{series.modality}, {series.slices} slices"[:_LONGEST_WORDS],
                    upload,
                )
                for series in listed
            ]
        )
        desk.notices.tell(f"{len(listed)} DICOM series were found: choose the one to load.", stays=True)
        return []
    title = (listed[0].description if listed else "")[:_LONGEST_WORDS] or "DICOM series"
    return [await import_image(desk, folder, name=title, upload=upload)]


def _box(scene: Any, name: str, centre_ras: tuple[float, float, float], width_mm: float = 40.0) -> Any:
    """A region of 40 x 56 x 40 mm, that of the command-line demonstration, or a wider one: in one box around both
    sides the model finds what it finds in two (Dice between them 0.987)."""
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", scene.GenerateUniqueName(name))
    node.SetCenter(*centre_ras)
    node.SetSize(width_mm, 56.0, 40.0)
    node.CreateDefaultDisplayNodes()
    node.SetLocked(True)  # it is chosen in a list; dragging would fight with painting
    display = node.GetDisplayNode()
    display.SetHandlesInteractive(False)
    display.SetPropertiesLabelVisibility(False)
    display.SetPointLabelsVisibility(False)
    display.SetGlyphScale(0.0)
    display.SetFillVisibility(False)
    display.SetVisibility(False)
    display.SetVisibility3D(False)  # it would hide the surfaces
    display.SetSelectedColor(*_BOX_COLOR)
    display.SetColor(*_BOX_COLOR)
    display.SetLineThickness(_BOX_LINE)
    return node


def _name_of(path: Path) -> str:
    from apformer.files import suffix_of

    return path.name.removesuffix(suffix_of(path)) or path.name

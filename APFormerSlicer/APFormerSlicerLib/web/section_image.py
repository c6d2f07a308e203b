"""The first step: an image to work on, uploaded or the demonstration's."""

from __future__ import annotations

import asyncio
from typing import Any

from apformer.errors import APFormerError
from trame.widgets import html
from trame.widgets import vuetify3 as v

from ..scene.shown import remember_latest, show_only
from ..scene.slices import planes_of
from ..scene.volumes import shape_kji
from ..workflow import Choice, Segmented
from .desk import Desk
from .importing import choose, close, import_demo, import_offered, lay_over
from .parts import button, heading, hint, pressed
from .quota import MOST_FILES
from .values import one_of, whole


class ImageSection:
    """Lists the images of the scene, and loads others."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._tasks: set[asyncio.Task[None]] = set()
        self._demo: Any = None
        self._laid_out_for: Any = None  # the volume
        desk.state.update({"images": [], "image_id": "", "series": [], "loading": "", "doubtful": ""})
        self._single = ""  # the layout that a single slice was given
        desk.field("upload_percent", 0, whole(0, 100))
        desk.action("load_demo")(self._load_demo)
        desk.action("load_series", whole(0, MOST_FILES))(self._load_series)
        for name, call in (("choose_image", self._choose), ("close_image", self._close)):
            desk.action(name, one_of(lambda: [node.GetID() for node in desk.workflow.volumes()]))(call)
        desk.workflow.state.changed.connect(self.refresh)
        desk.workflow.watch.removed.connect(lambda _: self.refresh())
        desk.workflow.segmenting.segmented.connect(self._take_result)
        desk.uploads.offers_changed.connect(self._show_series)
        desk.action("lay_over")(self._lay_over)
        desk.action("leave_out")(desk.doubtful.leave_out)
        desk.doubtful.changed.connect(lambda: desk.state.update({"doubtful": desk.doubtful.why}))

    def refresh(self) -> None:
        chosen = self._desk.volume
        self._desk.state.images = [_row(node) for node in self._desk.workflow.volumes()]
        self._desk.state.image_id = "" if chosen is None else chosen.GetID()
        if self._desk.doubtful.of(chosen) is None:
            self._desk.doubtful.leave_out()
        if chosen is not self._laid_out_for:
            self._laid_out_for = chosen
            self._lay_out(chosen)
        if chosen is not None:
            show_only(chosen)
            if self._desk.segmentation is not None:
                remember_latest(chosen, self._desk.segmentation)

    def _lay_out(self, volume_node: Any) -> None:
        """A single slice fills the views; a volume after it has all four again."""
        state, shape = self._desk.state, None if volume_node is None else shape_kji(volume_node)
        if shape is not None and min(shape) == 1:
            state.view_layout = self._single = planes_of(volume_node)[shape.index(1)]
        elif state.view_layout == self._single:
            state.view_layout, self._single = "four", ""

    def _take_result(self, choice: Choice, done: Segmented) -> None:
        """Another image may have been chosen meanwhile: then the result waits for its own."""
        remember_latest(choice.volume_node, done.written.segmentation_node)
        self.refresh()

    def _lay_over(self) -> None:
        """The user, who was asked, says that it is of this image."""
        if self._desk.doubtful.of(self._desk.volume) is not None:
            lay_over(self._desk, self._desk.doubtful.take())
            self._desk.state.step = "review"

    def _show_series(self) -> None:
        """Those that can be chosen: the page names one by its number."""
        self._desk.state.series = [
            {"number": number, "title": one.title, "line": one.line}
            for number, one in enumerate(self._desk.uploads.offered)
        ]

    def build(self) -> None:
        with html.Div(classes="drop", v_if="!loading"):
            v.VIcon("mdi-tray-arrow-down", size="large", color="grey")
            html.P("Drop NIfTI, NRRD, MHA or DICOM files here, or a zip of them.")
            with html.Div():
                button("Choose files", "utils.apformer.pick('files')", "mdi-file-outline")
                button("DICOM folder", "utils.apformer.pick('folder')", "mdi-folder-outline")
        with html.Div(classes="drop", v_else=True):
            v.VProgressCircular(indeterminate=True, size=28, width=3, color="primary")
            html.P("{{ upload_percent > 0 && upload_percent < 100 ? `uploading, ${upload_percent} %` : loading }}")
        with html.Div(v_if="!images.length && !loading", classes="demo"):
            hint("No image at hand? A real MR template of the brain is included.")
            button("Load the demo volume", "trigger('load_demo')", "mdi-brain", color="primary", variant="flat")
        with html.Div(v_if="doubtful", classes="notice block warning mt-3", role="alert"):
            html.Div("{{ doubtful }}", classes="notice-what")
            html.Div("Over the wrong image, structures of somebody else would look like findings here.")
            button("It is of this image: lay it over", "trigger('lay_over')", color="warning", classes="mt-2 mr-2")
            button("Leave it out", "trigger('leave_out')", classes="mt-2")
        with html.Div(v_if="series.length"):
            heading("DICOM series")
            with html.Button(
                v_for="one in series",
                key="one.number",
                classes="row-item",
                click="trigger('load_series', [one.number])",
                type="button",
            ):
                html.Div("{{ one.title }}", classes="row-title")
                html.Div("{{ one.line }}", classes="row-line")
        with html.Div(v_if="images.length"):
            heading("Images")
            with html.Div(v_for="image in images", key="image.id", classes="row-with-button"):
                with html.Button(
                    classes=("image.id === image_id ? 'row-item chosen' : 'row-item'",),
                    click="trigger('choose_image', [image.id])",
                    type="button",
                    raw_attrs=pressed("image.id === image_id"),
                ):
                    html.Div("{{ image.name }}", classes="row-title")
                    html.Div("{{ image.line }}", classes="row-line")
                v.VBtn(
                    icon="mdi-close",
                    size="x-small",
                    variant="text",
                    click="trigger('close_image', [image.id])",
                    title="Close this image",
                )
            button("Next: segment", "step = 'segment'", "mdi-arrow-right", key="2", color="primary", variant="flat")

    def _load_demo(self) -> None:
        """Once: it counts in no quota."""

        async def load() -> None:
            self._demo = await import_demo(self._desk)

        if self._demo in self._desk.workflow.volumes():
            choose(self._desk, self._demo)
        else:
            self._in_background("reading the demo volume", load)

    def _load_series(self, number: int) -> None:
        found = self._desk.uploads.take(number)
        self._in_background("reading the series", lambda: import_offered(self._desk, found))

    def _in_background(self, what: str, work: Any) -> None:
        """Read beside the event loop, so that the page answers meanwhile."""

        async def do() -> None:
            desk = self._desk
            try:
                await work()
            except APFormerError as error:
                desk.notices.error(error)
            except Exception as error:  # noqa: BLE001
                desk.notices.fault(error)
            with desk.state:
                desk.state.loading = ""

        if not self._desk.state.loading:
            self._desk.notices.clear("error")
            self._desk.state.loading = what
            task = asyncio.create_task(do())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _choose(self, node_id: str) -> None:
        node = self._desk.scene.GetNodeByID(node_id)
        if node is not self._desk.volume:
            choose(self._desk, node)

    def _close(self, node_id: str) -> None:
        close(self._desk, self._desk.scene.GetNodeByID(node_id))
        self.refresh()


def _row(node: Any) -> dict[str, Any]:
    k, j, i = shape_kji(node)
    spacing = " x ".join(f"{abs(step):.3g}" for step in node.GetSpacing())
    return {"id": node.GetID(), "name": node.GetName(), "line": f"{i} x {j} x {k} voxels of {spacing} mm"}

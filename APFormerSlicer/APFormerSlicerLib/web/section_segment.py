"""The second step: a model, where and how it computes, and what came of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from apformer.errors import APFormerError
from trame.widgets import html
from trame.widgets import vuetify3 as v
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from ..scene.appearance import set_fill_opacity
from ..scene.geometry import local_to_world, matrix_array
from ..scene.images import array_of
from ..scene.surface import show_in_3d
from ..workflow import Card, Choice, PreciousError, Run, Segmented, best, regions
from ..workflow.wording import device_in_words
from .desk import Desk
from .jobs_bar import JobsBar
from .parts import button, heading, hint, pressed, select
from .values import flag, one_of, some_of

DEVICES = [
    {"title": "Best", "value": "auto"},
    {"title": "CPU", "value": "cpu"},
    {"title": "NVIDIA GPU", "value": "cuda"},
]
MAPS = {"uncertainty": "Uncertainty map", "kept_tokens": "Kept-token map"}
_FILL = 0.35  # opacity of segments in slices
_WHOLE = ""  # the region's ID when the whole image is meant


class SegmentSection:
    """Chooses, starts and tells."""

    def __init__(self, desk: Desk, jobs: JobsBar) -> None:
        self._desk, self._jobs = desk, jobs
        self._estimating: Run | None = None
        self._estimated: Choice | None = None
        self._shown_volume: Any = None
        self._listed_for: Any = None  # the region
        desk.state.update(
            {
                "models": [],
                "model": "",
                "regions": [],
                "devices": DEVICES,
                "estimate": None,
                "result": None,
                "precious": False,
            }
        )
        desk.field("all_models", False, flag)
        desk.field("region_id", _WHOLE, one_of(lambda: [_WHOLE, *(node.GetID() for node in regions(desk.scene))]))
        desk.field("device", desk.workflow.state.device, one_of([one["value"] for one in DEVICES]))
        desk.field("wanted_maps", list(desk.workflow.state.maps), some_of(tuple(MAPS)))
        desk.action("segment", flag)(self.start)
        desk.action("choose_model", one_of(lambda: [one["reference"] for one in desk.state.models]))(self._choose_model)
        desk.on("region_id")(self._choose_region)
        desk.on("device", "wanted_maps")(self._choose_how)
        desk.on("step")(self._estimate)
        desk.workflow.state.changed.connect(self.refresh)
        desk.workflow.versions.changed.connect(lambda _: self.refresh(anew=True))
        desk.workflow.segmenting.segmented.connect(self._tell)

    # ---------------------------------------------------------------- what is chosen

    def refresh(self, anew: bool = False) -> None:
        """Show what the workflow's state says; for another volume, suggest a model."""
        desk, chosen = self._desk, self._desk.workflow.state
        desk.state.precious = False  # it was asked about another choice
        another = chosen.volume is not self._shown_volume
        if another:
            self._shown_volume = chosen.volume
            desk.state.result = None
        if anew or another or chosen.roi is not self._listed_for:
            self._listed_for = chosen.roi
            self._list_models(another)
        desk.state.model = chosen.model
        boxes = [{"title": node.GetName(), "value": node.GetID()} for node in regions(desk.scene)]
        desk.state.regions = [{"title": "Whole image", "value": _WHOLE}, *boxes]
        desk.state.region_id = _WHOLE if chosen.roi is None else chosen.roi.GetID()
        for node in regions(desk.scene):
            node.SetDisplayVisibility(node is chosen.roi)
        self._estimate()

    def _list_models(self, another_image: bool) -> None:
        """Those that suit the image first. A model that was chosen for the image before is chosen no longer where it
        does not suit this one: a key would start it."""
        desk = self._desk
        cards = desk.workflow.models.cards()
        if desk.volume is None:
            desk.state.models = [_row(card) for card in cards]
            return
        try:
            suggestions = desk.workflow.suggestions()
        except APFormerError as error:
            desk.notices.error(error)
            suggestions = []
        suits = {found.card.reference: found for found in suggestions}
        chosen = desk.workflow.state
        rows = [_row(found.card, found.reason if chosen.roi else found.why, found.suits) for found in suggestions]
        rows += [_row(card, "it cannot read such an image", False) for card in cards if card.reference not in suits]
        if chosen.model not in suits or (another_image and not suits[chosen.model].suits):
            first = best(suggestions)
            chosen.model = "" if first is None else first.card.reference
        desk.state.models = sorted(rows, key=lambda row: row["reference"] != chosen.model)

    def _choose_model(self, reference: str) -> None:
        self._desk.workflow.state.model = reference

    def _choose_region(self) -> None:
        """Another place is another result: what was found elsewhere stays as it is."""
        desk = self._desk
        node = desk.scene.GetNodeByID(desk.state.region_id) if desk.state.region_id else None
        if node is not desk.workflow.state.roi:
            desk.workflow.state.segmentation = None
            desk.workflow.state.roi = node
            if node is not None:
                desk.views.centre_on(node.GetCenter())

    def _choose_how(self) -> None:
        desk = self._desk
        desk.workflow.state.device = desk.state.device
        desk.workflow.state.maps = [name for name in MAPS if name in desk.state.wanted_maps]

    # ---------------------------------------------------------------- what it takes

    def _estimate(self) -> None:
        """Ask the worker, which also wakes it; not while it is asked, nor for what nobody looks at."""
        desk = self._desk
        choice = desk.workflow.choice()
        if desk.state.step != "segment" or choice.volume_node is None or not choice.model:
            desk.state.estimate = desk.state.estimate if choice.volume_node is not None else None
            return
        if choice == self._estimated or (self._estimating is not None and not self._estimating.over):
            return
        ok, reason = desk.workflow.segmenting.check(choice)
        if not ok:
            if desk.workflow.segmenting.run_of(choice.volume_node) is None:
                desk.state.estimate = {"ok": False, "line": reason, "warnings": []}
            return
        self._estimated = choice
        self._estimating = desk.workflow.segmenting.estimate(choice)
        self._estimating.ended.connect(self._show_estimate)

    def _show_estimate(self, run: Run) -> None:
        found = run.outcome
        if found is not None:
            shown = {"ok": found.ok, "line": found.line, "warnings": list(found.warnings)}
            self._desk.state.estimate = shown
        self._estimate()  # what was chosen meanwhile

    # ---------------------------------------------------------------- the job

    def start(self, overwrite: bool = False) -> None:
        """Segment what is chosen; where that would replace segments of the user's, ask, and again with `overwrite`."""
        desk = self._desk
        desk.state.precious = False
        desk.notices.clear("error")
        desk.notices.clear("warning")
        if desk.workflow.state.segmentation is not None:
            desk.editing.edit(desk.workflow.state.segmentation, desk.volume)
        try:
            run = desk.workflow.segment(overwrite=overwrite)
        except PreciousError as error:
            desk.state.precious = True
            desk.notices.error(error)
            return
        desk.state.result = None
        self._jobs.follow(run, "segment")

    def _tell(self, choice: Choice, done: Segmented) -> None:
        """A result is on the scene: show it in 3D too, and say what the user must know."""
        desk = self._desk
        node = done.written.segmentation_node
        if not done.written.replaced:  # else it looks as the user wants it
            set_fill_opacity(node, _FILL)
        if choice.volume_node is not desk.volume:
            name = choice.volume_node.GetName()
            desk.notices.tell(f"{name} is segmented. Choose it in step 1 to look at the result.", stays=True)
            return
        desk.editing.edit(node, choice.volume_node)
        show_in_3d(node)
        if not done.written.replaced:  # something new is to be seen: the user's view is not taken away otherwise
            desk.views.frame_3d()
            desk.views.show_place(_place_inside(node))
        desk.state.result = {
            "line": f"{done.seconds:.1f} s on {device_in_words(done.device)}",
            "replaced": list(done.written.replaced),
        }
        told = desk.state.estimate["warnings"] if desk.state.estimate else []
        desk.notices.warn(warning for warning in done.warnings if warning not in told)
        desk.state.step = "segment" if desk.state.step == "image" else desk.state.step

    # ---------------------------------------------------------------- what it looks like

    def build(self) -> None:
        with html.Div(v_if="!image_id"):
            hint("Load an image first; then this step offers the models that can segment it.")
            button("Load an image", "step = 'image'", "mdi-arrow-left", key="1")
        with html.Div(v_else=True):
            self._build_result()
            self._build_models()
            heading("Where and how")
            with html.Div(classes="two"):
                select("Region", "region_id", "regions")
                select("Computed on", "device", "devices")
            with html.Div(classes="two checks"):
                for name, title in MAPS.items():
                    v.VCheckbox(v_model=("wanted_maps",), value=name, label=title, density="compact", hide_details=True)
            button("Replace them", "trigger('segment', [true])", v_if="precious", color="warning")
            with html.Div(classes="always"):
                with html.Div(v_if="estimate", classes=("estimate.ok ? 'estimate' : 'estimate refused'",)):
                    html.Div("{{ estimate.line }}")
                    html.Div("{{ warning }}", v_for="warning in estimate.warnings", key="warning", classes="warning")
                button(
                    "Segment",
                    "trigger('segment')",
                    "mdi-auto-fix",
                    key="S",
                    color="primary",
                    variant="flat",
                    size="large",
                    block=True,
                    classes="",
                    disabled=("!model || job",),
                )

    def _build_models(self) -> None:
        heading("Model")
        with html.Button(
            v_for="one in models.filter((m) => m.fits || all_models || m.reference === model)",
            key="one.reference",
            classes=("one.reference === model ? 'row-item chosen' : one.fits ? 'row-item' : 'row-item unfit'",),
            click="!one.problem && trigger('choose_model', [one.reference])",
            type="button",
            raw_attrs=pressed("one.reference === model"),
        ):
            html.Div("{{ one.title }}", classes="row-title")
            html.Div("{{ one.line }}", classes="row-line clamped", title=("one.line",))
            html.Div("{{ one.why }}", v_if="one.why", classes=("one.fits ? 'row-line why' : 'row-line why unfit'",))
        button(
            "{{ all_models ? 'Only those that suit' : 'Show all models' }}",
            "all_models = !all_models",
            v_if="models.some((m) => !m.fits)",
            variant="text",
            size="x-small",
            classes="",
        )
        button(
            "Download the model",
            "utils.apformer.download('model/' + encodeURIComponent(model))",
            v_if="model",
            variant="text",
            size="x-small",
            classes="",
        )
        hint("No model is installed. `apformer models import` installs one.", v_if="!models.length")

    def _build_result(self) -> None:
        with html.Div(v_if="result && segments.length", classes="result"):
            heading("Result")
            with html.Table(classes="table"), html.Tbody():  # noqa: SIM117
                with html.Tr(v_for="one in segments", key="one.id"):
                    with html.Td(), html.Div(classes="segment"):
                        html.Span(classes="swatch", style=("{ background: one.color }",))
                        html.Span("{{ one.name }}")
                    html.Td("{{ one.ml }} mL", classes="number")
            hint("{{ result.line }}. A network's proposal: check it before it is used.")
            button("Next: review", "step = 'review'", "mdi-arrow-right", key="3", color="primary")
            with html.Div(classes="downloads"):
                html.Span("Download", classes="hint")
                for kind, title in (("seg.nrrd", ".seg.nrrd"), ("nifti", "NIfTI"), ("dicom", "DICOM SEG")):
                    button(title, f"utils.apformer.download('{kind}')", variant="text", size="x-small")


def _place_inside(segmentation_node: Any) -> list[float]:
    """A place in the first segment, RAS in mm: where it is widest, so that all slice views cut it."""
    segment_id = segmentation_node.GetSegmentation().GetNthSegmentID(0)
    layer = segmentation_node.GetBinaryLabelmapInternalRepresentation(segment_id)
    mask = array_of(layer) == segmentation_node.GetSegmentation().GetSegment(segment_id).GetLabelValue()
    k = int(mask.sum(axis=(1, 2)).argmax())
    j = int(mask[k].sum(axis=1).argmax())
    along = np.flatnonzero(mask[k, j])
    i = along[len(along) // 4] if len(along) else 0  # not the middle, which may lie between two sides
    matrix = vtkMatrix4x4()
    layer.GetImageToWorldMatrix(matrix)
    first_i, _, first_j, _, first_k, _ = layer.GetExtent()
    place = matrix_array(matrix) @ [i + first_i, j + first_j, k + first_k, 1.0]
    return [float(number) for number in (local_to_world(segmentation_node) @ place)[:3]]


def _row(card: Card, why: str = "", fits: bool = True) -> dict[str, Any]:
    """`why`: it suits the image or, where it does not `fits`, why not."""
    return {
        "reference": card.reference,
        "title": card.title,
        "line": card.line,
        "why": "" if card.problem else why,
        "fits": fits and card.problem is None,
        "problem": card.problem,
    }

"""The choice of a region of interest: a new one is fitted, and the chosen one can be dragged."""

from __future__ import annotations

from typing import Any

from apformer.errors import APFormerError

from ..scene.roi import fit_roi, is_empty, show_handles
from ..workflow import Workflow
from .collaborators import Asks, Ui
from .hints import quietly


class RegionChooser:
    """Works on the region that the state names. "Create new" makes a box around the segments that are there, else
    around the volume: Slicer itself makes one of no size, which cannot be seen nor dragged."""

    def __init__(self, ui: Ui, workflow: Workflow, asks: Asks) -> None:
        self._selector, self._workflow, self._asks = ui.roiSelector, workflow, asks
        self._handled: Any = None  # the region whose handles are shown
        self._new: Any = None  # one that was made while there was no volume to fit it to
        self._selector.connect("currentNodeChanged(vtkMRMLNode*)", self._choose)
        self._selector.connect("nodeAddedByUser(vtkMRMLNode*)", self._created)
        workflow.state.changed.connect(self.refresh)
        workflow.watch.closing.connect(self._forget)
        workflow.watch.removed.connect(self._removed)
        self.refresh()

    def refresh(self) -> None:
        """Show what the state says: the chosen region, with handles, and no other one with them."""
        if self._workflow.watch.is_closing:
            return
        region = self._workflow.state.roi
        with quietly(self._selector):
            self._selector.setCurrentNode(region)
        if region is not None and region is self._new:
            self._fit(region)
        if region is not self._handled:
            before, self._handled = self._handled, region
            if before is not None:
                show_handles(before, False)
            if region is not None:
                show_handles(region)

    def _choose(self, node: Any) -> None:
        if not self._workflow.watch.is_closing:
            self._workflow.state.roi = node

    def _created(self, node: Any) -> None:
        """Also where the widget makes a node without choosing it."""
        self._new = node
        self._workflow.state.roi = node
        self.refresh()

    def _fit(self, region: Any) -> None:
        choice = self._workflow.choice()
        if choice.volume_node is None:
            return
        self._new = None
        if not is_empty(region):  # drawn meanwhile
            return
        try:
            fit_roi(region, choice.volume_node, choice.segmentation_node)
        except APFormerError as error:
            self._asks.error(error)

    def _removed(self, node: Any) -> None:
        if node is self._handled:
            self._handled = None
        if node is self._new:
            self._new = None

    def _forget(self) -> None:
        self._handled = self._new = None

"""Segments in Slicer's 3D views: shown where they can be seen, and looked at from the front the first time."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

from ..scene.surface import hide_in_3d, is_in_3d, show_in_3d

_FROM_THE_FRONT = 3  # as ctkAxesWidget numbers the axes


class Views3D:
    """What a button "Show 3D" does. A second segmentation is looked at anew; the same one as the user turned it."""

    def __init__(self) -> None:
        self._looked_at: Any = None

    def toggle(self, segmentation_node: Any) -> str:
        """Show the segments, or hide them where they are shown. What the user has to be told, "" for nothing."""
        if is_in_3d(segmentation_node):
            hide_in_3d(segmentation_node)
            return ""
        if not show_in_3d(segmentation_node):
            return str(_("The segments could not be turned into surfaces."))
        switched = _need_a_view()
        if switched or segmentation_node is not self._looked_at:
            self._looked_at = segmentation_node
            _look_at_all()
        return str(_("The layout had no 3D view; four views are shown now.")) if switched else ""

    def forget(self, segmentation_node: Any) -> None:
        """It was removed, or its scene is being closed."""
        if segmentation_node is self._looked_at:
            self._looked_at = None


def _need_a_view() -> bool:
    """Whether the layout was changed to one with a 3D view, because there was none to be seen."""
    manager = slicer.app.layoutManager()
    if manager is None or any(view.mrmlViewNode().IsMappedInLayout() for view in _views()):
        return False
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    return True


def _look_at_all() -> None:
    """As the 3D views' own button in their corner: whatever is shown is in the middle and fills the view."""
    for view in _views():
        view.forceRender()  # a view that was just made knows of no surface before
        view.rotateToViewAxis(_FROM_THE_FRONT)
        view.resetFocalPoint()
        view.resetCamera()


def _views() -> list[Any]:
    """All that were ever shown; a layout need not show them. None without a main window."""
    manager = slicer.app.layoutManager()
    return [] if manager is None else [manager.threeDWidget(n).threeDView() for n in range(manager.threeDViewCount)]

"""The panel in 3D Slicer's window; the only room that knows Qt."""

from .panel import Panel

__all__ = ["Panel"]

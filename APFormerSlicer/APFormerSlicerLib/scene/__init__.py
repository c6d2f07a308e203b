"""MRML nodes to the engine's volumes, and the engine's results to MRML: in 3D Slicer, and on slicer-core without it.

Nothing here asks for a global scene: nodes know theirs. Nodes are only to be used on the main thread.
"""

from .files import read_segmentation, write_segmentation
from .label_maps import Pieces, check_labels, take_pieces, to_label_map
from .provenance import Provenance
from .results import Result, Written, write_result
from .roi import as_text, fit_roi, to_roi
from .segmentations import new_segmentation
from .segments import segment_ids
from .sequences import Frames, frames_of
from .status import Status, set_status, status_of
from .volumes import to_volume

__all__ = [
    "Frames",
    "Pieces",
    "Provenance",
    "Result",
    "Status",
    "Written",
    "as_text",
    "check_labels",
    "fit_roi",
    "frames_of",
    "new_segmentation",
    "read_segmentation",
    "segment_ids",
    "set_status",
    "status_of",
    "take_pieces",
    "to_label_map",
    "to_roi",
    "to_volume",
    "write_result",
    "write_segmentation",
]

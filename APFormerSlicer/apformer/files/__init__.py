"""Images and label maps on disk: one file per format family, one function to read and two to write.

What reads and writes images is loaded when it is first asked for: hosts write their small files (`atomic_path`) and see
whose a folder is (`lock`) while their window opens, long before there is an image.
"""

from typing import TYPE_CHECKING, Any

from .atomic import atomic_path
from .formats import IMAGE_SUFFIXES, LABEL_SUFFIXES, suffix_of

if TYPE_CHECKING:
    from .dicom import Series, list_series
    from .read import header_notes, read_volume
    from .slicer_segmentation import read_segment_names
    from .write import write_labels, write_scalar

__all__ = [
    "IMAGE_SUFFIXES",
    "LABEL_SUFFIXES",
    "Series",
    "atomic_path",
    "header_notes",
    "list_series",
    "read_segment_names",
    "read_volume",
    "suffix_of",
    "write_labels",
    "write_scalar",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .dicom import Series, list_series
    from .read import header_notes, read_volume
    from .slicer_segmentation import read_segment_names
    from .write import write_labels, write_scalar

    loaded = (Series, header_notes, list_series, read_segment_names, read_volume, write_labels, write_scalar)
    globals().update({one.__name__: one for one in loaded})
    return globals()[name]

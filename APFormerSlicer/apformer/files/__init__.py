"""Images and label maps on disk: one file per format family, one function to read and two to write."""

from .atomic import atomic_path
from .dicom import Series, list_series
from .formats import IMAGE_SUFFIXES, LABEL_SUFFIXES, suffix_of
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

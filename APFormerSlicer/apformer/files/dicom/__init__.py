"""DICOM as hospitals have it: which series a folder holds, one of them as a volume, and segmentations written back.

A file is recognised by its content (`mark`), its header read without believing it (`file`), the form of its voxels
checked (`form`) before they are decoded (`pixels`, `codestream`); slices (`slice`) are told apart and put together
(`series`, `separate`, `divide`, `stack`).
"""

from .reading import list_series, read_file, read_folder
from .series import Series

__all__ = ["Series", "list_series", "read_file", "read_folder"]

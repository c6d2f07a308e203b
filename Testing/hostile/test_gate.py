"""One gate in front of every reader that is not ours: a new way around it has to be written into this file."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ROOT / "APFormerSlicer"

# What hands a path to ITK, VTK, MRML, Pillow or pydicom, and why the file is safe by then.
CHECKED_BEFORE = {
    "apformer/files/itk.py": "called by DICOM and PNG only, each behind its own checks",
    "apformer/files/picture.py": "content decides between PNG and JPEG; PNG is checked chunk by chunk",
    "apformer/demo/inputs.py": "files of two installed packages, whose checksums are compared",
    "APFormerSlicerLib/scene/files.py": "MRML reads a copy that we wrote from what was checked",
}
_DICOM = "apformer/files/dicom/"  # pydicom, in Python; pixels behind checks of the header
READERS = re.compile(
    r"sitk\.ReadImage|ImageFileReader|ImageSeriesReader|SetFileName\(|SetFileNames\(|\.ReadData\(|Image\.open\(|"
    r"dcmread\(|load(Volume|Segmentation|LabelVolume|Sequence|Scene|NodeFromFile)\(|nibabel|vtk\w*Reader\("
)
# What runs code, or could, when it is given somebody else's file.
UNSAFE = re.compile(
    r"(?<!safetensors\.)torch\.load\(|\bpickle\.|allow_pickle=True|yaml\.load\(|(?<![\w.])(eval|exec)\(|"
    r"os\.system\(|shell=True"
)


def sources() -> dict[str, str]:
    found = sorted(PRODUCT.rglob("*.py"))
    return {path.relative_to(PRODUCT).as_posix(): path.read_text("utf-8") for path in found}


def test_only_the_known_places_hand_a_path_to_other_readers() -> None:
    places = {name for name, text in sources().items() if READERS.search(text)}
    assert {name for name in places if not name.startswith(_DICOM)} == set(CHECKED_BEFORE)


def test_nothing_unpickles_or_runs_what_a_file_holds() -> None:
    assert [(name, found[0]) for name, text in sources().items() if (found := UNSAFE.search(text))] == []

"""Fixtures shared by the rooms' tests: the labelled data where it is present, and small images and labels."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
for folder in (ROOT / "APFormerSlicer", ROOT / "Testing"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import workers  # noqa: E402

workers.share_threads(os.environ, workers.usable_cores())

if TYPE_CHECKING:
    from apformer.bundles.labels import Label
    from apformer.volume import Volume


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--hostile", type=int, metavar="N", help="how many spoiled files Testing/hostile tries")


@pytest.hookimpl(optionalhook=True)  # tests run without pytest-xdist, in one process
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    return workers.how_many(config.args, workers.usable_cores(), shown=config.getoption("capture") == "no")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    workers.long_first(items)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the labelled data; tests that need it are skipped where it is absent."""
    root = Path(os.environ.get("APFORMER_DATA") or ROOT.parent / "shared" / "data")
    if not root.is_dir():
        pytest.skip(f"labelled data not found at {root}; set APFORMER_DATA to its folder")
    return root


@pytest.fixture(scope="session")
def cases_root() -> Path:
    """The folder with small inputs that once were read wrongly; tests that need it are skipped where it is absent."""
    root = Path(os.environ.get("APFORMER_CASES") or ROOT.parent / "shared" / "cases")
    if not root.is_dir():
        pytest.skip(f"the small inputs were not found at {root}; set APFORMER_CASES to their folder")
    return root


@pytest.fixture
def an_image() -> Volume:
    """5 x 6 x 7 voxels (k, j, i) of int16 noise on an oblique, anisotropic grid."""
    from apformer.volume import Volume

    c, s = math.cos(0.4), math.sin(0.4)
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[-c, s, 0.0], [-s, -c, 0.0], [0.0, 0.0, 1.0]]) * [0.7, 0.9, 2.5]
    matrix[:3, 3] = [12.5, -30.25, 1 / 3]
    voxels = np.random.default_rng(0).integers(-1000, 1000, (5, 6, 7)).astype(np.int16)
    return Volume(voxels, matrix, "CT")


@pytest.fixture
def two_labels() -> tuple[Label, Label]:
    """A left and a right structure with values 1 and 3 (2 is not used)."""
    from apformer.bundles.labels import Code, Label

    category = Code("SCT", "123037004", "Anatomical Structure")
    liver = Code("SCT", "10200004", "Liver")
    kidney = Code("SCT", "64033007", "Kidney")
    left = Code("SCT", "7771000", "Left")
    return (
        Label(1, "Liver", (221, 130, 101), category, liver),
        Label(3, "Left kidney", (185, 102, 83), category, kidney, left),
    )


@pytest.fixture
def a_label_map(an_image: Volume) -> Volume:
    """On the grid of `an_image`: label 1 in a block, label 3 in one voxel."""
    array = np.zeros(an_image.spatial_shape, np.uint8)
    array[1:3, 2:5, 1:4] = 1
    array[4, 5, 6] = 3
    return an_image.with_array(array)


DicomWriter = Callable[..., list[Path]]


@pytest.fixture
def write_dicom(tmp_path: Path) -> DicomWriter:
    """Writes an axial CT series, one file per slice in shuffled order; every voxel of slice k is stored as k + 1."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    def write(
        folder: str = "series",
        *,
        positions: list[tuple[float, float, float]],
        orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
        slopes: list[float] | None = None,
        description: str = "synthetic",
        shape: tuple[int, int] = (4, 5),
        spacing: tuple[float, float] = (2.0, 3.0),
    ) -> list[Path]:
        (tmp_path / folder).mkdir(exist_ok=True)
        series, study, frame = generate_uid(), generate_uid(), generate_uid()
        files = []
        for k in np.random.default_rng(1).permutation(len(positions)):
            meta = FileMetaDataset()
            meta.MediaStorageSOPClassUID = CTImageStorage
            meta.MediaStorageSOPInstanceUID = generate_uid()
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            path = tmp_path / folder / f"{len(files):03d}-{series[-6:]}.dcm"
            slice_ = FileDataset(str(path), pydicom.Dataset(), file_meta=meta, preamble=b"\0" * 128)
            slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
            slice_.StudyInstanceUID, slice_.SeriesInstanceUID, slice_.FrameOfReferenceUID = study, series, frame
            slice_.SeriesDescription, slice_.Modality, slice_.InstanceNumber = description, "CT", len(files) + 1
            slice_.PatientName, slice_.PatientID, slice_.PatientBirthDate, slice_.PatientSex = "A^B", "1", "", ""
            slice_.StudyDate, slice_.StudyTime, slice_.AccessionNumber, slice_.StudyID = "20200101", "120000", "", "1"
            slice_.ReferringPhysicianName, slice_.SeriesNumber, slice_.Manufacturer = "", 1, ""
            slice_.ImagePositionPatient = [float(number) for number in positions[k]]
            slice_.ImageOrientationPatient = [float(number) for number in orientation]
            slice_.PixelSpacing, slice_.SliceThickness = list(spacing), 2.5
            slice_.Rows, slice_.Columns = shape
            slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
            slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 0
            slice_.RescaleSlope, slice_.RescaleIntercept = (slopes[k] if slopes else 1.0), -1024.0
            slice_.PixelData = np.full(shape, k + 1, np.uint16).tobytes()
            slice_.save_as(path, enforce_file_format=True)
            files.append(path)
        return files

    return write

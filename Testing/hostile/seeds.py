"""Small valid files of every format that is read: what the fuzzer spoils."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from apformer.bundles.labels import Code, Label
from apformer.files import write_labels, write_scalar
from apformer.volume import Volume
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless, RLELossless

SHAPE = (6, 20, 24)  # k, j, i


@dataclass(frozen=True)
class Seed:
    """A valid file.

    Attributes:
        name: of the file; the suffix is that of its format. files: others that it needs, beside it.
        packed: where in the file its packed voxels lie, first byte and the one after the last; None: not packed.
        header: how many bytes of header are worth an edit.
        is_folder: the path to read is the folder of the file.
    """

    name: str
    content: bytes
    packed: tuple[int, int] | None = None
    header: int = 0
    files: tuple[tuple[str, bytes], ...] = ()
    is_folder: bool = False


def labels() -> np.ndarray:
    """A label map of three structures with ragged borders."""
    rng = np.random.default_rng(7)
    k, j, i = np.indices(SHAPE)
    wobble = rng.normal(0, 1, SHAPE)
    found = np.zeros(SHAPE, np.uint8)
    for value, (ck, cj, ci) in enumerate(((2, 6, 6), (3, 13, 10), (3, 8, 18)), 1):
        found[(k - ck) ** 2 * 3 + (j - cj) ** 2 + (i - ci) ** 2 + 2 * wobble < 24] = value
    return found


def image() -> np.ndarray:
    rng = np.random.default_rng(8)
    return (labels().astype(np.int16) * 90 - 40 + rng.integers(-20, 20, SHAPE)).astype(np.int16)


def grid() -> np.ndarray:
    matrix = np.diag([-0.75, -0.75, 2.5, 1.0])
    matrix[:3, 3] = [40.0, 60.5, -110.25]
    return matrix


def all_seeds(folder: Path) -> list[Seed]:
    """Made anew in `folder`: equal each time."""
    made = [*_by_ourselves(folder), *_by_itk(folder), *_pictures(folder), *_detached(), *_dicom(folder)]
    assert len({seed.name for seed in made}) == len(made)
    return made


def _by_ourselves(folder: Path) -> list[Seed]:
    anatomy = Code("SCT", "123037004", "Anatomical Structure")
    table = [
        Label(value, name, (10 * value, 90, 200), anatomy, Code("SCT", "10200004", "Liver"))
        for value, name in enumerate(("Liver", "Übergangszone", "Left kidney"), 1)
    ]
    volume = Volume(labels(), grid())
    made = []
    for suffix in (".nii.gz", ".nrrd", ".seg.nrrd", ".mha", ".nii"):
        path = folder / f"labels{suffix}"
        write_labels(path, volume, table, reference=volume)
        made.append(_seed(path))
    write_scalar(folder / "image.nii.gz", Volume(image(), grid()))
    write_scalar(folder / "image.nrrd", Volume(image(), grid()))
    return [*made, _seed(folder / "image.nii.gz"), _seed(folder / "image.nrrd")]


def _by_itk(folder: Path) -> list[Seed]:
    flat = sitk.GetImageFromArray(image())
    colours = sitk.GetImageFromArray(np.stack([image().astype(np.uint8)] * 3, axis=-1), isVector=True)
    made = []
    for name, pixels, packed in (
        ("itk.mha", flat, False), ("itk-packed.mha", flat, True), ("vectors.mha", colours, True),
        ("itk.nrrd", flat, False), ("vectors.nrrd", colours, True), ("vectors.nii.gz", colours, True),
    ):  # fmt: skip
        sitk.WriteImage(pixels, str(folder / name), useCompression=packed)
        made.append(_seed(folder / name))
    return made


def _pictures(folder: Path) -> list[Seed]:
    gray = labels()[3]
    deep = image()[3].astype(np.uint16)
    colour = np.stack([gray * 60, gray * 40 + 5, gray * 20], axis=-1).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(gray), str(folder / "mask.png"))
    sitk.WriteImage(sitk.GetImageFromArray(deep), str(folder / "deep.png"))
    Image.fromarray(colour).save(folder / "colour.png")
    deep_colour = np.stack([deep, deep + 1, deep + 2], axis=-1).astype(np.uint16)
    sitk.WriteImage(sitk.GetImageFromArray(deep_colour, isVector=True), str(folder / "deep-colour.png"))
    Image.fromarray(gray).save(folder / "one.png", bits=2)
    Image.fromarray(colour).save(folder / "colour.jpg", quality=90)
    return [
        _seed(folder / name)
        for name in ("mask.png", "deep.png", "colour.png", "deep-colour.png", "one.png", "colour.jpg")
    ]


def _detached() -> list[Seed]:
    voxels = labels().tobytes()
    sizes = " ".join(str(length) for length in reversed(SHAPE))
    mhd = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = True\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\n"
        f"Offset = 0 0 0\nElementSpacing = 1 1 2\nDimSize = {sizes}\n"
        "ElementType = MET_UCHAR\nElementDataFile = d.zraw\n"
    ).encode()
    nhdr = (
        f"NRRD0004\ntype: uint8\ndimension: 3\nspace: LPS\nsizes: {sizes}\nspace directions: (1,0,0) (0,1,0) (0,0,2)\n"
        "space origin: (0,0,0)\nencoding: gzip\ndata file: d.raw.gz\n"
    ).encode()
    return [
        Seed("labels.mhd", mhd, header=len(mhd), files=(("d.zraw", zlib.compress(voxels)),)),
        Seed("labels.nhdr", nhdr, header=len(nhdr), files=(("d.raw.gz", gzip.compress(voxels)),)),
    ]


def _dicom(folder: Path) -> list[Seed]:
    made = []
    for name, syntax in (("explicit.dcm", ExplicitVRLittleEndian), ("implicit.dcm", ImplicitVRLittleEndian)):
        path = folder / name
        slice_of(3, syntax).save_as(path, enforce_file_format=True)
        made.append(Seed(name, path.read_bytes(), header=1200))
    for name, syntax in (("rle.dcm", RLELossless), ("jpegls.dcm", JPEGLSLossless)):
        packed = slice_of(3, ExplicitVRLittleEndian)
        packed.compress(syntax)
        packed.save_as(folder / name, enforce_file_format=True)
        made.append(Seed(name, (folder / name).read_bytes(), header=1200))
    others = []
    for k in range(SHAPE[0]):
        path = folder / f"slice-{k}.dcm"
        slice_of(k, ExplicitVRLittleEndian).save_as(path, enforce_file_format=True)
        others.append((path.name, path.read_bytes()))
    made.append(Seed("slice-2.dcm", others[2][1], header=1200, files=tuple(others), is_folder=True))
    return made


def slice_of(k: int, syntax: pydicom.uid.UID) -> FileDataset:
    """One axial slice of a made CT."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, syntax
    meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.8.498.{k + 1}"
    made = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.3.4", "1.2.3.4.5"
    made.FrameOfReferenceUID, made.Modality, made.PatientID = "1.2.3.4.6", "CT", "made"
    made.SeriesDescription, made.InstanceNumber = "made", k + 1
    made.ImagePositionPatient, made.ImageOrientationPatient = [-40, -60, 2.5 * k], [1, 0, 0, 0, 1, 0]
    made.PixelSpacing, made.SliceThickness = [0.75, 0.75], 2.5
    made.Rows, made.Columns, made.SamplesPerPixel = SHAPE[1], SHAPE[2], 1
    made.PhotometricInterpretation, made.PixelRepresentation = "MONOCHROME2", 1
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
    made.RescaleSlope, made.RescaleIntercept = 1, 0
    made.PixelData = image()[k].tobytes()
    made["PixelData"].VR = "OW"
    return made


_Bounds = Callable[[bytes], tuple[int, int] | None]


def _seed(path: Path) -> Seed:
    content = path.read_bytes()
    packed, header = _BOUNDS[path.suffix](content), 0
    if path.suffix in (".nrrd", ".mha"):
        header = packed[0] if packed else content.index(b"\n\n" if path.suffix == ".nrrd" else b"LOCAL\n")
    return Seed(path.name, content, packed, header)


def _of_nrrd(content: bytes) -> tuple[int, int] | None:
    end = content.index(b"\n\n") + 2
    return (end, len(content)) if b"encoding: gzip" in content[:end] else None


def _of_mha(content: bytes) -> tuple[int, int] | None:
    end = content.index(b"LOCAL\n") + 6
    return (end, len(content)) if b"CompressedData = True" in content[:end] else None


def _of_png(content: bytes) -> tuple[int, int] | None:
    start = content.index(b"IDAT") + 4
    return start, start + int.from_bytes(content[start - 8 : start - 4], "big")


_BOUNDS: dict[str, _Bounds] = {
    ".nrrd": _of_nrrd, ".mha": _of_mha, ".png": _of_png, ".gz": lambda content: (10, len(content)),
    ".nii": lambda content: None, ".jpg": lambda content: None,
}  # fmt: skip

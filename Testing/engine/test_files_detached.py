"""A header names nothing outside its file, but for .mhd and .nhdr a file beside it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from apformer.errors import InputError
from apformer.files import read_volume

SECRET = bytes(range(100, 124))
MHD = (
    "ObjectType = Image\nNDims = 3\nDimSize = 2 3 4\nElementType = MET_UCHAR\nElementSpacing = 1 1 1\n"
    "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementDataFile = {}\n"
)
NHDR = (
    "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 3 4\nspace: LPS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n"
    "space origin: (0,0,0)\nencoding: raw\ndata file: {}\n"
)
HEADERS = {".mhd": MHD, ".nhdr": NHDR, ".mha": MHD, ".nrrd": NHDR + "\n", ".seg.nrrd": NHDR + "\n"}


@pytest.fixture
def a_folder(tmp_path: Path) -> Path:
    """A folder with data.raw, beside a file that nobody may read."""
    (tmp_path / "secret.raw").write_bytes(SECRET)
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "data.raw").write_bytes(bytes(range(24)))
    return folder


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
def test_a_file_beside_the_header_is_read_also_through_a_link_that_stays_there(a_folder: Path, suffix: str) -> None:
    os.symlink("data.raw", a_folder / "link.raw")
    for name in ("data.raw", "link.raw"):
        (a_folder / f"image{suffix}").write_text(HEADERS[suffix].format(name))
        np.testing.assert_array_equal(read_volume(a_folder / f"image{suffix}").array.ravel(), np.arange(24))


@pytest.mark.parametrize("suffix", HEADERS)
def test_every_other_place_is_refused(a_folder: Path, suffix: str) -> None:
    secret = a_folder.parent / "secret.raw"
    os.symlink(secret, a_folder / "away.raw")
    (a_folder / "deep").mkdir()
    shutil.copy(secret, a_folder / "deep" / "inner.raw")
    names = [
        str(secret), "../secret.raw", "./../secret.raw", "deep/../../secret.raw", "deep/inner.raw", "..\\secret.raw",
        "away.raw", "C:secret.raw", "file:///etc/hostname", "/etc/hostname", "/dev/zero", "", ".", "..", "deep",
        "LIST\n../secret.raw", "LIST 2\nsecret.raw", "../secret%d.raw 0 0 1", "slice%03d.raw 1 4 1", "\0", "~/x",
        "missing.raw",
    ]  # fmt: skip
    for name in names:
        (a_folder / f"image{suffix}").write_text(HEADERS[suffix].format(name))
        with pytest.raises(InputError):
            read_volume(a_folder / f"image{suffix}")


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".seg.nrrd"])
def test_formats_of_one_file_name_no_other_not_even_beside_them(a_folder: Path, suffix: str) -> None:
    (a_folder / f"image{suffix}").write_text(HEADERS[suffix].format("data.raw"))
    with pytest.raises(InputError, match="keeps its voxels in another file"):
        read_volume(a_folder / f"image{suffix}")


def test_the_words_say_what_can_be_done(a_folder: Path) -> None:
    (a_folder / "image.mhd").write_text(MHD.format("../secret.raw"))
    with pytest.raises(InputError) as refused:
        read_volume(a_folder / "image.mhd")
    assert refused.value.remedy == "Put both into one folder, and write the plain name into the header."

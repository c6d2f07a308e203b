"""Voxels are read to the last byte: as many as the header says, from packed streams whose checksums are right."""

from __future__ import annotations

import bz2
import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest
from apformer.errors import InputError
from apformer.files.voxels import Packing, Voxels
from apformer.memory import memory_limit

NUMBERS = np.arange(24, dtype="<i2").reshape(2, 3, 4)
PACKERS = {"raw": bytes, "zlib": zlib.compress, "gzip": gzip.compress, "bzip2": bz2.compress}


def read(folder: Path, content: bytes, packing: Packing, dtype: str = "<i2", start: int = 0):
    (folder / "voxels").write_bytes(content)
    return Voxels(folder / "voxels", start, (2, 3, 4), np.dtype(dtype), packing).read()


@pytest.mark.parametrize("packing", PACKERS)
def test_every_packing_gives_the_voxels_behind_a_header(tmp_path: Path, packing: Packing) -> None:
    array, notes = read(tmp_path, b"header" + PACKERS[packing](NUMBERS.tobytes()), packing, start=6)
    np.testing.assert_array_equal(array, NUMBERS)
    assert notes == ()


def test_the_other_byte_order_is_turned_into_this_machines(tmp_path: Path) -> None:
    array, _ = read(tmp_path, gzip.compress(NUMBERS.astype(">i2").tobytes()), "gzip", ">i2")
    np.testing.assert_array_equal(array, NUMBERS)
    assert array.dtype.isnative


@pytest.mark.parametrize("packing", ["zlib", "gzip", "bzip2"])
def test_each_flipped_bit_of_a_packed_stream_is_refused_or_changes_nothing(tmp_path: Path, packing: Packing) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (2, 3, 4)).astype("<i2")
    packed = PACKERS[packing](labels.tobytes())
    unnoticed = 0
    for bit in range(8 * len(packed)):
        spoiled = bytearray(packed)
        spoiled[bit // 8] ^= 1 << bit % 8
        try:
            array, _ = read(tmp_path, bytes(spoiled), packing)
        except InputError:
            continue
        unnoticed += not np.array_equal(array, labels)  # the time in a gzip header may change
    assert unnoticed == 0


@pytest.mark.parametrize("packing", ["zlib", "gzip", "bzip2"])
def test_a_packed_stream_that_is_cut_anywhere_is_refused(tmp_path: Path, packing: Packing) -> None:
    packed = PACKERS[packing](NUMBERS.tobytes())
    for kept in range(len(packed)):
        with pytest.raises(InputError, match="could not be read"):
            read(tmp_path, packed[:kept], packing)


@pytest.mark.parametrize("packing", ["zlib", "gzip", "bzip2"])
def test_a_packed_stream_with_more_or_fewer_voxels_than_the_header_says_is_refused(
    tmp_path: Path, packing: Packing
) -> None:
    for content in (NUMBERS.tobytes() + b"\0\0", NUMBERS.tobytes()[:-2]):
        with pytest.raises(InputError, match=r"more voxels than its header|ends after 46 of 48 bytes"):
            read(tmp_path, PACKERS[packing](content), packing)


@pytest.mark.parametrize("packing", ["gzip", "bzip2"])
def test_streams_in_a_row_as_parallel_packers_write_them_are_one(tmp_path: Path, packing: Packing) -> None:
    pieces = [NUMBERS.tobytes()[:10], b"", NUMBERS.tobytes()[10:]]
    array, _ = read(tmp_path, b"".join(PACKERS[packing](piece) for piece in pieces), packing)
    np.testing.assert_array_equal(array, NUMBERS)


def test_zeros_may_follow_a_packed_stream_and_nothing_else(tmp_path: Path) -> None:
    packed = gzip.compress(NUMBERS.tobytes())
    np.testing.assert_array_equal(read(tmp_path, packed + bytes(512), "gzip")[0], NUMBERS)
    with pytest.raises(InputError, match="something follows"):
        read(tmp_path, packed + b"more", "gzip")


def test_bytes_behind_unpacked_voxels_are_told_and_missing_ones_refused(tmp_path: Path) -> None:
    array, notes = read(tmp_path, NUMBERS.tobytes() + b"abc", "raw")
    np.testing.assert_array_equal(array, NUMBERS)
    assert notes == ("voxels: 3 bytes follow the voxels that the header describes; they were not read",)
    with pytest.raises(InputError, match="ends after 47 of 48 bytes"):
        read(tmp_path, NUMBERS.tobytes()[:-1], "raw")


def test_a_claim_that_packed_bytes_cannot_hold_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(gzip.compress(b"x"))
    with pytest.raises(InputError, match="cannot hold"):
        Voxels(tmp_path / "small", 0, (1000, 1000, 1000), np.dtype("u1"), "gzip").read()


def test_what_unpacks_to_more_than_the_budget_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bomb").write_bytes(gzip.compress(bytes(4_000_000)))
    with memory_limit(1_000_000), pytest.raises(InputError, match="would need 4 MB of memory"):
        Voxels(tmp_path / "bomb", 0, (4_000_000,), np.dtype("u1"), "gzip").read()


def test_numbers_as_text_are_read_and_those_that_do_not_fit_refused(tmp_path: Path) -> None:
    text = " ".join(str(number) for number in NUMBERS.ravel())
    np.testing.assert_array_equal(read(tmp_path, text.encode(), "text")[0], NUMBERS)
    np.testing.assert_array_equal(read(tmp_path, NUMBERS.tobytes().hex().encode(), "hex")[0], NUMBERS)
    for spoiled in (text.replace("23", "40000"), text.replace("23", "2x"), text.removesuffix(" 23"), text + " 24"):
        with pytest.raises(InputError, match="could not be read"):
            read(tmp_path, spoiled.encode(), "text")

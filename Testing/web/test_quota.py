"""What a session may keep, on a real server: over all uploads together, until images are closed."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the browser host is not installed")

from apformer.files import write_scalar
from apformer.volume import Volume
from web_client import Client, a_user, end, run
from web_server import Served

MB = 1_000_000


def noise(side: int) -> Volume:
    """float32 that does not compress."""
    voxels = np.random.default_rng(0).random((side, side, side)).astype(np.float32)
    return Volume(voxels, np.eye(4), "MR")


def in_session(server: Served) -> list[Path]:
    return [path for path in server.files() if "uploads" in path.parts]


async def close_all(user: Client) -> None:
    for row in (await user.fresh())["images"]:
        await user.trigger("close_image", row["id"])


def test_twenty_zips_do_not_pass_a_quota_that_one_fits_in(a_server: Served, tmp_path: Path) -> None:
    write_scalar(tmp_path / "image.nii", noise(60))  # 0.9 MB
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "image.nii", "image.nii")
        archive.writestr("notes.bin", bytes(2 * MB))  # 2 kB in the zip, and nothing that is read

    async def test() -> None:
        async with a_user(a_server.address) as user:
            for _ in range(20):
                await user.upload(("image.zip", stream.getvalue()))
            error = await user.error("The upload is larger than what is left of this session's 8 MB")
            assert "Close images" in error["remedy"]
            images = (await user.fresh())["images"]
            assert 1 <= len(images) <= 3
            assert sum(path.stat().st_size for path in in_session(a_server)) <= 8 * MB
            await close_all(user)
            assert in_session(a_server) == []
            await user.upload(("image.zip", stream.getvalue()))
            await user.until(lambda state: len(state["images"]) == 1)
            await end(user)

    run(test())


def test_an_image_that_unpacks_beyond_the_quota_is_refused_and_leaves_nothing(a_server: Served, tmp_path: Path) -> None:
    for suffix in ("nii.gz", "nrrd", "mha"):
        write_scalar(tmp_path / f"bomb.{suffix}", Volume(np.zeros((400, 400, 400), np.uint8), np.eye(4), "MR"))
        assert (tmp_path / f"bomb.{suffix}").stat().st_size < MB

    async def test() -> None:
        async with a_user(a_server.address) as user:
            for suffix in ("nii.gz", "nrrd", "mha"):
                await user.upload(tmp_path / f"bomb.{suffix}")
                state = await user.fresh()
                assert state["images"] == []
                assert any(notice["kind"] == "error" and notice["remedy"] for notice in state["notices"])
                assert in_session(a_server) == []
            write_scalar(tmp_path / "small.nii.gz", noise(20))
            await user.upload(tmp_path / "small.nii.gz")
            await user.until(lambda state: len(state["images"]) == 1)
            await end(user)

    run(test())

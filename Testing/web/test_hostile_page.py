"""Somebody's own script in place of the page's: everything that a page can send, with values that no page sends.

What there is to send is read from the running application: what is added to the page is walked too.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgpack
import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the browser host is not installed")

from apformer.bundles.labels import Label
from apformer.files import write_labels, write_scalar
from apformer.volume import Volume
from web_client import Client, a_user, run
from web_hostile import DEEP, HOSTILE
from web_samples import write_slices
from web_server import SOURCES, Served, serving
from yarl import URL

pytestmark = pytest.mark.long

HERE = Path(__file__).resolve().parent
OF_A = "Seen by A only"
# Procedures that libraries of this kind register, or that read files and run code in others.
PROCEDURES = (
    "application.exit", "application.exit.later", "trame.force.push", "trame.rca.push", "trame.rca.drop",
    "trame.rca.reset", "trame.rca.video.codecs", "trame.rca.video.negotiate", "file.server.directory.list",
    "file.server.upload", "pv.proxy.manager.create", "pv.data.save", "viewport.image.render", "wslink.hello",
    "system.exit", "__class__", "",
)  # fmt: skip


@dataclass(frozen=True)
class Page:
    """What a page may send, by name; `procedures` are those of all libraries, `open` those of the gate."""

    fields: list[str]
    actions: dict[str, int]
    triggers: list[str]
    state: list[str]
    procedures: list[str]
    open: list[str]


@pytest.fixture(scope="module")
def page(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("listed")
    done = subprocess.run([sys.executable, str(HERE / "list_page.py"), str(folder)], capture_output=True, check=True)
    return Page(**json.loads(done.stdout))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("watched") / "files.txt"


@pytest.fixture(scope="module")
def server(installed: None, watched: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """For users of other computers, who must not learn anything of this one; its processes' files are written down."""
    options = ("--host", "0.0.0.0", "--users", "3", "--upload-mb", "8")
    with serving(*options, models=tmp_path_factory.mktemp("models"), watched=watched) as served:
        yield served


def user_of(server: Served) -> Any:
    address, _, token = server.link.partition("?")
    return a_user(address, f"?{token}")


def two_series(write_dicom: Callable[..., list[Path]], name: str) -> bytes:
    packed = io.BytesIO()
    image = Volume(np.arange(4 * 6 * 5, dtype=np.float32).reshape(4, 6, 5), np.eye(4), "MR")
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(2):
            for path in write_slices(write_dicom, image, f"{name}-{number}", f"{name} {number}").iterdir():
                archive.write(path, f"{number}/{path.name}")
    return packed.getvalue()


def an_image(folder: Path) -> Path:
    path = folder / "image-of-b.nii.gz"
    write_scalar(path, Volume(np.arange(8 * 6 * 5, dtype=np.float32).reshape(8, 6, 5), np.eye(4), "MR"))
    return path


def a_segmentation(folder: Path, labels: tuple[Label, Label]) -> Path:
    path = folder / "segmentation-of-b.seg.nrrd"
    voxels = np.zeros((8, 6, 5), np.uint8)
    voxels[1:3], voxels[5:7] = labels[0].value, labels[1].value
    label_map = Volume(voxels, np.eye(4))
    write_labels(path, label_map, labels, reference=label_map)
    return path


def folders_of_server(server: Served) -> list[str]:
    return [str(server.temporary), str(SOURCES), str(SOURCES.parent), sys.prefix, str(Path.home())]


# -------------------------------------------------------------------- what there is


def test_everything_that_the_page_draws_is_allowed_to_it_and_nothing_that_is_not_drawn(page: Page) -> None:
    web = SOURCES / "APFormerSlicerLib" / "web"
    sources = "".join(
        path.read_text("utf-8") for path in (*web.glob("section_*.py"), web / "page.py", web / "views.py")
    )
    assert len(page.actions) > 20
    drawn = re.findall(r"trigger\('(\w+)'(?:, \[([^\]]*)\])?\)", sources)
    assert len(drawn) == sources.count("trigger('")
    for action, arguments in drawn:
        assert len(list(filter(None, arguments.split(",")))) <= page.actions[action], action
    assert set(re.findall(r"v_model=\(\"(\w+)\"", sources)) <= set(page.fields)
    assert set(page.open) < set(page.procedures)  # what libraries offer beyond it is refused: see the walk
    assert all(trigger.startswith("trigger__") for trigger in page.triggers)  # an action is asked for by the gate alone
    for own in ("series", "images", "models", "cases", "versions", "job", "estimate", "notices", "image_id", "model"):
        assert own in page.state
        assert own not in page.fields


# -------------------------------------------------------------------- the walk


def test_nothing_that_a_page_sends_ends_its_session_or_reaches_what_is_anothers(
    page: Page,
    server: Served,
    watched: Path,
    tmp_path: Path,
    write_dicom: Callable[..., list[Path]],
    two_labels: tuple[Label, Label],
) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "secret.nii.gz").write_bytes(an_image(tmp_path).read_bytes())

    async def test() -> None:
        async with user_of(server) as a, user_of(server) as b:
            await a.upload(("study.zip", two_series(write_dicom, OF_A)))
            offered = await a.until(lambda state: state["series"])
            assert [row["title"] for row in offered] == [f"{OF_A} 0", f"{OF_A} 1"]
            assert all(set(row) == {"number", "title", "line"} for row in offered)
            await b.upload(an_image(tmp_path))
            await b.until(lambda state: state["images"])
            await b.upload(a_segmentation(tmp_path, two_labels))
            await b.until(lambda state: len(state["segments"]) == 2)
            others = sorted({str(path.parent) for path in server.files()} | {str(path) for path in server.files()})
            values = (
                *(value for value in HOSTILE if value is not DEEP),
                str(canary),
                f"{canary}/secret.nii.gz",
                *others[:8],
                "",  # stays in fields of text
            )
            before = await b.fresh()
            await _walk_state(b, page, values)
            await _walk_actions(b, page, values)
            await _walk_procedures(b, page, values)
            await _walk_frames(b)
            assert b.connected
            await b.trigger("choose_image", before["image_id"])  # each image has its own segmentations
            after = await b.fresh()
            for name in ("images", "segmentations"):  # the demonstration's volume may have come, once, and its result
                assert after[name][:1] == before[name] and len(after[name]) <= 2, name
            for name in ("series", "cases", "versions", "job", "training_job"):
                assert after[name] == before[name], name
            assert [row["reference"] for row in after["models"]] == [row["reference"] for row in before["models"]]
            await _walk_http(b, canary)
            assert (await a.fresh())["series"] == offered
            told = b"".join(b.heard)
            for secret in (OF_A, *folders_of_server(server)):
                place = told.find(secret.encode())
                assert place < 0, told[max(0, place - 300) : place + 100]
            await b.upload(an_image(tmp_path))  # it still works
            await b.until(lambda state: len(state["images"]) == len(after["images"]) + 1)

    run(test())
    said = server.said()
    assert "Traceback" not in said, said[said.index("Traceback") :][:3000]
    _check_files(watched, server, canary)


async def _walk_state(b: Client, page: Page, values: tuple[Any, ...]) -> None:
    for name in (*page.state, *page.actions, "unknown", "trame__scripts", "__class__", "", "a" * 5000):
        await b.set(name, *values)
    for name in values:
        await b.set(name, 1)
    assert "error" in await b.set("step", DEEP)
    for changes in values:
        await b.call("trame.state.update", changes)
        await b.call("trame.state.update", [changes, {"key": changes}, {"value": changes}])
    assert set(await b.fresh()) <= set(page.state) | {"patient", "who"}  # nothing that a page invents is kept
    await b.set("step", "image")


async def _walk_actions(b: Client, page: Page, values: tuple[Any, ...]) -> None:
    for name, count in {**page.actions, **dict.fromkeys((*page.triggers, "unknown", "__init__"), 0)}.items():
        for value in values:
            assert await b.trigger(name, *[value] * max(1, count)) is None
            assert await b.call("trame.trigger", name, value, {}) is None
        assert await b.call("trame.trigger", name, [], {"folder": "/etc", "self": 1}) is None
        assert await b.trigger(name, *values[:3]) is None
    for value in values:
        await b.call("trame.trigger", value, [], {})
    for name in ("segment", "finetune"):
        await b.trigger("cancel", name)
    await b.until(lambda state: state["job"] is None and state["training_job"] is None and not state["loading"])


async def _walk_procedures(b: Client, page: Page, values: tuple[Any, ...]) -> None:
    for name in (*page.procedures, *PROCEDURES):
        for arguments in ([], *([value] for value in values), *(["Red", "x", value] for value in values)):
            answer = await b.call(name, *arguments)
            if name not in page.open:
                assert set(answer) == {"error"}
                assert "trace" not in str(answer["error"])
    event = {"type": "MouseMove", "x": 1, "y": 1, "w": 10, "h": 10}
    for name in (*event, "key", "keyCode", "spinY", "positions", "translation", "factor", "shiftKey"):
        for value in values:
            for kind in ("MouseMove", "KeyDown", "MouseWheel", "Pinch", "Pan"):
                await b.call("trame.rca.event", "Red", "x", {**event, "type": kind, name: value})
    await b.call("trame.rca.size", "Red", "x", {"w": 300, "h": 300, "p": 1})


async def _walk_frames(b: Client) -> None:
    random = np.random.default_rng(0)
    for size in (0, 1, 11, 12, 100, 5000):
        await b.send_bytes(random.bytes(size))
    for total in (2**32 - 1, 2**31, 100_000_000):  # memory that is asked for before anything has come
        await b.send_bytes(os.urandom(4) + struct.pack("<II", 0, total) + b"x")
    for number in range(200):  # messages without an end
        await b.send_bytes(struct.pack("<III", number, 0, 1 << 19) + b"x")
    for message in HOSTILE:
        await b.send(message)
        await b.send({"id": message, "method": message, "args": message})
        await b.send({"id": "rpc:c0:x", "method": "trame.state.get", "args": [message], "kwargs": message})
        await b.send({"id": "system:c0:x", "method": "wslink.hello", "args": [{"secret": message}]})
        await b.send({"id": "system:c0:x", "method": message, "args": []})
    for packed in (b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xc7\x01\x05a", b"\x91" * 50_000, msgpack.packb({1: 2})):
        await b.send_bytes(os.urandom(4) + struct.pack("<II", 0, len(packed)) + packed)


async def _walk_http(b: Client, canary: Path) -> None:
    names = [value for value in HOSTILE if isinstance(value, str) and value and len(value) < 3000]
    for name in (*names, f"{canary}/secret.nii.gz", "..", "liver-ct@bundled/../..", "nifti/../../x"):
        quoted = quote(name, safe="")
        for path in (
            *(f"{folder}{quoted}" for folder in ("download/", "download/model/", "__apformer/", "")),
            f"__apformer/../{quote(name[:200], safe='/.')}",
        ):
            url = URL(f"{b.address}/{path}", encoded=True)
            async with b.http.get(url, allow_redirects=False) as answer:
                text = await answer.read()
                assert answer.status in (302, 400, 403, 404, 409, 426), (path, answer.status)
                assert answer.headers.get("Location", "index.html") in ("index.html", "/")
                b.heard.append(text)
    own = {"Origin": b.address}
    for kind, body in (
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=x", b"no boundary"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\nunfinished"),
        ("multipart/form-data; boundary=" + "x" * 200, b"--x--"),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"X: y\r\n" * 5000 + b"\r\n--x--"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y--\r\n--x--"),
        ("multipart/form-data; boundary=x",
         b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.nii"\r\nContent-Transfer-Encoding: base64'
         b"\r\n\r\n!!!!\r\n--x--\r\n"),
        ("text/plain", b"x"),
        ("", b""),
    ):  # fmt: skip
        async with b.http.post(f"{b.address}/upload", data=body, headers={**own, "Content-Type": kind}) as answer:
            b.heard.append(await answer.read())
            assert answer.status in (200, 400, 415), (kind[:40], body[:40], answer.status)
    for name in ("../../../../tmp/x.nii", f"{canary}/x.nii", "C:\\x.nii", "nul", "a" * 3000, "\u202e.nii", "x.mhd"):
        assert await b.upload((name, b"ElementDataFile = /etc/passwd\n")) == 200
    assert (await b.fresh())["loading"] == ""


def _check_files(watched: Path, server: Served, canary: Path) -> None:
    """Each session opened files below the folder for users' data only in its own, and wrote nowhere else."""
    lines = [line.split("\t") for line in watched.read_text("utf-8", "replace").splitlines()]
    events = [(int(pid), word, str(ast.literal_eval(path))) for pid, word, path in lines if pid.isdigit()]
    assert len(events) > 1000
    owners = {
        pid: str(Path(path).parent)
        for pid, word, path in events
        if word == "write" and re.search(r"/session-[^/]+/\.owner\.json$", path)
    }
    assert len(owners) >= 2
    root = str(server.temporary)
    for pid, word, path in events:
        assert not path.startswith(str(canary)), (word, path)
        folder = owners.get(pid)
        if folder is None:
            continue
        if path.startswith(root):
            assert path.startswith(folder) or path == root or path.endswith("/.owner.json"), (word, path)
        elif word == "write":
            assert path.startswith("/dev/") or "__pycache__" in path, path
        elif word == "run":
            assert path == sys.executable, path
        else:
            assert "passwd" not in Path(path).name or path == "/etc/passwd", path


def test_errors_tell_a_user_of_somebody_elses_server_no_path_of_it(server: Served, tmp_path: Path) -> None:
    """Files that cannot be read, in every format, and steps that cannot be done."""

    async def test() -> None:
        async with user_of(server) as user:
            for suffix in (
                "nii",
                "nii.gz",
                "nrrd",
                "mha",
                "mhd",
                "nhdr",
                "seg.nrrd",
                "dcm",
                "png",
                "jpg",
                "zip",
                "txt",
            ):
                for content in (b"", b"no image", b"\0" * 128 + b"DICMx"):
                    await user.upload((f"damaged.{suffix}", content))
                    user.heard.append(msgpack.packb((await user.fresh())["notices"]))
            for name in ("segment", "create_site", "check_site", "tune", "next_place", "accept", "flag", "roll_back"):
                await user.trigger(name)
            await user.upload(an_image(tmp_path))
            for step in ("segment", "site", "tune"):
                await user.set("step", step)
            await user.fresh()
            told = b"".join(user.heard)
            assert b"damaged." in told
            for folder in folders_of_server(server):
                assert folder.encode() not in told, folder
            assert not re.search(rb"uploads/tmp|/tmp/|/root/|/home/|site-packages", told)

    run(test())

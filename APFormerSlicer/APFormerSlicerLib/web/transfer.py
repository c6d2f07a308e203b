"""Uploads and downloads over HTTP, beside the page's websocket: streamed to disk, within bounds."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from aiohttp import BodyPartReader, web
from apformer.errors import APFormerError, InputError

from .desk import Desk
from .exporting import FORMATS, write_chosen, write_model
from .importing import import_files
from .unpacking import MOST_FILES

_CHUNK = 1 << 18
_LONGEST_NAME = 120


class Transfer:
    """The routes of one session."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._uploads = desk.folder / "uploads"
        self._downloads = desk.folder / "downloads"

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/upload", self._upload)
        app.router.add_get("/download/{kind}", self._download)
        app.router.add_get("/download/model/{reference}", self._download)

    async def _upload(self, request: web.Request) -> web.Response:
        """Files of a form, kept under their own names; then loaded. The answer is empty: the page's state tells."""
        desk = self._desk
        self._uploads.mkdir(exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self._uploads))
        keep = False
        with desk.state:
            desk.notices.clear("error")
            desk.state.loading = "reading the files"
        try:
            files = await self._receive(request, folder)
            with desk.state:
                await import_files(desk, folder, files)
                keep = True  # a DICOM segmentation needs the slices again
        except APFormerError as error:
            with desk.state:
                desk.notices.error(error, hidden=folder)
        except Exception as error:  # noqa: BLE001
            with desk.state:
                desk.notices.fault(error)
        finally:
            if not keep:
                shutil.rmtree(folder, ignore_errors=True)
            with desk.state:
                desk.state.loading = ""
        return web.json_response({})

    async def _receive(self, request: web.Request, folder: Path) -> list[Path]:
        reader = await request.multipart()
        files: list[Path] = []
        room = self._desk.upload_bytes
        async for part in reader:
            if not isinstance(part, BodyPartReader) or not part.filename:
                continue
            path = folder.joinpath(*_safe_parts(part.filename))
            path.parent.mkdir(parents=True, exist_ok=True)
            if len(files) >= MOST_FILES or path.exists():
                raise InputError(
                    f"{part.filename[:80]} was sent twice, or there are more than {MOST_FILES} files.",
                    "The upload was not loaded.",
                    "Choose one folder with one study.",
                )
            with path.open("xb") as stream:
                while chunk := await part.read_chunk(_CHUNK):
                    room -= len(chunk)
                    if room < 0:
                        raise InputError(
                            f"The upload is larger than {self._desk.upload_bytes / 1e6:.0f} MB.",
                            "It was stopped, and nothing of it was kept.",
                            "Upload one series at a time, or ask for a larger --upload-mb.",
                        )
                    stream.write(chunk)
            files.append(path)
        return files

    async def _download(self, request: web.Request) -> web.Response:
        desk, model = self._desk, request.match_info.get("reference")
        kind = request.match_info.get("kind")
        self._downloads.mkdir(exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self._downloads))
        try:
            if model is not None:
                path = await write_model(desk, model, folder)
            elif kind in FORMATS:
                path = write_chosen(desk, kind, folder)
            else:
                return web.Response(status=404)
            return web.Response(
                body=path.read_bytes(),
                content_type="application/octet-stream",
                headers={"Content-Disposition": f"attachment; filename*=UTF-8''{quote(path.name)}"},
            )
        except APFormerError as error:
            with desk.state:
                desk.notices.error(error)
            return web.Response(status=409, text=error.what)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _safe_parts(name: str) -> list[str]:
    """A file's path below the chosen folder, without what leads elsewhere and what file systems refuse."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..", ".")]
    cleaned = [re.sub(r'[<>:"|?*\x00-\x1f]', "_", part)[-_LONGEST_NAME:] for part in parts[-4:]]
    return [part for part in cleaned if part.strip(". ")] or ["file"]


def only_with(secret: str, header: str) -> Any:
    """Middleware that refuses who does not know the secret: other users of this computer can reach the port too."""
    import hmac

    @web.middleware
    async def check(request: web.Request, handler: Any) -> web.StreamResponse:
        if not hmac.compare_digest(request.headers.get(header, ""), secret):
            return web.Response(status=403, text="This address is not for browsers.")
        return await handler(request)

    return check

"""Uploads and downloads over HTTP, beside the page's websocket: streamed to disk, within bounds."""

from __future__ import annotations

import hmac
import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from apformer.errors import APFormerError

from .desk import Desk
from .exporting import FORMATS, write_chosen, write_model
from .importing import import_files
from .inbox import Inbox

_CHUNK = 1 << 18
_DISTURBED = (ConnectionError, aiohttp.ClientPayloadError, web.RequestPayloadError)  # the browser went away


class Transfer:
    """The routes of one session."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._downloads = desk.folder / "downloads"

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/upload", self._upload)
        app.router.add_get("/download/{kind}", self._download)
        app.router.add_get("/download/model/{reference}", self._download)

    async def _upload(self, request: web.Request) -> web.Response:
        """Files of a form, kept under safe names; then loaded. The answer is empty: the page's state tells."""
        if request.content_type != "multipart/form-data":
            return web.Response(status=415, text="Files are sent as a form (multipart/form-data).")
        desk, upload = self._desk, self._desk.uploads.begin()
        with desk.state:
            desk.notices.clear("error")
            desk.state.loading = "reading the files"
        try:
            inbox = await self._receive(request, Inbox(upload))
            with desk.state:
                await import_files(desk, inbox)
        except APFormerError as error:
            with desk.state:
                desk.notices.error(error)
        except (ValueError, HttpProcessingError) as error:  # aiohttp's, of a form that is none
            return web.Response(status=400, text=f"The form could not be read ({str(error)[:80]}).")
        except _DISTURBED:
            return web.Response(status=400, text="The upload was broken off.")
        except Exception as error:  # noqa: BLE001
            with desk.state:
                desk.notices.fault(error)
        finally:
            if not upload.in_use:  # slices stay while their image is open: a DICOM segmentation needs them again
                upload.remove()
            with desk.state:
                desk.state.loading = ""
        return web.json_response({})

    async def _receive(self, request: web.Request, inbox: Inbox) -> Inbox:
        """Raises InputError: more than is left of the quota. ValueError, HttpProcessingError: no form."""
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                raise ValueError("forms within forms are not read")
            if not part.filename:
                await self._skip(part, inbox)
                continue
            with inbox.open(part.filename) as file:
                while chunk := await part.read_chunk(_CHUNK):
                    file.write(chunk)
        return inbox

    @staticmethod
    async def _skip(part: BodyPartReader, inbox: Inbox) -> None:
        """Read a field that is no file: it counts like one, so that it has an end."""
        while chunk := await part.read_chunk(_CHUNK):
            inbox.upload.count(len(chunk))

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
                headers={"Content-Disposition": f"attachment; filename*=UTF-8''{quote(path.name, safe='')}"},
            )
        except APFormerError as error:
            with desk.state:
                desk.notices.error(error)
            return web.Response(status=409, text=desk.hiding.of_text(error.what))
        except Exception as error:  # noqa: BLE001  the answer would be a page of aiohttp's
            with desk.state:
                desk.notices.fault(error)
            return web.Response(status=500, text="Something unexpected happened.")
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def only_with(secret: str, header: str) -> Any:
    """Middleware that refuses who does not know the secret: other users of this computer can reach the port too."""

    @web.middleware
    async def check(request: web.Request, handler: Any) -> web.StreamResponse:
        said = request.headers.get(header, "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(said, secret.encode()):
            return web.Response(status=403, text="This address is not for browsers.")
        return await handler(request)

    return check

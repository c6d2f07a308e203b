"""The gate between a page's websocket and its session: what may be called, how large a message may be, what is told.

wslink calls every procedure that any library registers, with whatever arguments a page sends, and sends the page the
traceback of what fails. Here, only what the page's own script needs is called, with values that were read first
(`allowed`, `pointer`); the rest is answered with "refused", and the session goes on.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
from apformer.errors import APFormerError, InputError
from wslink.chunking import HEADER_LENGTH, UnChunker

from .allowed import Allowed
from .hiding import Hiding
from .notices import Notices
from .pointer import read_event, read_size
from .values import UnreadableError

_HELLO = "wslink.hello"
_STATE_TOPIC = "trame.state.topic"
_LARGEST_MESSAGE = 1 << 20  # bytes; a page sends mouse events, choices and short texts
_MOST_PENDING = 8  # messages of one page that have begun and not ended
_MOST_CHANGES = 200  # in one message: more values than the page has
_DEEPEST = 12  # lists within lists; a pointer event has six. Python's copy of a deep one ends in a RecursionError
_LIFE = ("client_connected", "client_mounted", "client_unmounted", "client_exited")
_OF_WIDGETS = "trigger__"  # trame's names for calls that widgets make: when a pointer enters a view, and leaves it
_REFUSED = -32600  # JSON-RPC's "invalid request"
_LONGEST_ID = 100

_log = logging.getLogger(__name__)


class Gate:
    """Stands before one session's websocket.

    Args:
        server: trame's.
        areas: the names of views that are streamed, which pointer events name.
        hiding: takes the server's paths out of what the page is told.
    """

    def __init__(
        self, server: Any, allowed: Allowed, notices: Notices, areas: Callable[[], set[str]], hiding: Hiding
    ) -> None:
        self._server, self._allowed, self._notices = server, allowed, notices
        self._areas, self._hiding = areas, hiding
        self._calls: dict[str, Callable[..., Any]] = {
            "trame.state.get": self._get,
            "trame.state.update": self._update,
            "trame.trigger": self._trigger,
            "trame.lifecycle.update": self._live,
            "trame.error.client": lambda *_: None,  # would print what a page says
            "trame.rca.size": self._resize,
            "trame.rca.event": self._point,
        }
        self._procedures: dict[str, Callable[..., Any]] = {}

    @property
    def open(self) -> tuple[str, ...]:
        """The procedures that a page can call."""
        return tuple(self._calls)

    def close_over(self, handler: Any) -> None:
        """Take the place of what wslink's `handler` does with a page's messages."""
        self._procedures = {
            name: getattr(owner, function.__name__) for name, (owner, function) in handler.functionMap.items()
        }
        owner = handler.serverProtocol
        handler.functionMap = {name: (owner, self._guarded(call)) for name, call in self._calls.items()}
        hear, connect, publish = handler.onCompleteMessage, handler.onConnect, owner.publish

        def publish_hidden(topic: str, data: Any, **settings: Any) -> None:
            publish(topic, self._hiding.of_state(data) if topic == _STATE_TOPIC else data, **settings)

        async def on_connect(request: Any, client_id: str) -> None:
            await connect(request, client_id)
            handler.unchunkers[client_id] = _Bounded()

        async def on_message(is_binary: bool, message: Any, client_id: str) -> None:
            content = handler.unchunkers[client_id].take(message.data) if is_binary else None
            with handler.network_monitor, contextlib.suppress(ConnectionError):
                if _is_call(content):
                    await hear(content, client_id)
                elif isinstance(content, dict) and isinstance(content.get("id"), str):
                    await handler.sendWrappedError(
                        content["id"][:_LONGEST_ID], _REFUSED, "refused", client_id=client_id
                    )

        handler.onConnect, handler.onMessage, owner.publish = on_connect, on_message, publish_hidden

    def _guarded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call` as wslink calls it; a page is never told more of an error than the notices say."""

        async def answer(_owner: object, *arguments: Any, **_named: object) -> Any:
            try:
                with self._server.state:
                    return call(*arguments)
            except APFormerError as error:
                with self._server.state:
                    self._notices.error(error)
            except (TypeError, UnreadableError) as error:  # too many or too few arguments; nonsense
                _log.debug("refused: %s", error)
            except Exception as error:  # noqa: BLE001  a page gets no traceback
                with self._server.state:
                    self._notices.fault(error)
            return None

        return answer

    # ---------------------------------------------------------------- what a page may call

    def _get(self) -> Any:
        told = self._procedures["trame.state.get"]()
        return {**told, "state": self._hiding.of_state(told["state"])}

    def _update(self, changes: object) -> None:
        """Set the values that a page may set. One that is refused is sent back as it is."""
        if not isinstance(changes, list) or len(changes) > _MOST_CHANGES:
            raise UnreadableError("no list of changes")
        taken: list[dict[str, Any]] = []
        refused: list[str] = []
        errors: list[InputError] = []
        for change in changes:
            name = change.get("key") if isinstance(change, Mapping) else None
            if not isinstance(name, str) or name not in self._allowed.fields:
                if isinstance(name, str) and name in self._server.state:
                    refused.append(name)
                continue
            try:
                taken.append({"key": name, "value": self._allowed.read_field(name, change.get("value"))})
            except InputError as error:
                refused.append(name)
                errors.append(error)
        if taken:
            self._procedures["trame.state.update"](taken)
        if refused:
            self._procedures["trame.force.push"](*dict.fromkeys(refused))
        for told in errors:
            self._notices.error(told)

    def _trigger(self, name: object, arguments: object = (), _named: object = None) -> None:
        if isinstance(name, str) and name.startswith(_OF_WIDGETS):
            call = self._server.controller.trigger_fn(name)
            if call is not None:
                call()
            return
        self._allowed.act(name, arguments)

    def _live(self, name: object) -> None:
        if name in _LIFE:
            self._procedures["trame.lifecycle.update"](name)

    def _resize(self, area: object, origin: object, size: object) -> None:
        self._procedures["trame.rca.size"](self._area(area), str(origin)[:20], read_size(size))

    def _point(self, area: object, origin: object, event: object) -> None:
        self._procedures["trame.rca.event"](self._area(area), str(origin)[:20], read_event(event))

    def _area(self, name: object) -> str:
        if not isinstance(name, str) or name not in self._areas():
            raise UnreadableError("no view of this page")
        return name


class _Bounded(UnChunker):
    """Puts messages together that come in pieces; wslink's own takes 4 GB before the first byte has come."""

    def take(self, piece: object) -> object:
        """The message that this piece completes; None while there is none, and for what cannot be read."""
        if not isinstance(piece, bytes) or len(piece) < HEADER_LENGTH:
            return None
        self.max_message_size = _LARGEST_MESSAGE
        if len(self.pending_messages) >= _MOST_PENDING:
            self.release_pending_messages()
        try:
            return self.process_chunk(piece)
        except (ValueError, RecursionError, msgpack.UnpackException) as error:
            _log.debug("refused a message: %s", error)
            return None

    def set_max_message_size(self, _size: int) -> None:
        """Who is known may not send more than others."""


def _is_call(message: object) -> bool:
    """Whether it has the form that wslink expects of everything it is sent."""
    return (
        isinstance(message, dict)
        and all(isinstance(message.get(name), str) for name in ("id", "method"))
        and isinstance(message.get("args", []), list)
        and (message["method"] == _HELLO) == message["id"].startswith("system:")
        and _is_shallow(message)
    )


def _is_shallow(message: object) -> bool:
    level = [message]
    for _ in range(_DEEPEST):
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [one for values in inner for one in values]
        if not level:
            return True
    return False

"""Connections whose requests do not begin, or whose heads do not end: closed.

So idle callers hold no connection, and nobody fills the memory with header lines. Nor does anybody
open connections without number: beyond the limit the one that has been silent for longest goes, and
where all of them have asked something the new one gets a 503.

New processes are handed what is made here, and import this module before they answer uvicorn that
they live: it imports nothing that takes long, and nor does `tls`.
"""

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from ml_platform.serving.metrics import Metrics

SPARE = 32
"""Connections beyond the limit that get a 503; further ones are only closed."""
RETRY_SECONDS = 1
NEW_SECONDS = 1.0
MOST_LINES_BYTES = 65_536
"""That may come without a head's end or a body's part among them: of a head, of what may follow a
body. Nobody else bounds what is kept of them."""


class LimitedConnection(HttpToolsProtocol):
    """uvicorn's protocol, which alone would wait for the head of a request for ever.

    health_paths: what is answered on the spare connections too. It counts its connections in the
    `metrics` of the application's state.

    The time runs from when a connection is made, or the first byte after an answer has come, and
    ends with the empty line after the head.
    """

    def __init__(
        self,
        *,
        head_seconds: float,
        most_connections: int,
        health_paths: frozenset[str] = frozenset(),
        **given: Any,
    ) -> None:
        super().__init__(**given)
        self._health_paths = health_paths
        self._head_seconds = head_seconds
        self._most_connections = most_connections
        self._made_at = self.loop.time()
        self._has_asked = False
        self._head_due: asyncio.TimerHandle | None = None
        self._lines_bytes = 0
        self._got_on = False
        self._metrics: Metrics = self.app_state["metrics"]

    @property
    def is_new(self) -> bool:
        """Whether it was made within the last second, and no request has come on it."""
        return not self._has_asked and self.loop.time() - self._made_at < NEW_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)
        self._metrics.connected(len(self.connections))

    def data_received(self, data: bytes) -> None:
        self._got_on = False
        super().data_received(data)
        self._lines_bytes = 0 if self._got_on else self._lines_bytes + len(data)
        if self._lines_bytes > MOST_LINES_BYTES and not self.transport.is_closing():
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self._end_with(status, f"header lines of more than {MOST_LINES_BYTES} bytes")
        # Also what continues to trickle in after its answer: empty lines, the rest of a body.
        if self._head_due is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()

    def send_400_response(self, msg: str) -> None:
        self._end_with(HTTPStatus.BAD_REQUEST, "this is no HTTP request")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head_due is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._got_on = self._has_asked = True
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._got_on = True
        super().on_body(body)

    def _begin(self) -> None:
        if len(self.connections) > self._most_connections:
            self._metrics.refused_connection()
            self._make_room()
        self._metrics.connected(len(self.connections))
        self._expect_head()

    def _make_room(self) -> None:
        # What uvicorn knows of the process's connections are all of this class.
        connections = cast("set[LimitedConnection]", self.connections)
        silent = [each for each in connections if not each._has_asked and each is not self]
        if silent:
            min(silent, key=lambda each: each._made_at)._drop()
        elif len(self.connections) > self._most_connections + SPARE:
            self._drop()
        else:
            self.app = _Spare(self.app, self._health_paths)

    def _drop(self) -> None:
        # It counts no more from now on, and not only once the loop comes to it.
        self.connections.discard(self)
        self.transport.abort()

    def _expect_head(self) -> None:
        if not self.transport.is_closing():
            self._head_due = self.loop.call_later(self._head_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None

    def _end_with(self, status: HTTPStatus, detail: str) -> None:
        body = _problem(status, detail)
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/problem+json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _give_up(self) -> None:
        self._head_due = None
        self.transport.close()


class _Spare:
    """What answers on a connection beyond the limit, once: health, or when to come again."""

    def __init__(self, app: ASGIApp, health_paths: frozenset[str]) -> None:
        self._app, self._health_paths = app, health_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def close(message: Message) -> None:
            if message["type"] == "http.response.start":
                closing = (b"connection", b"close")
                message = {**message, "headers": [*message["headers"], closing]}
            await send(message)

        if scope["type"] == "http" and scope["path"] in self._health_paths:
            await self._app(scope, receive, close)
            return
        status = HTTPStatus.SERVICE_UNAVAILABLE
        body = _problem(status, "there are more connections than are taken; ask again later")
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"retry-after", str(RETRY_SECONDS).encode()),
        ]
        await close(
            {
                "type": "http.response.start",
                "status": status.value,
                "headers": headers,
            }
        )
        await send({"type": "http.response.body", "body": body})


def _problem(status: HTTPStatus, detail: str) -> bytes:
    problem = {"type": "about:blank", "title": status.phrase, "status": status, "detail": detail}
    return json.dumps(problem).encode()

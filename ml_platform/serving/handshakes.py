"""Connections that have not finished their TLS handshake: they count, and their time is short.

Of those uvicorn learns nothing, and they may last for a minute: whoever opens connections and says
nothing on them would use up the file descriptors of a process, whatever its limit of connections.
New processes import this module as they do `connection_limits`.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any, cast

import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ml_platform.serving.connection_limits import LimitedConnection


class SafeHeads(LimitedConnection):
    """The same behind TLS: handshake and head have the time of a head, from the connection on."""

    _is_safe = False

    def begin(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        """Take a connection that somebody has opened, with the handshake still to come."""
        handshake = self.loop.create_task(
            self.loop.connect_accepted_socket(
                lambda: self, connection, ssl=context, ssl_handshake_timeout=self._head_seconds
            )
        )
        self.transport = cast(asyncio.Transport, _Unfinished(handshake))
        self.connections.add(self)
        handshake.add_done_callback(lambda done: self._shook_hands(done, connection))
        self._begin()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._is_safe = True
        HttpToolsProtocol.connection_made(self, transport)

    def _shook_hands(self, handshake: "asyncio.Task[Any]", connection: socket.socket) -> None:
        if self._is_safe:
            return
        # Of a connection that was never made the loop reports nowhere that it is lost.
        connection.close()
        self.connection_lost(ConnectionAbortedError())
        error = None if handshake.cancelled() else handshake.exception()
        if error is not None and not isinstance(error, OSError):
            raise error


class _Unfinished:
    """What a connection has for a transport before its handshake is over."""

    def __init__(self, handshake: "asyncio.Task[Any]") -> None:
        self._handshake = handshake

    def is_closing(self) -> bool:
        return self._handshake.done() or self._handshake.cancelling() > 0

    def close(self) -> None:
        self._handshake.cancel()

    abort = close


class _Accepted(asyncio.Protocol):
    """Hands a connection over before a byte is read, on a descriptor of its own."""

    def __init__(self, protocol: SafeHeads, context: ssl.SSLContext) -> None:
        self._protocol, self._context = protocol, context

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        plain = cast(asyncio.Transport, transport)
        try:
            connection = socket.socket(fileno=os.dup(plain.get_extra_info("socket").fileno()))
        finally:
            plain.abort()
        self._protocol.begin(connection, self._context)


class HandshakesLoop(uvloop.Loop):
    """An event loop whose servers leave handshakes to their protocols, which are `SafeHeads`."""

    async def create_server(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], Any],
        *args: Any,
        ssl: ssl.SSLContext | None = None,
        **given: Any,
    ) -> asyncio.AbstractServer:
        """As of any loop."""
        if ssl is None:
            return await super().create_server(protocol_factory, *args, **given)
        return await super().create_server(
            lambda: _Accepted(protocol_factory(), ssl), *args, **given
        )

"""How a process stops without resetting a connection.

It says that it is not ready and serves on for a while, in which whoever sends requests sees that.
Then no new connection is made, those that wait in the socket's queue are taken, and what has come
on any of them is answered before the socket is closed.
"""

import asyncio
import ctypes
import functools
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn

from ml_platform.errors import TryLater
from ml_platform.serving.connection_limits import LimitedConnection

DRAINING = threading.Event()
"""Set once this process has been asked to stop."""
QUEUE_SECONDS = 2.0
"""How long it is waited at most for connections in the queue, and for their first request."""
LOOK_SECONDS = 0.02
TAKEN_TOGETHER = 16
"""Connections of a listening socket that are taken in one round of the loop while others wait."""
SO_ATTACH_FILTER = 26
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)
"""One instruction of the classic packet filter: take no byte of any packet."""


def require_not_draining() -> None:
    """Raise TryLater where this process stops soon."""
    if DRAINING.is_set():
        raise TryLater("this process is about to stop; ask another one", 1)


def refuse_connections(listening: socket.socket) -> None:
    """Let no further connection be made to a socket, whoever shares it.

    Those in its queue stay. Whoever connects now tries again after a second by himself, and is
    refused once the socket is closed. Elsewhere than on Linux nothing is done.
    """
    if sys.platform != "linux":
        return
    instruction = ctypes.create_string_buffer(DROP_ALL, len(DROP_ALL))
    program = struct.pack("HL", 1, ctypes.addressof(instruction))
    with suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def has_waiting(listening: socket.socket) -> bool:
    """Whether connections wait in the queue of a socket."""
    poll = select.poll()
    poll.register(listening.fileno(), select.POLLIN)
    return bool(poll.poll(0))


class DrainingServer(uvicorn.Server):
    """Stops a while after SIGTERM; at once after SIGINT, or a second SIGTERM."""

    def __init__(self, config: uvicorn.Config, drain_seconds: float) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._ends_at: float | None = None
        self._have_waited = False
        self._helping: list[asyncio.Server] = []
        """What listens by copies of the sockets."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        is_first = not DRAINING.is_set()
        DRAINING.set()
        # Who has not started yet answers nobody.
        if sig == signal.SIGTERM and is_first and self.started and self._drain_seconds:
            self._ends_at = time.monotonic() + self._drain_seconds
            self._captured_signals.append(sig)
            return
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        if self._ends_at is not None and time.monotonic() >= self._ends_at:
            self.should_exit = True
        await self._keep_up()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if sockets is None:
            # Nobody shares them; otherwise it is the parent who refuses connections.
            listening = [each for server in self.servers for each in server.sockets]
            for each in listening:
                refuse_connections(each)
            await self._take_waiting(listening)
        else:
            await self._take_waiting(sockets)
        self._stop_helping()
        await super().shutdown(sockets)

    async def _take_waiting(self, listening: Iterable[socket.socket]) -> None:
        """Wait until the queue is empty, and each connection from it has had its request."""
        until = time.monotonic() + QUEUE_SECONDS
        while not self.force_exit and time.monotonic() < until:
            if not any(has_waiting(each) for each in listening) and not any(
                isinstance(each, LimitedConnection) and each.is_new
                for each in self.server_state.connections
            ):
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _keep_up(self) -> None:
        """Take more connections at once while some wait all the time.

        libuv takes one of a listening socket in each round of the loop: hundreds that came together
        would wait for as many rounds, which are long by then. To take many always would be wrong
        too, as whichever worker is first had all of them.
        """
        listening = [each for server in self.servers for each in server.sockets]
        waits = any(map(has_waiting, listening))
        if waits and self._have_waited and not self._helping:
            for each in listening * (TAKEN_TOGETHER - 1):
                await self._listen(socket.socket(fileno=os.dup(each.fileno())))
        elif not waits:
            self._stop_helping()
        self._have_waited = waits

    def _stop_helping(self) -> None:
        for each in self._helping:
            each.close()
        self._helping.clear()

    async def _listen(self, listening: socket.socket) -> None:
        config = self.config
        made: Any = config.http_protocol_class
        protocol = functools.partial(
            made, config=config, server_state=self.server_state, app_state=self.lifespan.state
        )
        server = await asyncio.get_running_loop().create_server(
            protocol, sock=listening, ssl=config.ssl, backlog=config.backlog
        )
        self._helping.append(server)

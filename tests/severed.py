"""A proxy before a server: closing it breaks connections as a server does that stops."""

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from ml_platform.serving.draining import refuse_connections

Address = str | tuple[str, int]
"""A path of a socket, or host and port."""


class Proxy:
    """Hands connections on to a server, while it is open."""

    def __init__(self, listen: Address, server: Address) -> None:
        self.listen, self.server = listen, server
        self._lock = threading.Lock()
        self._live: list[socket.socket] = []
        self._listening: socket.socket | None = None
        self._left: int | None = None
        self._closing = threading.Event()
        self.open()

    def close_after(self, messages: int) -> threading.Event:
        """Close once so many more messages went to the server; the event says that it did."""
        with self._lock:
            self._closing.clear()
            self._left = messages
        return self._closing

    def _passed(self) -> None:
        with self._lock:
            if self._left is None:
                return
            self._left -= 1
            if self._left > 0:
                return
            self._left = None
        self.close()
        self._closing.set()

    def open(self) -> None:
        """Take connections, again."""
        if isinstance(self.listen, str):
            Path(self.listen).unlink(missing_ok=True)
            listening = socket.socket(socket.AF_UNIX)
        else:
            listening = socket.socket(socket.AF_INET)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(self.listen)
        listening.listen(64)
        if not isinstance(self.listen, str):
            self.listen = listening.getsockname()[:2]
        self._listening = listening
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def sever(self) -> None:
        """Break the connections that there are; new ones are taken."""
        with self._lock:
            live, self._live = self._live, []
        for each in live:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def fall_silent(self) -> None:
        """Answer no packet any more, as a network that is cut; only for a listener of TCP."""
        assert self._listening is not None
        with self._lock:
            # In pairs: of the client, of the server.
            for each in (self._listening, *self._live[::2]):
                refuse_connections(each)

    def close(self) -> None:
        """Break the connections that there are, and take no new ones."""
        if self._listening is not None:
            with contextlib.suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            self._listening = None
            if isinstance(self.listen, str):
                Path(self.listen).unlink(missing_ok=True)
        self.sever()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            upstream = socket.socket(
                socket.AF_UNIX if isinstance(self.server, str) else socket.AF_INET
            )
            try:
                upstream.connect(self.server)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._live += [client, upstream]
            for pair in ((client, upstream, self._passed), (upstream, client, _nothing)):
                threading.Thread(target=_pump, args=pair, daemon=True).start()


def _nothing() -> None:
    pass


def _pump(source: socket.socket, target: socket.socket, passed: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):
        while content := source.recv(1 << 16):
            target.sendall(content)
            passed()
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)

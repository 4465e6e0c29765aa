"""Connections whose requests do not begin: closed, so that idle callers hold none of them.

New processes are handed what is made here, and import this module before they answer uvicorn that
they live: it imports nothing that takes long, and nor does `tls`.
"""

import asyncio
import functools
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class TimedHeads(HttpToolsProtocol):
    """uvicorn's protocol, which alone would wait for the head of a request for ever.

    The time runs from when a connection is made, or the first byte after an answer has come, and
    ends with the empty line after the head.
    """

    def __init__(self, *, head_seconds: float, **given: Any) -> None:
        super().__init__(**given)
        self._head_seconds = head_seconds
        self._head_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Also what goes on to trickle in after its answer: empty lines, the rest of a body.
        if self._head_due is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head_due is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def _expect_head(self) -> None:
        if not self.transport.is_closing():
            self._head_due = self.loop.call_later(self._head_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None

    def _give_up(self) -> None:
        self._head_due = None
        self.transport.close()


def timed_heads(head_seconds: float) -> functools.partial[TimedHeads]:
    """What uvicorn makes a connection's protocol with; can be handed to other processes."""
    return functools.partial(TimedHeads, head_seconds=head_seconds)

"""Large bodies are parsed one after the other, and not at all where they would wait too long.

Bodies are parsed in the event loop, which also answers. Were all that have arrived parsed at once,
what is predicted already would wait for them to be answered, and under overload the loop would do
nothing but parse what is rejected a moment later.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ml_platform.errors import Overloaded
from ml_platform.serving.latency_estimate import LatencyEstimate

SMALL_BYTES = 16_384
"""Bodies up to this size are parsed as they come: to reject one takes as long."""


@dataclass(frozen=True)
class _WaitingBody:
    size: int
    since: float
    turn: "asyncio.Future[None]"


class ParseQueue:
    """The order in which large bodies are parsed: one in each round of the event loop.

    prediction_seconds: how long rows that are parsed now would wait for their prediction; 0 where
    no others wait. longest_wait_seconds: requests that would wait longer in all are rejected.
    """

    def __init__(
        self,
        prediction_seconds: Callable[[], float],
        *,
        longest_wait_seconds: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._prediction_seconds, self._longest_wait = prediction_seconds, longest_wait_seconds
        self._clock = clock
        self._waiting: deque[_WaitingBody] = deque()
        self._bytes_waiting = 0
        # By when they began to arrive.
        self._arriving: dict[object, tuple[float, int]] = {}
        self._parsing: tuple[int, float] | None = None
        self._estimate = LatencyEstimate()

    def require_room(self, size: int) -> None:
        """Raise Overloaded where a body of so many bytes would wait too long.

        To be asked before it is read, as most of what a rejected request costs is to read it.
        """
        if size > SMALL_BYTES:
            self._require(self._parsing_seconds(self._clock()) + self._prediction_seconds())

    @contextmanager
    def arriving(self, size: int) -> Iterator[None]:
        """What is done while a body of so many bytes is read, for which others will have to wait.

        What arrives for so long that it would be rejected by now is not waited for: whoever sends
        nothing should not keep others from being answered.
        """
        key = object()
        if size > SMALL_BYTES:
            self._arriving[key] = self._clock(), size
        try:
            yield
        finally:
            self._arriving.pop(key, None)

    async def turn(self, size: int) -> None:
        """Return when a body of so many bytes may be parsed, which is to be done at once.

        Raises Overloaded where it would wait too long, or has when it is its turn.
        """
        if size <= SMALL_BYTES:
            return
        self.require_room(size)
        loop = asyncio.get_running_loop()
        if self._parsing is None:
            self._begin(loop, size)
            return
        waiting = _WaitingBody(size, self._clock(), loop.create_future())
        self._waiting.append(waiting)
        self._bytes_waiting += size
        await waiting.turn

    def _parsing_seconds(self, now: float) -> float:
        """How long it will take to parse what waits, and what arrives."""
        late = now - self._longest_wait
        soon = [size for since, size in self._arriving.values() if since >= late]
        return self._estimate.seconds(
            len(self._waiting) + len(soon), self._bytes_waiting + sum(soon)
        )

    def _begin(self, loop: asyncio.AbstractEventLoop, size: int) -> None:
        self._parsing = (size, self._clock())
        # Behind whoever is woken up now, in the same round of the loop.
        loop.call_soon(self._next, loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        now = self._clock()
        if self._parsing is not None:
            size, since = self._parsing
            self._estimate.learn(size, now - since)
        self._parsing = None
        while self._waiting and self._parsing is None:
            each = self._waiting.popleft()
            self._bytes_waiting -= each.size
            # Clients that have disconnected in the meantime need no answer.
            if each.turn.done():
                continue
            try:
                self._require(now - each.since + self._prediction_seconds())
            except Overloaded as error:
                each.turn.set_exception(error)
                continue
            each.turn.set_result(None)
            self._begin(loop, each.size)

    def _require(self, wait: float) -> None:
        if wait > self._longest_wait:
            raise Overloaded(
                f"what waits to be predicted will take {wait:.1f} seconds; try again then",
                math.ceil(wait),
            )

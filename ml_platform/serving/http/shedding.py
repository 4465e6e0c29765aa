"""Requests for predictions that would wait too long: rejected before anything else is done.

Under overload most of what comes is rejected, and whoever ignores `Retry-After` comes again at
once. So it is not looked at who asks, or read what for; metrics count these requests, and no log
has them. And of more than a few each waits for its rejection: clients that ask all the time would
otherwise take the time of those that are answered.
"""

import asyncio
import re
import time
from collections.abc import Callable, Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from ml_platform.errors import Overloaded
from ml_platform.serving.http.bodies import read_length
from ml_platform.serving.http.declared import ENDPOINTS
from ml_platform.serving.http.observed import protocol_of
from ml_platform.serving.http.problems import answer_error
from ml_platform.serving.metrics import Metrics
from ml_platform.serving.parse_queue import ParseQueue

PREDICTION = re.compile(
    "|".join(
        re.sub(r"\\{\w+\\}", "([^/]+)", re.escape(each.path))
        for each in ENDPOINTS
        if each.needs is not None and each.needs.permission == "predict" and each.method == "POST"
    )
)
"""Paths that rows are predicted at, with the use case where they name one."""
A_SECOND = 50
"""Rejections of a worker that nobody waits for."""
LONGEST_DELAY_SECONDS = 2.0


class RejectionPace:
    """How long each rejection is held back, so that there are not many more than `A_SECOND`."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._free_at = 0.0

    def delay_seconds(self) -> float:
        """Of a rejection that is due now."""
        now = self._clock()
        delay = min(max(self._free_at - now, 0.0), LONGEST_DELAY_SECONDS)
        self._free_at = now + delay + 1 / A_SECOND
        return delay


class LoadShedding:
    """Middleware around everything else."""

    def __init__(
        self,
        app: ASGIApp,
        queue: ParseQueue,
        metrics: Metrics,
        use_cases: Collection[str],
        most_bytes: int,
    ) -> None:
        self._app, self._queue, self._metrics = app, queue, metrics
        self._use_cases, self._most_bytes = use_cases, most_bytes
        self._pace = RejectionPace()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            size = _length(scope)
            try:
                # What is never taken is not to be sent again.
                self._queue.require_room(size if size <= self._most_bytes else 0)
            except Overloaded as error:
                if path := PREDICTION.fullmatch(scope["path"]):
                    await self._reject(error, path, scope, receive, send)
                    return
        await self._app(scope, receive, send)

    async def _reject(
        self,
        error: Overloaded,
        path: re.Match[str],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        started = time.perf_counter()
        # The body is not read meanwhile: what the client has not sent yet stays with it.
        await asyncio.sleep(self._pace.delay_seconds())
        await answer_error(error, scope)(scope, receive, send)
        given = next((name for name in path.groups() if name in self._use_cases), "")
        seconds = time.perf_counter() - started
        kind = type(error).__name__
        self._metrics.answered(given, protocol_of(scope["path"]), "503", seconds, kind)


def _length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return read_length(value.decode("latin-1")) or 0
    return 0

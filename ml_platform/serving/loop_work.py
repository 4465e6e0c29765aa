"""How much work the event loop has at once, before a request's rows are in any queue."""

import asyncio
import time
from collections.abc import Callable

EVERY_SECONDS = 0.05
TURNS = 4
"""Times that a request waits for its turn in the loop: it is read, parsed, predicted, answered."""


class LoopWork:
    """Estimates what a request waits for beside the queue of rows, in one event loop.

    Bodies that have come are parsed one after the other, each in the loop; whoever is last waits
    for all of them. It is measured by the CPU time of the loop's thread since a task that runs
    every 50 ms last had its turn: a machine that is busy with something else is no work of ours.
    """

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._since: float | None = None

    async def follow(self) -> None:
        """Take turns with the requests, until cancelled; in the loop that is watched."""
        while True:
            self._since = self._clock()
            await asyncio.sleep(EVERY_SECONDS)

    @property
    def wait_seconds(self) -> float:
        """How long a request that is about to be parsed would wait for its turns."""
        if self._since is None:
            return 0.0
        return TURNS * max(0.0, self._clock() - self._since - EVERY_SECONDS)

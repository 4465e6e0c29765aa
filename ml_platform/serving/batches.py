"""Requests that arrive together are predicted together.

A model takes nearly as long for one row as for a hundred. While one batch is predicted the next
one gathers, so nobody waits on purpose, and under load a batch holds whoever came meanwhile.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

from ml_platform.errors import Overloaded
from ml_platform.serving.latency_estimate import LatencyEstimate

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    rows: int
    answer: "asyncio.Future[Result]"


class Batches(Generic[Item, Result]):
    """One queue in front of one function that works on many items at once.

    work: called in the executor with at least one item; yields a result or an error for each.
    most_rows: rows of a batch, single items aside. most_waiting: rows that may wait; beyond them
    a request is refused at once, which is better for everyone than to be answered too late.
    longest_wait_seconds: the same for a request that would wait longer than this, to judge by the
    latest batches; whoever finds nobody waiting is never refused.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        executor: Executor,
        *,
        most_rows: int,
        most_waiting: int,
        longest_wait_seconds: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._work, self._executor = work, executor
        self._most_rows, self._most_waiting = most_rows, most_waiting
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._longest_wait, self._clock = longest_wait_seconds, clock
        self._estimate = LatencyEstimate()
        self._under_way: tuple[int, float] | None = None
        self._rows_waiting = 0
        self._running: asyncio.Task[None] | None = None

    @property
    def rows_waiting(self) -> int:
        return self._rows_waiting

    @property
    def wait_seconds(self) -> float:
        """How long a request that came now would wait before its turn, estimated."""
        batches = math.ceil(self._rows_waiting / self._most_rows)
        wait = self._estimate.seconds(batches, self._rows_waiting)
        if self._under_way is not None:
            rows, since = self._under_way
            # What takes longer than it should is taken to need as long again.
            wait += abs(self._estimate.seconds(1, rows) - (self._clock() - since))
        return wait

    @property
    def queue_seconds(self) -> float:
        """The same where others wait; 0 where nobody does, as who comes then is never refused."""
        return self.wait_seconds if self._rows_waiting else 0.0

    async def submit(self, item: Item, rows: int) -> Result:
        """The result for an item; raises Overloaded, or what the work raised for it."""
        if self._rows_waiting and self._rows_waiting + rows > self._most_waiting:
            raise Overloaded(
                f"{self._rows_waiting} rows are waiting to be predicted already; try again shortly",
                max(1, math.ceil(self.wait_seconds)),
            )
        if (wait := self.queue_seconds) > self._longest_wait:
            raise Overloaded(
                f"{self._rows_waiting} rows are waiting, which will take {wait:.1f} seconds; try "
                "again then",
                math.ceil(wait),
            )
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(item, rows, answer))
        self._rows_waiting += rows
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch = self._next()
                if not batch:
                    continue
                items = [each.item for each in batch]
                rows, since = sum(each.rows for each in batch), self._clock()
                self._under_way = (rows, since)
                try:
                    results = await loop.run_in_executor(self._executor, self._work, items)
                except Exception as error:
                    # Each caller of the batch has to hear.
                    results = [error] * len(batch)
                self._under_way = None
                self._estimate.learn(rows, self._clock() - since)
                for each, result in zip(batch, results, strict=True):
                    if each.answer.done():
                        continue
                    if isinstance(result, Exception):
                        each.answer.set_exception(result)
                    else:
                        each.answer.set_result(result)
        finally:
            self._running = self._under_way = None

    def _next(self) -> list[_Waiting[Item, Result]]:
        batch: list[_Waiting[Item, Result]] = []
        rows = 0
        while self._waiting and (not batch or rows + self._waiting[0].rows <= self._most_rows):
            each = self._waiting.popleft()
            self._rows_waiting -= each.rows
            # Clients that have disconnected in the meantime need no answer.
            if not each.answer.done():
                batch.append(each)
                rows += each.rows
        return batch

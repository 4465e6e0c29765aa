"""Requests that arrive together are predicted together.

A model takes nearly as long for one row as for a hundred. While one batch is predicted the next
one gathers, so nobody waits on purpose, and under load a batch holds whoever came meanwhile.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

from ml_platform.errors import Overloaded

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
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        executor: Executor,
        *,
        most_rows: int,
        most_waiting: int,
    ) -> None:
        self._work, self._executor = work, executor
        self._most_rows, self._most_waiting = most_rows, most_waiting
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._rows_waiting = 0
        self._running: asyncio.Task[None] | None = None

    @property
    def rows_waiting(self) -> int:
        return self._rows_waiting

    async def submit(self, item: Item, rows: int) -> Result:
        """The result for an item; raises Overloaded, or what the work raised for it."""
        if self._rows_waiting and self._rows_waiting + rows > self._most_waiting:
            raise Overloaded(
                f"{self._rows_waiting} rows are waiting to be predicted already; try again shortly"
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
                try:
                    results = await loop.run_in_executor(self._executor, self._work, items)
                except Exception as error:
                    # Each caller of the batch has to hear.
                    results = [error] * len(batch)
                for each, result in zip(batch, results, strict=True):
                    if each.answer.done():
                        continue
                    if isinstance(result, Exception):
                        each.answer.set_exception(result)
                    else:
                        each.answer.set_result(result)
        finally:
            self._running = None

    def _next(self) -> list[_Waiting[Item, Result]]:
        batch: list[_Waiting[Item, Result]] = []
        rows = 0
        while self._waiting and (not batch or rows + self._waiting[0].rows <= self._most_rows):
            each = self._waiting.popleft()
            self._rows_waiting -= each.rows
            # Whoever hung up in the meantime needs no answer.
            if not each.answer.done():
                batch.append(each)
                rows += each.rows
        return batch

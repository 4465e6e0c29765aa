"""Processes that compute pieces of a range side by side, on one machine or on several.

Each opens the lake for itself, and their transactions overlap as those of any commands do. Several
machines each take a share of the range: nobody assigns work, they look at the lake.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass

from ml_platform.backfill.local_run import compute
from ml_platform.backfill.staleness import judge
from ml_platform.errors import PlatformError
from ml_platform.registry import Registry
from ml_platform.settings import Settings
from ml_platform.spec.tables import reads_of
from ml_platform.spec.use_case import Engine, UseCase
from ml_platform.spec.windows import Window, utc
from ml_platform.storage import Lake

LOOKED_AT_SECONDS = 2.0
"""How often a share looks whether others have done what it needs."""
MEMORY_OF_ALL = 0.8
"""Part of a machine's memory that DuckDB takes by default; workers take it together."""


@dataclass(frozen=True)
class Share:
    """One of several contiguous parts of a range, all as long as each other."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Read `2/3`; PlatformError where it is none."""
        number, slash, of = text.partition("/")
        if not (slash and number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
            raise PlatformError(f"--share {text}: write 1/3, 2/3, 3/3, one on each machine")
        return cls(int(number), int(of))

    def windows(self, windows: Sequence[Window]) -> Sequence[Window]:
        """The windows of a range that are this one's."""
        first, end = ((n * len(windows)) // self.of for n in (self.number - 1, self.number))
        return windows[first:end]

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def wait_for_others(
    lake: Lake,
    use_case: UseCase,
    table: str,
    window_range: Window,
    asked: Window,
    tables: Sequence[str],
    own: Sequence[Window],
    say: Callable[[str], None],
) -> None:
    """Wait until nothing is due that a range of a table is computed from and others compute.

    asked: the range of all shares; tables: those that they compute; own: the windows of this one.
    say: called once with what is waited for.
    """
    mine, said = set(own), False
    needed = [read for read in reads_of(use_case, table) if read.table in tables]
    while due := [
        f"{read.table} {use_case.calendar.key(window)}"
        for read in needed
        if (seen := _within(read.range(window_range), asked)) is not None
        for window, state in judge(lake, use_case, seen, [read.table])[read.table].items()
        if state.is_due and window not in mine
    ]:
        if not said:
            say(f"{table} waits for another share: {due[0]} and {len(due) - 1} more are due there")
            said = True
        time.sleep(LOOKED_AT_SECONDS)


def _within(seen: Window, asked: Window) -> Window | None:
    # Moments of one zone compare by what clocks show, which an hour that comes twice has in common.
    start, end = max(seen.start, asked.start, key=utc), min(seen.end, asked.end, key=utc)
    return Window(start, end) if utc(start) < utc(end) else None


class Workers:
    """Some processes, each with the lake open; ended with `close`."""

    def __init__(self, settings: Settings, use_case: UseCase, number: int) -> None:
        self.number = number
        # A process that was forked would share DuckDB's threads and locks, which it does not have.
        self._pool = ProcessPoolExecutor(
            number,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_open,
            initargs=(_divided(settings, number), use_case),
        )

    def compute(
        self,
        table: str,
        windows: Sequence[Window],
        run_id: str,
        engine: Engine | None,
    ) -> None:
        """Compute consecutive windows of a table, divided among the workers.

        Where one fails, the others finish what they are at; the same command does the rest.
        """
        pieces = [Window(p[0].start, p[-1].end) for p in _contiguous(windows, self.number)]
        try:
            with started_without_interrupts():
                futures = [
                    self._pool.submit(_compute, table, piece, run_id, engine) for piece in pieces
                ]
            for future in as_completed(futures):
                future.result()
        except KeyboardInterrupt:
            # They are in transactions, of which nothing is left.
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        except BrokenProcessPool:
            raise PlatformError(
                f"a worker that computed {table} was ended from outside, as a machine does that "
                "runs out of memory; take fewer --workers, or set ML_PLATFORM_DUCKDB_MEMORY"
            ) from None

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


@contextmanager
def working(settings: Settings, use_case: UseCase, number: int) -> Iterator[Workers | None]:
    """Workers for as long as the body runs; None where one process is enough."""
    if number < 2:
        yield None
        return
    workers = Workers(settings, use_case, number)
    try:
        yield workers
    finally:
        workers.close()


@contextmanager
def started_without_interrupts() -> Iterator[None]:
    """Processes that are started meanwhile never receive SIGINT, whatever stage they are at.

    A terminal sends it to all of them; the one that started the others ends them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        # Raised now, if it came meanwhile.
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _contiguous(windows: Sequence[Window], number: int) -> Iterator[Sequence[Window]]:
    for share in range(1, number + 1):
        if piece := Share(share, number).windows(windows):
            yield piece


def _divided(settings: Settings, number: int) -> Settings:
    """Settings with which several processes share the cores and the memory of a machine."""
    threads = settings.duckdb_threads or max(1, (os.cpu_count() or 1) // number)
    memory = settings.duckdb_memory or f"{MEMORY_OF_ALL * _memory() / number:.1f}GB"
    return settings.model_copy(update={"duckdb_threads": threads, "duckdb_memory": memory})


def _memory() -> float:
    """Gigabytes of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


@dataclass(frozen=True)
class _Open:
    lake: Lake
    registry: Registry
    use_case: UseCase


_OPENED: list[_Open] = []
"""What this process has opened, if it is a worker."""


def _open(settings: Settings, use_case: UseCase) -> None:
    _OPENED[:] = [_Open(Lake(settings), Registry(settings), use_case)]


def _compute(table: str, window_range: Window, run_id: str, engine: Engine | None) -> None:
    opened = _OPENED[0]
    compute(opened.lake, opened.registry, opened.use_case, table, window_range, run_id, engine)

"""Runs of the real Dagster definitions, in two processes, recorded where the UI finds them."""

import logging
import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cache
from importlib import import_module
from multiprocessing.synchronize import Event
from pathlib import Path
from types import TracebackType
from typing import Self

import dagster as dg

from ml_platform.backfill.workers import started_without_interrupts
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform_dagster.resources import range_tags
from ml_platform_dagster.resources.private import NO_COMPUTE_LOGS

PROCESSES = 2


class RunFailed(Exception):
    """A run of the walk failed; the message says which step and why."""


class Runs:
    """Materialises partitions of one use case, and leaves alone what is there already.

    Runs in one process are one after the other, so there are two of them.
    """

    def __init__(self, use_case: UseCase, home: Path) -> None:
        self.use_case = use_case
        self._home = home
        # Opened here first: two processes would both try to create Dagster's databases.
        self._instance = open_instance(home)
        context = multiprocessing.get_context("spawn")
        self._stopping = context.Event()
        self._pool = ProcessPoolExecutor(
            PROCESSES, context, initializer=_end_when_stopped, initargs=(self._stopping,)
        )

    def __enter__(self) -> Self:
        if not self._there("performance_report"):
            # What takes seconds to import is imported while the files land.
            for _ in range(PROCESSES):
                with started_without_interrupts():
                    self._pool.submit(_location, self.use_case.folder, self._home)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is KeyboardInterrupt:
            # Dagster records that the runs have failed before the processes end.
            self._stopping.set()
            for process in multiprocessing.active_children():
                process.terminate()
        self._pool.shutdown(cancel_futures=True)
        self._instance.dispose()

    def materialize(self, tables: Sequence[str], window_range: Window) -> "Future[None]":
        """Start a run of those tables that lack partitions of a range; it may raise RunFailed."""
        keys = [self.use_case.calendar.key(w) for w in self.use_case.calendar.windows(window_range)]
        # A range is one run, so some partitions of it are all that have rows.
        missing = [table for table in tables if self._there(table).isdisjoint(keys)]
        if missing:
            with started_without_interrupts():
                return self._pool.submit(
                    _materialize, self.use_case.folder, self._home, missing, keys
                )
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _there(self, table: str) -> set[str]:
        key = dg.AssetKey([self.use_case.name, table])
        return self._instance.get_materialized_partitions(key)


def open_instance(home: Path) -> dg.DagsterInstance:
    """The instance of a folder, without capturing output: that takes four processes a run."""
    return dg.DagsterInstance.local_temp(str(home), overrides={"compute_logs": NO_COMPUTE_LOGS})


@cache
def _location(folder: Path, home: Path) -> "_Location":
    return _Location(folder, home)


class _Location:
    """The definitions and the instance of one worker process."""

    def __init__(self, folder: Path, home: Path) -> None:
        from ml_platform_dagster.definitions import defs

        # While the files land there is time for what the first training would wait for.
        import_module("mlflow")
        import_module("sklearn.ensemble")
        # The progress bars of the parent say what happens; failures come back as RunFailed.
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self.use_case = load_use_case(folder)
        self.instance = open_instance(home)
        self._job = defs.resolve_implicit_global_asset_job_def()

    def materialize(self, tables: Sequence[str], keys: Sequence[str]) -> None:
        result = self._job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey([self.use_case.name, table]) for table in tables],
            # Whose action it is, for the audit.
            tags={**range_tags(keys), "user": "make demo"},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )
        if not result.success:
            raise RunFailed(_reason(result))


_STOPPING: list[Event] = []
"""Of this process, if it is a worker: set once it is to take no further run."""


def _end_when_stopped(stopping: Event) -> None:
    """Have a worker end without a word on SIGTERM, where no run of Dagster's takes it.

    After a run Dagster handles SIGTERM as SIGINT, whose handler it leaves as it is.
    """
    _STOPPING[:] = [stopping]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(1))


def _materialize(folder: Path, home: Path, tables: Sequence[str], keys: Sequence[str]) -> None:
    try:
        _location(folder, home).materialize(tables, keys)
    finally:
        if _STOPPING[0].is_set():
            # The pool would hand it the next run, which waits in its queue.
            os._exit(1)


def _reason(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            cause = error.cause if error and error.cause else error
            return f"{event.step_key}: {cause.message.strip() if cause else 'failed'}"
    return "the run failed before its first step"

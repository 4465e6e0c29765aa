"""Chunks as runs of Dagster: started once, joined where one is under way, followed to the end."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from ml_platform.backfill.plan import Chunk, Due
from ml_platform.errors import OrchestratorError, OrchestratorUnavailable, RunFailed
from ml_platform.orchestrator import UNDER_WAY, Backfill, Orchestrator, Run, RunStatus, StepStatus
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage.turns import turn

T = TypeVar("T")

TAG = "ml_platform/backfill"
"""Runs that a backfill started carry the name of the use case under this tag."""

FIRST_LOOK_SECONDS = 0.5
LONGEST_LOOK_SECONDS = 2.0
UNAVAILABLE_SECONDS = 60.0
"""How long Dagster may be unavailable, restarted for instance, while a run is followed."""


class BackfillRuns:
    """The runs of one use case's backfills.

    lock: a file of this machine; two commands that want the same chunk look and launch one after
    the other. On several machines a chunk may be launched twice, and its rows are still written
    once, since a window is replaced as a whole.
    """

    def __init__(
        self,
        dagster: Orchestrator,
        use_case: UseCase,
        lock: Path,
        by: str,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.dagster = dagster
        self.use_case = use_case
        self.lock = lock
        self.tags = {TAG: use_case.name, "ml_platform/by": by, **(tags or {})}

    def carry_out(self, chunk: Chunk, is_due: Callable[[Chunk], bool]) -> Iterator[Run]:
        """Yields the run that computes a chunk, again and again until it is over.

        Where other runs compute some of it already, these are joined first; then what `is_due`
        still says is due is launched. Raises RunFailed, LaunchRefused.
        """
        while True:
            self.lock.parent.mkdir(parents=True, exist_ok=True)
            with turn(self.lock):
                joined = self.under_way(chunk)
                if not joined and not is_due(chunk):
                    return
                followed = joined or [self._launch(chunk)]
            ended = []
            for run in followed:
                for seen in self.follow(run):
                    yield seen
                    last = seen
                ended.append(last)
            if not joined:
                self._require_success(ended[0])
                return
            if any(self._covers(run, chunk) for run in ended if run.status is RunStatus.success):
                return

    def start(self, chunk: Chunk, before: Callable[[], None]) -> tuple[Run, bool]:
        """The run that computes a chunk, which continues by itself; whether it was there already.

        before: called right before it is launched.
        """
        self.lock.parent.mkdir(parents=True, exist_ok=True)
        with turn(self.lock):
            for run in self.under_way(chunk):
                if self._covers(run, chunk):
                    return run, True
            return self._launch(chunk, before), False

    def start_by_daemon(self, due: Due, before: Callable[[], None]) -> str:
        """Launch a backfill of the daemon of exactly what is due; its id. before: as in `start`."""
        calendar = self.use_case.calendar
        keys = {
            self._asset(table): [calendar.keys(s) for s in calendar.ranges(windows)]
            for table, windows in due.items()
            if windows
        }
        title = f"{self.use_case.name} backfill"
        return self.dagster.launch_backfill(keys, title, self.tags, before)

    def under_way(self, chunk: Chunk | None = None) -> list[Run]:
        """Runs that are not over: those that backfills started, or that touch a chunk."""
        if chunk is None:
            return self.dagster.runs({TAG: self.use_case.name}, UNDER_WAY)
        return [run for run in self.dagster.runs(statuses=UNDER_WAY) if self._touches(run, chunk)]

    def follow(self, run: Run) -> Iterator[Run]:
        """Yields a run, first as it was given and then as it is, until it is over."""
        yield run
        wait = FIRST_LOOK_SECONDS
        while not (seen := _patiently(lambda: self.dagster.run(run.id))).status.is_over:
            yield seen
            time.sleep(wait)
            wait = min(1.2 * wait, LONGEST_LOOK_SECONDS)
        yield seen

    def by_daemon(self, chunk: Chunk) -> Iterator[Backfill]:
        """As `carry_out` by a backfill of the daemon, which takes its runs' length from settings.

        One that is under way for the same use case is joined.
        """
        self.lock.parent.mkdir(parents=True, exist_ok=True)
        with turn(self.lock):
            ids = [b.id for b in self.dagster.backfills({TAG: self.use_case.name})]
            backfill_id = ids[0] if ids else self._launch_backfill(chunk)
        while not (seen := _patiently(lambda: self.dagster.backfill(backfill_id))).is_over:
            yield seen
            time.sleep(LONGEST_LOOK_SECONDS)
        yield seen
        if not seen.succeeded:
            reasons = [r for run_id in seen.run_ids for r in self.dagster.failures(run_id)]
            said = tuple(filter(None, [seen.error, *reasons]))
            link = f"{self.dagster.url}/runs/b/{backfill_id}"
            raise RunFailed(f"backfill {backfill_id} ended as {seen.status}", said, link)

    def end(self, before: Callable[[list[str]], None]) -> list[str]:
        """End every run and backfill that is under way; their ids.

        before: called with the ids right before anything is ended, if there is anything.
        """
        backfills = [b.id for b in self.dagster.backfills({TAG: self.use_case.name})]
        runs = [run.id for run in self.under_way()]
        if backfills or runs:
            before([*backfills, *runs])
        for backfill_id in backfills:
            self.dagster.cancel_backfill(backfill_id)
        for run_id in runs:
            end_run(self.dagster, run_id)
        # The daemon may have launched more of them in between.
        late = [run.id for run in self.under_way() if run.id not in runs] if backfills else []
        for run_id in late:
            end_run(self.dagster, run_id)
        return [*backfills, *runs, *late]

    def finished(self, run: Run, chunk: Chunk) -> int:
        """How many of a chunk's partitions a run has finished: those of the steps that are over."""
        done = {table for table, step in run.steps.items() if step is StepStatus.success}
        return sum(count for table, count in chunk.due.items() if self._asset(table) in done)

    def _launch(self, chunk: Chunk, before: Callable[[], None] = lambda: None) -> Run:
        assets, keys = [self._asset(t) for t in chunk.tables], chunk.keys(self.use_case.calendar)
        return self.dagster.launch_range(assets, *keys, self.tags, before)

    def _launch_backfill(self, chunk: Chunk) -> str:
        keys = chunk.keys(self.use_case.calendar)
        window_ranges = {self._asset(table): [keys] for table in chunk.tables}
        title = f"{self.use_case.name} {'...'.join(keys)}"
        return self.dagster.launch_backfill(window_ranges, title, self.tags)

    def _asset(self, table: str) -> str:
        return f"{self.use_case.name}/{table}"

    def _touches(self, run: Run, chunk: Chunk) -> bool:
        window_range = self._range(run)
        shared = {self._asset(table) for table in chunk.tables} & set(run.tables)
        return bool(shared) and window_range is not None and _overlap(window_range, chunk.range)

    def _covers(self, run: Run, chunk: Chunk) -> bool:
        window_range = self._range(run)
        tables = {self._asset(table) for table in chunk.tables}
        return (
            window_range is not None
            and tables <= set(run.tables)
            and window_range.start <= chunk.range.start
            and window_range.end >= chunk.range.end
        )

    def _range(self, run: Run) -> Window | None:
        calendar = self.use_case.calendar
        try:
            first, last = run.partitions or ("", "")
            return Window(calendar.window(first).start, calendar.window(last).end)
        except ValueError:
            # Of another use case, or of none.
            return None

    def _require_success(self, run: Run) -> None:
        if run.status is not RunStatus.success:
            said = self.dagster.failures(run.id)
            what = f"run {run.id} ended as {run.status.value}"
            raise RunFailed(what, said, self.dagster.link(run.id))


def end_run(
    dagster: Orchestrator, run_id: str, patience_seconds: float = UNAVAILABLE_SECONDS
) -> None:
    """End a run that may just be starting, or over; OrchestratorError where Dagster will not."""
    until = time.monotonic() + patience_seconds
    while True:
        try:
            dagster.terminate(run_id)
            return
        except OrchestratorError:
            # A run that is just starting cannot be ended yet, one that is over need not be.
            if dagster.run(run_id).status.is_over:
                return
            if time.monotonic() > until:
                raise
            time.sleep(LONGEST_LOOK_SECONDS)


def _patiently(ask: Callable[[], T]) -> T:
    until = time.monotonic() + UNAVAILABLE_SECONDS
    while True:
        try:
            return ask()
        except OrchestratorUnavailable:
            if time.monotonic() > until:
                raise
            time.sleep(LONGEST_LOOK_SECONDS)


def _overlap(one: Window, other: Window) -> bool:
    return one.start < other.end and other.start < one.end

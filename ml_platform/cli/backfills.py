"""What the backfill command does, and what it says meanwhile."""

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Literal

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ml_platform.backfill import Standing, States, counts, judge
from ml_platform.backfill.local_run import compute
from ml_platform.backfill.plan import Chunk, chunks, due_with_followers
from ml_platform.backfill.request import BackfillRequest, look_at_landing
from ml_platform.backfill.runs import BackfillRuns
from ml_platform.backfill.workers import wait_for_others, working
from ml_platform.cli import INTERRUPTED, printing
from ml_platform.cli.platform import Platform
from ml_platform.errors import OrchestratorUnavailable, PlatformError
from ml_platform.orchestrator import Orchestrator
from ml_platform.spec.tables import tables_of
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window

Report = Callable[[int, str], None]
"""Called with how many partitions are done, and what is being done."""

How = Literal["here", "runs", "daemon"]

CHUNK_HERE = 60
"""Windows of a transaction, where no run of Dagster holds them together."""
PIECES_SHOWN = 3
MOST_ROUNDS = 3
TABLES_NAMED = 4


@dataclass(frozen=True)
class PlannedBackfill:
    """One backfill of a use case: what it is about, and the pieces it consists of."""

    platform: Platform
    use_case: UseCase
    request: BackfillRequest
    chunks: list[Chunk]
    range: Window
    """All that was asked for, also where others compute a share of it."""

    @property
    def in_order(self) -> list[Chunk]:
        """Pieces of one table each, those that others read first.

        A chunk at a time where one process computes, since what it has just written is what it
        reads; a table at a time where several do, so that nobody waits for long.
        """
        singles = [single for chunk in self.chunks for single in chunk.by_table]
        if self.request.share is None and self.request.workers == 1:
            return singles
        order = {table: number for number, table in enumerate(tables_of(self.use_case))}
        return sorted(singles, key=lambda single: order[single.tables[0]])

    @cached_property
    def own(self) -> Sequence[Window]:
        """The windows that are computed here."""
        windows = list(self.use_case.calendar.windows(self.range))
        return self.request.share.windows(windows) if self.request.share else windows

    def wait_for_others(self, table: str, single: Chunk, say: Callable[[str], None]) -> None:
        """Wait for what a piece needs of the shares of others."""
        tables = self.request.tables_in(self.use_case)
        wait_for_others(
            self.platform.lake, self.use_case, table, single.range, self.range, tables,
            self.own, say,
        )  # fmt: skip

    @property
    def partitions(self) -> int:
        return sum(chunk.partitions for chunk in self.chunks)

    def is_due(self, chunk: Chunk) -> bool:
        """Whether there is anything to do in a chunk by now; another command may have done it."""
        if self.request.every:
            return True
        states = judge(self.platform.lake, self.use_case, chunk.range, chunk.tables)
        return any(due_with_followers(self.use_case, states).values())


def backfill(
    platform: Platform,
    name: str,
    request: BackfillRequest,
    how: How,
    dry_run: bool,
) -> None:
    """Show what has to be done, and do it."""
    use_case = platform.case(name)
    tables, window_range = request.tables_in(use_case), request.range_in(platform.lake, use_case)
    with Orchestrator(platform.settings.dagster_url) as dagster:
        runs = None
        if how != "here":
            lock = platform.settings.root / "backfill.lock"
            runs = BackfillRuns(dagster, use_case, lock, platform.person)
        look_at_landing(
            platform.lake, use_case, tables, lambda source: platform.commit(use_case, source)
        )
        failed = _failed(dagster, use_case, tables) if runs else {}
        states = judge(platform.lake, use_case, window_range, tables, failed)
        work = _planned(platform, use_case, request, states, how, window_range)
        _show(work, states)
        if work.chunks and not dry_run:
            # Before it begins: what is interrupted halfway was done by someone as well.
            platform.audit(
                "backfill", use_case.name, ", ".join(tables), range=str(window_range),
                partitions=str(work.partitions), how=how,
            )  # fmt: skip
        done = 0
        for _ in range(0 if dry_run else MOST_ROUNDS):
            if not work.chunks:
                break
            with _progress(work.partitions) as report:
                if runs is None:
                    _compute_here(work, report)
                else:
                    _follow(work, runs, report, daemon=how == "daemon")
            done += work.partitions
            # What looks ahead over the end of a chunk has seen less than there is by now.
            states = judge(platform.lake, use_case, window_range, tables)
            work = _planned(
                platform, use_case, replace(request, every=False), states, how, window_range
            )
    if done:
        printing.show_line(f"{done} partitions were computed")


def _planned(
    platform: Platform,
    use_case: UseCase,
    request: BackfillRequest,
    states: States,
    how: How,
    window_range: Window,
) -> PlannedBackfill:
    due = due_with_followers(use_case, states, request.every)
    if request.share:
        own = set(request.share.windows(list(use_case.calendar.windows(window_range))))
        due = {table: own.intersection(windows) for table, windows in due.items()}
    longest = request.chunk or (CHUNK_HERE if how == "here" else None)
    pieces = list(chunks(use_case, due, longest))
    if request.run_per_table:
        pieces = [single for piece in pieces for single in piece.by_table]
    return PlannedBackfill(platform, use_case, request, pieces, window_range)


def end(platform: Platform, name: str) -> None:
    """End every backfill of a use case that is under way."""
    use_case = platform.case(name)
    with Orchestrator(platform.settings.dagster_url) as dagster:
        lock = platform.settings.root / "backfill.lock"
        ended = BackfillRuns(dagster, use_case, lock, platform.person).end(
            lambda ids: platform.audit("end backfill", use_case.name, ", ".join(ids))
        )
    said = ", ".join(ended) if ended else "nothing was under way"
    printing.show_line(f"ended: {said}" if ended else said)


def _failed(
    dagster: Orchestrator, use_case: UseCase, tables: Collection[str]
) -> dict[str, set[Window]]:
    calendar = use_case.calendar
    assets = {f"{use_case.name}/{table}": table for table in tables}
    found: dict[str, set[Window]] = {}
    try:
        known = dagster.partitions(list(assets))
    except OrchestratorUnavailable as error:
        raise PlatformError(
            f"{error}; --here computes without Dagster, and --here --dry-run shows what the lake "
            "alone says is due"
        ) from error
    for asset, partitions in known.items():
        for first, last in partitions.failed:
            window_range = Window(calendar.window(first).start, calendar.window(last).end)
            found.setdefault(assets[asset], set()).update(calendar.windows(window_range))
    return found


def _compute_here(work: PlannedBackfill, report: Report) -> None:
    platform, request = work.platform, work.request
    done = 0
    with working(platform.settings, work.use_case, request.workers) as workers:
        for single in work.in_order:
            (table,) = single.tables
            named = f"{table} {_named(work.use_case, single)}"
            report(done, named)
            if request.share:
                work.wait_for_others(table, single, partial(report, done))
            if work.is_due(single):
                if workers is None:
                    compute(
                        platform.lake, platform.registry, work.use_case, table, single.range,
                        platform.run_id, request.engine,
                    )  # fmt: skip
                else:
                    workers.compute(table, single.windows, platform.run_id, request.engine)
            done += single.partitions
    report(done, "")


def _follow(work: PlannedBackfill, runs: BackfillRuns, report: Report, *, daemon: bool) -> None:
    done = 0
    link = runs.dagster.url
    try:
        for chunk in work.chunks:
            named = _named(work.use_case, chunk)
            report(done, named)
            if daemon:
                for backfill in runs.by_daemon(chunk):
                    link = f"{runs.dagster.url}/runs/b/{backfill.id}"
                    report(done + min(backfill.materialized, chunk.partitions), named)
            else:
                for run in runs.carry_out(chunk, work.is_due):
                    link = runs.dagster.link(run.id)
                    steps = [step.rpartition("/")[2] for step in run.steps]
                    doing = steps[-1] if steps else run.status.value.lower()
                    report(done + runs.finished(run, chunk), f"{named} {doing}")
            done += chunk.partitions
        report(done, "")
    except KeyboardInterrupt:
        printing.show_line(
            f"what was launched continues in Dagster: {link}\n"
            "the same command again joins it and does the rest; "
            f"`ml-platform backfill {work.use_case.name} --end` ends it"
        )
        sys.exit(INTERRUPTED)


def _show(work: PlannedBackfill, states: States) -> None:
    use_case, pieces = work.use_case, work.chunks
    rows = []
    for table, by_window in states.items():
        found = counts(by_window.values())
        due = sum(piece.due.get(table, 0) for piece in pieces)
        rows.append((table, *(str(found[s] or "") for s in Standing), str(due or "")))
    printing.show_table(("table", *Standing, "to compute"), rows)
    shown = [f"{_named(use_case, piece)} of {_listed(piece.tables)}" for piece in pieces]
    for number, line in enumerate(shown[:PIECES_SHOWN], start=1):
        part = "in one batch" if len(shown) == 1 else f"batch {number} of {len(shown)}"
        printing.show_line(f"{part}: {line}")
    if more := shown[PIECES_SHOWN:]:
        printing.show_line(f"and {len(more)} more, up to {more[-1]}")
    if not pieces:
        printing.show_line("nothing to compute")


def _listed(tables: tuple[str, ...]) -> str:
    return ", ".join(tables) if len(tables) <= TABLES_NAMED else f"{len(tables)} tables"


def _named(use_case: UseCase, chunk: Chunk) -> str:
    return printing.range_in(chunk.keys(use_case.calendar))


@contextmanager
def _progress(total: int) -> Iterator[Report]:
    console = printing.console()
    if not console.is_terminal:
        yield _lines(total)
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total)

        def report(done: int, doing: str) -> None:
            bar.update(task, completed=done, description=doing)

        yield report


def _lines(total: int) -> Report:
    said = ""

    def report(done: int, doing: str) -> None:
        nonlocal said
        line = f"{done} of {total} partitions {doing}".rstrip()
        if line != said:
            said = line
            now = printing.moment_in(UTC, datetime.now(UTC), "seconds")
            printing.show_line(f"{now} {line}")

    return report

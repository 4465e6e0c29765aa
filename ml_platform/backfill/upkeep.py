"""What is asked for without a person: the newest window scored, and what was left behind."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from ml_platform.backfill.computation_history import gather
from ml_platform.backfill.plan import Chunk, Due, chunks, due_with_followers
from ml_platform.backfill.staleness import Standing, States, judge
from ml_platform.errors import LakeError, LandingError
from ml_platform.sources import waiting_windows
from ml_platform.spec.tables import downstream_of, reads_of, tables_of
from ml_platform.spec.use_case import UseCase, feature_table
from ml_platform.spec.windows import Window, utc
from ml_platform.storage import Lake
from ml_platform.storage.changes import Range
from ml_platform.storage.tables import naive_utc

ATTEMPTS = 2
"""How often a partition is tried while neither its inputs nor the code change."""


@dataclass(frozen=True)
class FailedAttempt:
    """A run that upkeep asked for and that failed."""

    tables: frozenset[str]
    range: Window
    snapshot: int
    """Snapshot of the lake when it was asked for."""
    code_version: str


@dataclass(frozen=True)
class Circumstances:
    """What only the orchestrator knows."""

    under_way: Mapping[str, Collection[Window]] = field(default_factory=dict)
    """Windows that runs compute at the moment, or will, by table."""
    attempts: Sequence[FailedAttempt] = ()
    held: Collection[str] = ()
    """Tables with a blocking check that failed: what is computed from them waits."""


def newest_complete(use_case: UseCase, now: datetime) -> Window | None:
    """The last window that has ended; None where none has."""
    calendar = use_case.calendar
    end = use_case.partitions.closes_at
    moment = now if end is None else min(now, end, key=utc)
    if utc(moment) <= utc(calendar.start):
        return None
    current = calendar.window_at(moment)
    before = calendar.window_at(current.start.astimezone(UTC) - timedelta(microseconds=1))
    return before if utc(before.start) >= utc(calendar.start) else None


def scoring_due(
    lake: Lake, use_case: UseCase, now: datetime, circumstances: Circumstances
) -> Chunk | str:
    """What scores the newest complete window: its features and predictions, or why it is not due.

    A history that is over has no newest window any more.
    """
    window = newest_complete(use_case, now)
    end = use_case.partitions.closes_at
    if window is None or (end is not None and utc(now) >= utc(window.end) + _length(window)):
        return f"{use_case.name} has no window that has just ended"
    key = use_case.calendar.key(window)
    tables = [*map(feature_table, use_case.model_views), "predictions"]
    states = judge(lake, use_case, window, tables)
    state = states["predictions"][window]
    due = due_with_followers(use_case, states)
    if not due["predictions"]:
        scored = state.standing is Standing.fresh
        return f"{key} is scored" if scored else f"{key} cannot be scored: {state.why}"
    if held := _held(use_case, circumstances, "predictions"):
        return f"{key} waits for the check of {held}"
    if any(window in circumstances.under_way.get(table, ()) for table in tables):
        return f"{key} is being computed"
    return next(chunks(use_case, due))


def due_after(
    lake: Lake, use_case: UseCase, table: str, windows: Collection[Window], requested: Due
) -> set[Window]:
    """Which windows of a table have to be computed, once others that are requested have been.

    windows: at least one.
    """
    first, last = min(windows, key=_start), max(windows, key=_start)
    states = judge(lake, use_case, Window(first.start, last.end), [table])
    return set(windows) & set(due_with_followers(use_case, states, requested=requested)[table])


def online_due_after(
    lake: Lake,
    use_case: UseCase,
    windows: Collection[Window],
    requested: Due,
    published: Mapping[Window, int],
) -> set[Window]:
    """Which windows have to be published to the online store: as `due_after`.

    published: the snapshot that each was published from, where that has happened.
    """
    tables = [feature_table(view) for view in use_case.model_views]
    wanted = Range.of(naive_utc(window.start) for window in windows)
    with lake.cursor() as cursor:
        views = gather(lake, cursor, use_case, dict.fromkeys(tables, wanted))
    return {
        window
        for window in windows
        if any(window in requested.get(table, ()) for table in tables)
        or any(
            made.changed_at > published.get(window, 0)
            for table in tables
            if (made := views.get(table, {}).get(naive_utc(window.start)))
        )
    }


def catch_up(
    lake: Lake, use_case: UseCase, now: datetime, circumstances: Circumstances
) -> list[Chunk]:
    """What is missing, failed or stale within the horizon, newest first, within the budget.

    A partition waits for those it is computed from. What is under way is not asked for, nor is what
    waits for more of what the service writes; what has failed often enough is asked for again once
    its inputs or the code have changed.
    """
    newest = newest_complete(use_case, now)
    if newest is None:
        return []
    schedules, calendar = use_case.schedules, use_case.calendar
    begin = max(schedules.horizon.before(newest.end, calendar.timezone), calendar.start, key=utc)
    states = _judge_what_can_be(lake, use_case, Window(calendar.window_at(begin).start, newest.end))
    due = _without_hopeless(use_case, states, circumstances.attempts)
    waiting = {
        table: set(circumstances.under_way.get(table, ()))
        | (set(windows) if _held(use_case, circumstances, table) else set())
        | waiting_windows(lake, use_case, table, now)
        for table, windows in due.items()
    }
    ready = _newest(_Readiness(use_case, due, waiting), schedules.budget)
    return _whole(use_case, due, ready)


def _judge_what_can_be(lake: Lake, use_case: UseCase, window_range: Window) -> States:
    try:
        return judge(lake, use_case, window_range)
    except (LandingError, LakeError):
        # A database that is unavailable, of which the landing sensor says so, holds up its own
        # tables only. Where it is the lake itself this raises again.
        held_up = {name for name, source in use_case.sources.items() if source.rows_of}
        return judge(lake, use_case, window_range, {*tables_of(use_case)} - held_up)


def _held(use_case: UseCase, circumstances: Circumstances, table: str) -> str | None:
    """A table whose failed check keeps another one from being computed."""
    for held in circumstances.held:
        if table != held and table in downstream_of(use_case, [held]):
            return held
    return None


def _without_hopeless(use_case: UseCase, states: States, attempts: Sequence[FailedAttempt]) -> Due:
    current = [each for each in attempts if each.code_version == use_case.code_version]
    found = {}
    for table, windows in due_with_followers(use_case, states).items():
        tried = [attempt for attempt in current if table in attempt.tables]
        found[table] = {
            window
            for window in windows
            if sum(
                window.start in attempt.range
                and attempt.snapshot >= states[table][window].inputs_at
                for attempt in tried
            )
            < ATTEMPTS
        }
    return found


class _Readiness:
    """Which due partitions have everything they are computed from, or get it in the same run."""

    def __init__(
        self, use_case: UseCase, due: Due, waiting: Mapping[str, Collection[Window]]
    ) -> None:
        self.use_case = use_case
        self.due = due
        self.waiting = waiting
        self.starts = {t: {naive_utc(w.start) for w in windows} for t, windows in due.items()}
        self.windows = sorted({w for windows in due.values() for w in windows}, key=_start)
        self.sees = {
            (table, window): [
                (read.table, naive_utc(seen.start))
                for read in reads_of(use_case, table)
                for seen in use_case.calendar.windows(read.range(window))
                if naive_utc(seen.start) in self.starts.get(read.table, ())
            ]
            for table, windows in due.items()
            for window in windows
        }

    def since(self, first: Window) -> dict[str, set[Window]]:
        """The partitions that can be computed when windows from `first` on are."""
        found: dict[str, set[Window]] = {}
        chosen: set[tuple[str, datetime]] = set()
        for table in tables_of(self.use_case):
            found[table] = {
                window
                for window in self.due.get(table, ())
                if _start(window) >= _start(first)
                and window not in self.waiting.get(table, ())
                and all(seen in chosen for seen in self.sees[table, window])
            }
            chosen |= {(table, naive_utc(window.start)) for window in found[table]}
        return found


def _newest(readiness: _Readiness, budget: int) -> dict[str, set[Window]]:
    """As many of the newest windows as the budget allows, and one at least."""
    chosen: dict[str, set[Window]] = {}
    for first in reversed(readiness.windows):
        found = readiness.since(first)
        size = sum(map(len, found.values()))
        if size > budget and any(chosen.values()):
            break
        chosen = found
    return chosen


def _whole(use_case: UseCase, due: Due, ready: Due) -> list[Chunk]:
    """Chunks, newest first, of the tables that are ready in all of a chunk's windows."""
    found = []
    for chunk in chunks(use_case, ready):
        among = set(chunk.windows)
        tables = {
            table: count
            for table, count in chunk.due.items()
            if among & set(due[table]) <= set(ready[table])
        }
        if tables:
            found.append(Chunk(tables, chunk.windows))
    return found[::-1]


def _start(window: Window) -> datetime:
    return utc(window.start)


def _length(window: Window) -> timedelta:
    return utc(window.end) - utc(window.start)

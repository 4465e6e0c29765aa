"""Whether the partitions of each table are there when they are due.

A partition is due a while after its window's end: `monitoring.freshness`, or what the cadence
allows. Labels complete, and with them performance can be judged, only a label horizon later.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from ml_platform.backfill import Standing, judge
from ml_platform.errors import TableNotFound
from ml_platform.spec.duration import Duration
from ml_platform.spec.tables import tables_of
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Cadence, Window
from ml_platform.storage import Lake
from ml_platform.storage.tables import WINDOW_START

GRACE = {
    Cadence.hourly: Duration(1, "h"),
    Cadence.daily: Duration(12, "h"),
    Cadence.weekly: Duration(1, "d"),
    Cadence.monthly: Duration(2, "d"),
}
AT_ONCE = Duration(0, "m")


@dataclass(frozen=True)
class Freshness:
    """How far one table has come, against how far it should be."""

    table: str
    newest: Window | None
    """The last partition with rows; None where the table has none."""
    missing: tuple[Window, ...]
    """Windows after the newest whose partitions are due, in order."""
    due_at: datetime | None
    """When the first of these was due."""
    is_over: bool
    """Whether the history has ended: what lacks of it then is late no more."""

    @property
    def late(self) -> bool:
        return bool(self.missing) and not self.is_over


def grace(use_case: UseCase) -> Duration:
    """How long after its window's end, and the label horizon where labels count, one may lack."""
    return use_case.monitoring.freshness or GRACE[use_case.partitions.cadence]


def read_freshness(lake: Lake, use_case: UseCase, now: datetime) -> list[Freshness]:
    """How far each table of a use case has come.

    Nothing is due of a use case that no row has landed for, and of no table where there is nothing
    to compute: no input, no champion, or it came out without rows.
    """
    newest = _newest_windows(lake, use_case)
    if not any(newest[source] for source in use_case.sources):
        return [Freshness(table, None, (), None, False) for table in newest]
    over = _is_over(use_case, now)
    lacking = {
        table: tuple(_due_windows(use_case, table, window, now)) for table, window in newest.items()
    }
    if not over:
        lacking |= _with_something_to_compute(lake, use_case, lacking)
    return [
        Freshness(
            table,
            newest[table],
            missing,
            due_at(use_case, table, missing[0]) if missing else None,
            over,
        )
        for table, missing in lacking.items()
    ]


def due_at(use_case: UseCase, table: str, window: Window) -> datetime:
    """The moment from which on a partition that lacks is late."""
    zone = use_case.calendar.timezone
    after = use_case.label.horizon if table in {"labels", "performance_report"} else AT_ONCE
    return grace(use_case).after(after.after(window.end, zone), zone)


def _with_something_to_compute(
    lake: Lake, use_case: UseCase, lacking: Mapping[str, tuple[Window, ...]]
) -> dict[str, tuple[Window, ...]]:
    computed = {t: w for t, w in lacking.items() if w and t not in use_case.sources}
    if not computed:
        return {}
    windows = sorted(
        {window for each in computed.values() for window in each},
        key=lambda window: window.start.astimezone(UTC),
    )
    states = judge(lake, use_case, Window(windows[0].start, windows[-1].end), list(computed))
    return {
        table: tuple(w for w in each if states[table][w].standing != Standing.empty)
        for table, each in computed.items()
    }


def _due_windows(
    use_case: UseCase, table: str, newest: Window | None, now: datetime
) -> Iterator[Window]:
    since = newest.end if newest else use_case.calendar.start
    end = min(now, use_case.partitions.closes_at or now, key=lambda moment: moment.astimezone(UTC))
    if end.astimezone(UTC) <= since.astimezone(UTC):
        return
    for window in use_case.calendar.windows(Window(since, end)):
        if due_at(use_case, table, window).astimezone(UTC) > now.astimezone(UTC):
            return
        yield window


def _is_over(use_case: UseCase, now: datetime) -> bool:
    closes = use_case.partitions.closes_at
    return closes is not None and closes.astimezone(UTC) <= now.astimezone(UTC)


def _newest_windows(lake: Lake, use_case: UseCase) -> dict[str, Window | None]:
    found: dict[str, Window | None] = {}
    with lake.cursor() as cursor:
        for table in tables_of(use_case):
            try:
                relation = lake.relation(cursor, use_case.name, table)
            except TableNotFound:
                found[table] = None
                continue
            row = cursor.execute(f"SELECT max({WINDOW_START}) FROM {relation}").fetchone()
            start = row[0] if row else None
            found[table] = start and use_case.calendar.window_at(start.replace(tzinfo=UTC))
    return found

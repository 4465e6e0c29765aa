"""Whether the partitions of each table are there when they are due.

A partition is due a while after its window's end: `monitoring.freshness`, or what the cadence
allows. Labels complete, and with them performance can be judged, only a label horizon later.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ml_platform.errors import NoChampion, TableNotFound
from ml_platform.registry import Promotion, champion_at, history
from ml_platform.spec.duration import Duration
from ml_platform.spec.use_case import UseCase, feature_table
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
BY_CHAMPION = frozenset({"predictions", "drift_report", "performance_report"})


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


def watched_tables(use_case: UseCase) -> tuple[str, ...]:
    """Every table that grows with time, in the order in which they are made."""
    features = (feature_table(view) for view in use_case.features)
    reports = ("labels", "predictions", "drift_report", "performance_report")
    return (*use_case.sources, *features, *reports)


def read_freshness(lake: Lake, use_case: UseCase, now: datetime) -> list[Freshness]:
    """How far each table of a use case has come.

    Nothing is due of a use case that no row has landed for, and nothing that a champion makes of
    windows without one.
    """
    newest = _newest_windows(lake, use_case)
    decisions = history(lake, use_case)
    started = any(newest[source] for source in use_case.sources)
    return [
        _of_table(use_case, table, newest[table], decisions if table in BY_CHAMPION else None, now)
        if started
        else Freshness(table, newest[table], (), None, _is_over(use_case, now))
        for table in watched_tables(use_case)
    ]


def due_at(use_case: UseCase, table: str, window: Window) -> datetime:
    """The moment from which on a partition that lacks is late."""
    zone = use_case.calendar.timezone
    after = use_case.label.horizon if table in {"labels", "performance_report"} else AT_ONCE
    return grace(use_case).after(after.after(window.end, zone), zone)


def _of_table(
    use_case: UseCase,
    table: str,
    newest: Window | None,
    decisions: Sequence[Promotion] | None,
    now: datetime,
) -> Freshness:
    since = newest.end if newest else use_case.calendar.start
    missing = tuple(
        window
        for window in _due_windows(use_case, table, since, now)
        if decisions is None or _has_champion(decisions, window)
    )
    due = due_at(use_case, table, missing[0]) if missing else None
    return Freshness(table, newest, missing, due, _is_over(use_case, now))


def _due_windows(use_case: UseCase, table: str, since: datetime, now: datetime) -> Iterator[Window]:
    end = min(now, use_case.partitions.closes_at or now, key=lambda moment: moment.astimezone(UTC))
    if end.astimezone(UTC) <= since.astimezone(UTC):
        return
    for window in use_case.calendar.windows(Window(since, end)):
        if due_at(use_case, table, window).astimezone(UTC) > now.astimezone(UTC):
            return
        yield window


def _has_champion(decisions: Sequence[Promotion], window: Window) -> bool:
    try:
        champion_at(decisions, window.start)
    except NoChampion:
        return False
    return True


def _is_over(use_case: UseCase, now: datetime) -> bool:
    closes = use_case.partitions.closes_at
    return closes is not None and closes.astimezone(UTC) <= now.astimezone(UTC)


def _newest_windows(lake: Lake, use_case: UseCase) -> dict[str, Window | None]:
    found: dict[str, Window | None] = {}
    with lake.cursor() as cursor:
        for table in watched_tables(use_case):
            try:
                relation = lake.relation(cursor, use_case.name, table)
            except TableNotFound:
                found[table] = None
                continue
            row = cursor.execute(f"SELECT max({WINDOW_START}) FROM {relation}").fetchone()
            start = row[0] if row else None
            found[table] = start and use_case.calendar.window_at(start.replace(tzinfo=UTC))
    return found

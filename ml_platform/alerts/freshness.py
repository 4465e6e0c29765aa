"""Whether the partitions of each table are there when they are due.

A partition is due a while after its window's end: `monitoring.freshness`, or what the cadence
allows. Labels complete, and with them performance can be judged, only a label horizon later.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ml_platform.backfill import Standing, judge
from ml_platform.errors import TableNotFound
from ml_platform.registry import Promotion, history
from ml_platform.spec.duration import Duration
from ml_platform.spec.tables import MONITORING, reads_of, tables_of
from ml_platform.spec.use_case import LIVE_REPORTS, LOGGED_SOURCES, UseCase
from ml_platform.spec.windows import Cadence, Window, utc
from ml_platform.storage import Lake
from ml_platform.storage.tables import WINDOW_START

GRACE = {
    Cadence.hourly: Duration(1, "h"),
    Cadence.daily: Duration(12, "h"),
    Cadence.weekly: Duration(1, "d"),
    Cadence.monthly: Duration(2, "d"),
}
COMPUTED_IN = timedelta(hours=1)
"""What arrives late may take this long to be computed."""
LONG_AGO = datetime.min.replace(tzinfo=UTC)
BY_CHAMPIONS = frozenset({"predictions", *MONITORING})
AT_ONCE = Duration(0, "m")


@dataclass(frozen=True)
class Freshness:
    """How far one table has come, against how far it should be."""

    table: str
    newest: Window | None
    """The last partition with rows; None where the table has none."""
    missing: tuple[Window, ...]
    """Windows after the newest that have ended long enough ago to be there, in order."""
    late: tuple[Window, ...]
    """Those of them that lack because of this table: there is something to compute them from."""


def grace(use_case: UseCase) -> Duration:
    """How long after its window's end, and the label horizon where labels count, one may lack."""
    return use_case.monitoring.freshness or GRACE[use_case.partitions.cadence]


def read_freshness(lake: Lake, use_case: UseCase, now: datetime) -> list[Freshness]:
    """How far each table of a use case has come.

    Nothing is late of a use case that no row has landed for, or whose history is over; of a table
    nothing where it has no input or its input has only just arrived, where it has no champion or
    comes out without rows, and nothing where a table that it reads is late itself.
    """
    newest = _newest_windows(lake, use_case)
    if not any(newest.get(source) for source in use_case.sources):
        return [Freshness(table, None, (), ()) for table in newest]
    serving = [promotion for promotion in history(lake, use_case) if promotion.serves]
    missing: dict[str, tuple[Window, ...]] = {}
    for table, window in newest.items():
        since = window.end if window else _begins(use_case, table, serving)
        missing[table] = tuple(_due_windows(use_case, table, since, now)) if since else ()
    late = {} if is_over(use_case, now) else _late(lake, use_case, missing, serving, now)
    return [
        Freshness(table, newest[table], windows, late.get(table, ()))
        for table, windows in missing.items()
    ]


def due_at(use_case: UseCase, table: str, window: Window) -> datetime:
    """The moment from which on a partition that lacks is late."""
    zone = use_case.calendar.timezone
    after = use_case.label.horizon if table in {"labels", "performance_report"} else AT_ONCE
    return grace(use_case).after(after.after(window.end, zone), zone)


def _late(
    lake: Lake,
    use_case: UseCase,
    missing: Mapping[str, tuple[Window, ...]],
    serving: Sequence[Promotion],
    now: datetime,
) -> dict[str, tuple[Window, ...]]:
    windows = [window for each in missing.values() for window in each]
    if not windows:
        return {}
    first = min((window.start for window in windows), key=utc)
    last = max((window.end for window in windows), key=utc)
    computed = [t for t, lacking in missing.items() if lacking and t not in use_case.sources]
    states = judge(lake, use_case, Window(first, last), computed) if computed else {}
    inputs = {state.inputs_at for each in states.values() for state in each.values()}
    arrived = _snapshot_times(lake, inputs)
    champion_since = max((p.decided_at for p in serving), default=LONG_AGO)
    lacking: dict[str, set[Window]] = {}
    late: dict[str, tuple[Window, ...]] = {}
    for table, due in missing.items():
        own = set(due)
        if table in states:
            champion = champion_since if table in BY_CHAMPIONS else LONG_AGO
            own &= {
                window
                for window, state in states[table].items()
                if state.standing != Standing.empty
                and max(arrived.get(state.inputs_at, LONG_AGO), champion) + COMPUTED_IN <= now
            }
        upstream = {w for read in reads_of(use_case, table) for w in lacking.get(read.table, ())}
        of_its_own = own - upstream
        late[table] = tuple(window for window in due if window in of_its_own)
        lacking[table] = own | (upstream & set(due))
    return late


def _snapshot_times(lake: Lake, snapshots: Collection[int]) -> dict[int, datetime]:
    """When snapshots were made, also of those that have expired."""
    with lake.cursor() as cursor:
        rows = cursor.execute(
            f"""SELECT snapshot, timezone('UTC', made_at) FROM {lake.commits(cursor, timed=True)}
            WHERE snapshot IN (SELECT unnest(?::BIGINT[]))""",
            [sorted(snapshots)],
        ).fetchall()
    return {snapshot: at.replace(tzinfo=UTC) for snapshot, at in rows}


def _begins(use_case: UseCase, table: str, serving: Sequence[Promotion]) -> datetime | None:
    """From when on a table can have rows; None where no champion has ever made any."""
    # An endpoint of others predicts without a champion, from when on it is declared.
    if table not in BY_CHAMPIONS or (table == "predictions" and use_case.scored_by_any_version):
        return use_case.calendar.start
    first = min((promotion.effective_from for promotion in serving), key=utc, default=None)
    return first and use_case.calendar.window_at(first).start


def _due_windows(use_case: UseCase, table: str, since: datetime, now: datetime) -> Iterator[Window]:
    end = min(now, use_case.partitions.closes_at or now, key=utc)
    if end.astimezone(UTC) <= since.astimezone(UTC):
        return
    for window in use_case.calendar.windows(Window(since, end)):
        if due_at(use_case, table, window).astimezone(UTC) > now.astimezone(UTC):
            return
        yield window


def is_over(use_case: UseCase, now: datetime) -> bool:
    """Whether the history has ended: what lacks of it then is late no more."""
    closes = use_case.partitions.closes_at
    return closes is not None and closes.astimezone(UTC) <= now.astimezone(UTC)


def _newest_windows(lake: Lake, use_case: UseCase) -> dict[str, Window | None]:
    found: dict[str, Window | None] = {}
    with lake.cursor() as cursor:
        # Nobody asks on some days, which is nothing to be alarmed about.
        asked_for = {*LOGGED_SOURCES, *LIVE_REPORTS}
        for table in (table for table in tables_of(use_case) if table not in asked_for):
            try:
                relation = lake.relation(cursor, use_case.name, table)
            except TableNotFound:
                found[table] = None
                continue
            row = cursor.execute(f"SELECT max({WINDOW_START}) FROM {relation}").fetchone()
            start = row[0] if row else None
            found[table] = start and use_case.calendar.window_stored(start)
    return found

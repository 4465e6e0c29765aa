"""The calendar that the windows of a use case's tables were written with.

It stands in the comment of each table with windows, from the transaction that creates the table on.
Under another calendar the same row would lie in another window: a write would leave it twice, a
read would miss it. So both are refused until the rows have been moved.
"""

import json
from dataclasses import dataclass

import duckdb

from ml_platform.errors import CalendarChanged
from ml_platform.spec.queries import literal
from ml_platform.spec.windows import Cadence, Calendar
from ml_platform.storage.tables import Table


@dataclass(frozen=True)
class StoredCalendar:
    """What a table says of its windows."""

    cadence: str
    start: str
    """Start of the first window, with its offset."""
    timezone: str
    week_starts: str | None = None
    """Of weekly windows alone."""
    since: int = 0
    """Snapshot from which on the rows lie in these windows; 0 where they always have."""

    @classmethod
    def of(cls, calendar: Calendar, since: int = 0) -> "StoredCalendar":
        """What a table that is written by a calendar says."""
        return cls(
            cadence=str(calendar.cadence),
            start=calendar.start.isoformat(),
            timezone=str(calendar.timezone),
            week_starts=(str(calendar.week_starts) if calendar.cadence is Cadence.weekly else None),
            since=since,
        )

    @classmethod
    def read(cls, comment: str) -> "StoredCalendar":
        """The calendar of a comment that `text` made."""
        return cls(**json.loads(comment)["calendar"])

    @property
    def text(self) -> str:
        """The comment of a table."""
        return json.dumps({"calendar": self.__dict__})

    def has_windows_of(self, calendar: Calendar) -> bool:
        """Whether a row lies in the same window by both, wherever the first window begins."""
        other = StoredCalendar.of(calendar)
        return (self.cadence, self.timezone, self.week_starts) == (
            other.cadence, other.timezone, other.week_starts,
        )  # fmt: skip

    def is_of(self, calendar: Calendar) -> bool:
        """Whether it is the same calendar."""
        return self.has_windows_of(calendar) and self.start == calendar.start.isoformat()

    def __str__(self) -> str:
        week = f", weeks from {self.week_starts}" if self.week_starts else ""
        return f"{self.cadence} from {self.start} in {self.timezone}{week}"


def stored_calendars(
    cursor: duckdb.DuckDBPyConnection, schema: str
) -> dict[str, StoredCalendar | None]:
    """The calendar of each table of a use case; None of tables without windows."""
    rows = cursor.execute(
        f"""SELECT table_name, comment FROM duckdb_tables()
        WHERE database_name = 'lake' AND schema_name = {literal(schema)} ORDER BY ALL"""
    ).fetchall()
    return {name: StoredCalendar.read(said) if said else None for name, said in rows}


def require_calendar(
    cursor: duckdb.DuckDBPyConnection,
    schema: str,
    calendar: Calendar,
    snapshot: int | None = None,
) -> dict[str, StoredCalendar | None]:
    """Raise CalendarChanged where a table of a use case was written by another calendar.

    snapshot: one that is to be read; older ones than the last change of the calendar hold rows in
    other windows. Returns what `stored_calendars` does.
    """
    found = stored_calendars(cursor, schema)
    for name, stored in found.items():
        if stored is not None and not stored.is_of(calendar):
            raise CalendarChanged(_changed(schema, name, str(stored), calendar))
        if stored is not None and snapshot is not None and snapshot < stored.since:
            raise CalendarChanged(
                f"snapshot {snapshot} of {schema} lies before snapshot {stored.since}, at which "
                "rows were moved to the windows of another calendar; train a version since then, "
                "or read the snapshot with DuckDB"
            )
    return found


def settle_calendar(
    transaction: duckdb.DuckDBPyConnection, table: Table, calendar: Calendar, since: int = 0
) -> None:
    """Say in a table's comment by which calendar its windows are."""
    said = StoredCalendar.of(calendar, since).text
    transaction.execute(f"COMMENT ON TABLE {table.sql} IS {literal(said)}")


def _changed(schema: str, name: str, stored: str, calendar: Calendar) -> str:
    return (
        f"{schema}.{name} was written by the calendar {stored}; `partitions` now says "
        f"{StoredCalendar.of(calendar)}. Under it rows would lie twice or be missed: change "
        f"`partitions` back, or move what is stored: ml-platform recalendar {schema}"
    )

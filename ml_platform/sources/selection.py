"""Which rows of a database are asked for, and how that is said to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from ml_platform.spec.inputs import Source
from ml_platform.spec.queries import literal

WITH_ZONE = "TIMESTAMP WITH TIME ZONE"
TIMES = frozenset({"TIMESTAMP", "DATE", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", WITH_ZONE})
INTEGERS = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"})
# Instants on other clocks than that of the use case are this far from it at most.
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Selection:
    """Rows that are asked for; who answers may give more of them, and never fewer.

    Rows without a readable event time are part of every answer.
    """

    start: datetime | None = None
    """First moment of event time, in UTC without an offset; None where there is no bound."""
    end: datetime | None = None
    since: datetime | int | None = None
    """Lowest high-water value, a moment or a number; None for all."""

    @property
    def is_everything(self) -> bool:
        return self.start is None and self.end is None and self.since is None


@dataclass(frozen=True)
class Bounded:
    """A column that rows are asked for by."""

    sql: str
    """Its name as the database writes it."""
    found: str
    """Its type in the database, as DuckDB calls it."""
    declared: str


@dataclass(frozen=True)
class Dialect:
    """How one kind of database writes what DuckDB writes otherwise."""

    quote: Callable[[str], str]
    has_zones: bool = True
    """Whether moments are written with their offset; else as they are on the session's clock."""
    moment: str = "{type} {text}"
    """A literal of a time."""


def bounds(
    source: Source, found: Mapping[str, str], types: Mapping[str, str], quoted: Callable[[str], str]
) -> tuple[Bounded, Bounded]:
    """The columns that rows are asked for by: event time and high water.

    found: types of the table's columns; types: DuckDB's names of those that are declared.
    """
    names = {name.lower(): name for name in found}
    event, mark = (
        Bounded(quoted(names[column.lower()]), found[names[column.lower()]], types[column])
        for column in (source.event_time, str(source.high_water))
    )
    return event, mark


def where_sql(
    selection: Selection, event: Bounded, mark: Bounded, dialect: Dialect, timezone: str
) -> str | None:
    """SQL that holds for all rows that are asked for, and for few others; None for all rows.

    timezone: of times without an offset.
    """
    write = _Writer(dialect, timezone)
    parts = []
    if (selection.start or selection.end) and event.found in TIMES:
        inside = [
            *(
                [f"{event.sql} >= {write.moment(event, selection.start, -1)}"]
                if selection.start
                else []
            ),
            *([f"{event.sql} < {write.moment(event, selection.end, 1)}"] if selection.end else []),
        ]
        # MySQL keeps the day 0, others infinity: no event time can be read of these.
        odd = (f"{event.sql} < {write.year(event, 1000)}", f"{event.sql} >= {write.year(event)}")
        parts.append(f"({' AND '.join(inside)} OR {event.sql} IS NULL OR {' OR '.join(odd)})")
    if isinstance(selection.since, datetime) and mark.found in TIMES:
        parts.append(f"{mark.sql} >= {write.moment(mark, selection.since, -1)}")
    if isinstance(selection.since, int) and mark.found in INTEGERS:
        parts.append(f"{mark.sql} >= {selection.since:d}")
    return " AND ".join(parts) or None


@dataclass(frozen=True)
class _Writer:
    dialect: Dialect
    timezone: str

    def moment(self, column: Bounded, moment: datetime, away: int) -> str:
        """A bound; where clocks may differ, a day further away."""
        instant = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        if column.found == WITH_ZONE and self.dialect.has_zones:
            exact = column.declared == WITH_ZONE
            return self._written(column, f"{instant + (0 if exact else away) * DAY:%F %T.%f}+00")
        exact = self.timezone in {"UTC", "Etc/UTC"} and column.found == "TIMESTAMP"
        exact = exact and column.declared in {"TIMESTAMP", WITH_ZONE}
        shown = instant.astimezone(ZoneInfo(self.timezone)) + (0 if exact else away) * DAY
        return self._written(column, f"{shown:%F %T.%f}")

    def year(self, column: Bounded, year: int = 9999) -> str:
        offset = "+00" if column.found == WITH_ZONE and self.dialect.has_zones else ""
        return self._written(column, f"{year}-01-01 00:00:00{offset}")

    def _written(self, column: Bounded, text: str) -> str:
        kind = WITH_ZONE if column.found == WITH_ZONE and self.dialect.has_zones else "TIMESTAMP"
        return self.dialect.moment.format(type=kind, text=literal(text))

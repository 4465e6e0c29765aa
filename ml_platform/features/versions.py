"""Versions of computed rows: what features and labels were before their sources were corrected.

Between two corrections that a window sees nothing of it changes. So the window is computed once for
each of these intervals that rows of it can be asked about in, and of rows that differ every version
is kept in `[_known_from, _known_until)`, the current one included. A window whose sources nobody
corrected after it began costs nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import duckdb

from ml_platform.features.answers import Answers
from ml_platform.features.intervals import Interval, intervals_of, runs_of
from ml_platform.sources.contract import instant
from ml_platform.sources.known import KnownVersions
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import KNOWN_FROM, KNOWN_UNTIL, UseCase, version_table
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake, Replacement, Table, Written
from ml_platform.storage.comparison import alike_sql
from ml_platform.storage.data_files import DataFiles


@dataclass(frozen=True)
class Computed:
    """A table with windows, and how its rows are computed as its sources were known then."""

    table: Table
    reads: Sequence[str]
    """Sources."""
    reach: Callable[[Window], Window]
    """The range of event time of the sources that a window sees."""
    query: Callable[[Window, datetime | None], str]
    """The rows of a range, from sources as they were known at a moment; None for the newest."""
    known_from: str
    """Column from when on the first version of a row is known."""
    answers: Answers | None = None
    """What else is said of the rows of the range."""
    files: DataFiles | None = None
    """Where the newest rows are, should another engine have computed them."""

    @property
    def versions(self) -> Table:
        """Every version of the rows that were corrected."""
        return replace(
            self.table,
            name=version_table(self.table.name),
            columns={**self.table.columns, KNOWN_FROM: "TIMESTAMPTZ", KNOWN_UNTIL: "TIMESTAMPTZ"},
            order=(*self.table.order, KNOWN_FROM),
        )


def replacements(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    computed: Computed,
    window_range: Window,
    snapshot: int,
) -> list[Replacement]:
    """What the windows of a range are to hold: their rows, and what these were before.

    Where the use case takes revised values nobody asks what they were, and none are kept.
    """
    known = KnownVersions(lake, cursor, use_case, snapshot)
    asked = use_case.is_as_known
    seen = intervals_of(known, computed.reads, computed.reach, window_range) if asked else ()
    intervals, answers = list(seen), computed.answers
    versions = computed.versions
    newest = computed.query(window_range, None)
    rows = Replacement(computed.table, newest, time="event_time", files=computed.files)
    if not intervals and not (asked and answers):
        is_stored = versions.name in known.tables
        nothing = ", ".join(f"NULL::{k} AS {quote(c)}" for c, k in versions.columns.items())
        nobody = Replacement(versions, f"SELECT {nothing} WHERE false", time="event_time")
        return [_current(rows, computed), *([nobody] if is_stored else [])]
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE __current AS {rows.query}")
    rows = replace(rows, query="FROM temp.__current")
    _compute(cursor, computed, intervals)
    if answers:
        _add_answered(cursor, computed, answers)
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE __new_versions AS {_new_versions_sql(computed)}")
    kept = cursor.execute("FROM temp.__new_versions LIMIT 1").fetchall()
    added = Replacement(versions, "FROM temp.__new_versions", time="event_time")
    is_stored = versions.name in known.tables
    return [_current(rows, computed), *([added] if kept or is_stored else [])]


def _current(rows: Replacement, computed: Computed) -> Replacement:
    """The rows that hold now, with what else is said of them."""
    if computed.answers is None:
        return rows
    query = computed.answers.current_sql(rows.query, tuple(computed.table.columns))
    return replace(rows, query=query)


def combined(written: Sequence[Written]) -> Written:
    """What a table and its versions came to, as one."""
    rows, *versions = written
    if not versions:
        return rows
    (added,) = versions
    digests = {
        window: f"{digest}+{added.versions[window]}" if added.rows[window] else digest
        for window, digest in rows.versions.items()
    }
    return replace(rows, changed=rows.changed | added.changed, versions=digests)


def _compute(
    cursor: duckdb.DuckDBPyConnection, computed: Computed, intervals: Sequence[Interval]
) -> None:
    """The rows of each interval in `temp.__interval_rows`, with its bounds."""
    columns = ", ".join(f"{quote(c)} {kind}" for c, kind in computed.table.columns.items())
    cursor.execute(
        f"CREATE OR REPLACE TEMP TABLE __interval_rows "
        f"({columns}, __since TIMESTAMPTZ, __until TIMESTAMPTZ)"
    )
    key = ", ".join(quote(column) for column in computed.table.order)
    # Rows that are twice there were refused then.
    alone = f"QUALIFY count(*) OVER (PARTITION BY {key}) = 1"
    alike: dict[datetime | None, list[Interval]] = {}
    for interval in intervals:
        alike.setdefault(interval.as_of if interval.until else None, []).append(interval)
    for as_of, shown in alike.items():
        for run in runs_of(shown):
            if as_of is None:
                query = "FROM temp.__current"
            else:
                query = computed.query(Window(run[0].window.start, run[-1].window.end), as_of)
            bounds = ", ".join(
                f"({instant(i.window.start)}, {instant(i.window.end)}, {_moment(i.since)}, "
                f"{_moment(i.until)})"
                for i in run
            )
            cursor.execute(
                f"""INSERT INTO temp.__interval_rows BY NAME
                SELECT r.*, b.since AS __since, b.until AS __until FROM ({query}) r
                JOIN (VALUES {bounds}) b(first, last, since, until)
                ON r.event_time >= b.first AND r.event_time < b.last
                {alone}"""
            )


def _add_answered(cursor: duckdb.DuckDBPyConnection, computed: Computed, answers: Answers) -> None:
    """Put what else is said of rows in `temp.__interval_rows`, also where nothing was corrected."""
    key = ", ".join(quote(column) for column in computed.table.order)
    cursor.execute(
        f"""INSERT INTO temp.__interval_rows BY NAME SELECT * FROM temp.__current
        SEMI JOIN ({answers.given}) USING ({key})
        ANTI JOIN (FROM temp.__interval_rows WHERE __until IS NULL) USING ({key})"""
    )
    answered = answers.with_answers_sql("FROM temp.__interval_rows")
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE __interval_rows AS {answered}")


def _moment(moment: datetime | None) -> str:
    return "NULL::TIMESTAMPTZ" if moment is None else instant(moment.astimezone(UTC))


def _new_versions_sql(computed: Computed) -> str:
    """The versions of rows that are not the same in all intervals, from `temp.__interval_rows`."""
    table = computed.table
    key = ", ".join(quote(column) for column in table.order)
    by_time = f"(PARTITION BY {key} ORDER BY __until NULLS LAST)"
    same = " AND ".join(
        alike_sql(f"before.{quote(column)}", quote(column), kind, table.tolerance)
        for column, kind in table.columns.items()
        if column not in table.order
    )
    names = ", ".join(quote(column) for column in table.columns)
    values = ", ".join(f"{quote(c)} := {quote(c)}" for c in table.columns)
    began = f"greatest(first_value(__since) OVER island, {quote(computed.known_from)})"
    return f"""SELECT {names}, __began AS {KNOWN_FROM}, __until AS {KNOWN_UNTIL}
        FROM (SELECT *, {began} AS __began,
                row_number() OVER (PARTITION BY {key}, __island ORDER BY __until DESC NULLS FIRST)
                    AS __last
            FROM (SELECT *, sum(__other::INTEGER) OVER {by_time} AS __island
                FROM (SELECT *, row_number() OVER {by_time} = 1
                        OR lag(__until) OVER {by_time} IS DISTINCT FROM __since
                        OR NOT ({same or "true"}) AS __other
                    FROM (SELECT *, lag(struct_pack({values})) OVER {by_time} AS before
                        FROM temp.__interval_rows)))
            WINDOW island AS (PARTITION BY {key}, __island ORDER BY __until NULLS LAST
                ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING))
        WHERE __last = 1 AND (__until IS NULL OR __began < __until)
        QUALIFY count(*) OVER (PARTITION BY {key}) > 1 OR __until IS NOT NULL
            OR __began > {quote(computed.known_from)}"""

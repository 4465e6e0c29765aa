"""Predictions or features into a table of others, each partition in one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import duckdb

from ml_platform.errors import EmptyPartition, TableNotFound
from ml_platform.features import inside_sql, windows_sql
from ml_platform.publish.opening import opened_target
from ml_platform.publish.record import record_table, target_of
from ml_platform.publish.target import STAGED, Part, Target, TargetTable
from ml_platform.sources.known import KnownVersions
from ml_platform.spec.publication import Publication
from ml_platform.spec.publishing import example_types
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Cadence, Calendar, Window
from ml_platform.storage import Basis, Commit, Lake, Written, compute_windows, replace_windows
from ml_platform.storage.tables import WINDOW_START, naive_utc


@dataclass(frozen=True)
class Counted:
    """Rows of one partition: those to publish, and those that the table of others holds then."""

    rows_in: int
    rows_out: int

    @property
    def is_complete(self) -> bool:
        return self.rows_in == self.rows_out


@dataclass(frozen=True)
class PublishReport:
    """What was published; windows that hold nothing are left out."""

    target: str
    """The table and the mode."""
    written: Written
    """What the lake notes of it."""
    windows: Mapping[Window, Counted]


def publish_range(
    lake: Lake, use_case: UseCase, publication: str, stretch: Window, commit: Commit
) -> PublishReport:
    """Make a table of others hold the predictions, or features, of a range; note it in the lake.

    Each partition is one transaction there, so readers see a whole old partition or a whole new
    one. What was published before the process died is published again by the next one, which
    changes nothing. Publishers of one table take turns, and each reads the lake in its turn:
    whoever comes last has read what holds then.
    Raises TableNotFound or EmptyPartition where there is nothing to publish, TargetError where the
    database refuses, TargetUnavailable where it did not answer for as long as the settings allow.
    """
    declared = use_case.publish[publication]
    is_hourly = use_case.partitions.cadence is Cadence.hourly
    table = TargetTable(
        declared.path, declared.types, declared.keyed_by, declared.mode, declared.lengths,
        declared.partition or ("event_hour" if is_hourly else "event_date"), is_hourly,
    )  # fmt: skip
    record = record_table(use_case, publication)

    def compute(cursor: duckdb.DuckDBPyConnection, basis: Basis) -> PublishReport:
        with (
            opened_target(lake.settings, declared.database) as target,
            target.exclusive(f"{use_case.name}/{publication} {declared.table}"),
        ):
            now = replace(basis, snapshot=lake.snapshot(cursor))
            commit.begins(now.snapshot)
            staged = _stage(cursor, lake, use_case, declared, stretch, now.snapshot)
            held = _published_before(cursor, lake, use_case, publication, stretch)
            windows = list(use_case.calendar.windows(stretch))
            concerned = [w for w in windows if naive_utc(w.start) in staged.keys() | held]
            if not concerned:
                what = f"features of {declared.features}" if declared.features else "predictions"
                raise EmptyPartition(f"{use_case.name} has no {what} in {stretch}")
            target.prepare(cursor, table)
            counted = _write(cursor, target, table, use_case.calendar, concerned, staged)
            cursor.execute(f"CREATE OR REPLACE TEMP TABLE __counted AS {_counted_sql(counted)}")
            written = replace_windows(
                lake, cursor, record, _record_sql(declared, now.snapshot),
                time="window_at", calendar=use_case.calendar, stretch=stretch, commit=commit,
                basis=now,
            )  # fmt: skip
        return PublishReport(target_of(declared), written, counted)

    return compute_windows(lake, use_case, record.name, stretch, commit, compute)


def _write(
    cursor: duckdb.DuckDBPyConnection,
    target: Target,
    table: TargetTable,
    calendar: Calendar,
    windows: Sequence[Window],
    staged: Mapping[datetime, int],
) -> dict[Window, Counted]:
    found = {}
    for window in windows:
        start = naive_utc(window.start)
        label = f"{start:%Y-%m-%d-%H}" if table.is_hourly else calendar.key(window)
        part = Part(start, naive_utc(window.end), staged.get(start, 0), label)
        found[window] = Counted(part.rows, target.write(cursor, table, part))
    return found


def _stage(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    declared: Publication,
    stretch: Window,
    snapshot: int,
) -> dict[datetime, int]:
    """Rows to publish in `STAGED`; how many there are by start of the window."""
    relation = lake.relation(cursor, use_case.name, declared.reads, snapshot)
    rows = f"(FROM {relation} WHERE {windows_sql(use_case, stretch)})"
    if declared.reads_example:
        rows = _with_examples(cursor, lake, use_case, stretch, snapshot, rows)
    named = quote(declared.reads)
    items = ", ".join(declared.items)
    version = "NULL::INTEGER" if declared.features else f"{named}.model_version"
    latest = ""
    if "event_time" not in declared.keyed_by:
        # Of several predictions of one key an upsert keeps the latest.
        by = ", ".join((WINDOW_START, *map(quote, declared.keyed_by)))
        rank = f"row_number() OVER (PARTITION BY {by} ORDER BY event_time DESC)"
        latest = f"QUALIFY {rank} = 1"
    cursor.execute(
        f"""CREATE OR REPLACE TEMP TABLE __published AS
        FROM (SELECT {named}.{WINDOW_START}, {version} AS __version, {items}
        FROM {rows} AS {named}) {latest}"""
    )
    counts = cursor.execute(f"SELECT {WINDOW_START}, count(*) FROM {STAGED} GROUP BY 1").fetchall()
    return dict(counts)


def _with_examples(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    stretch: Window,
    snapshot: int,
    predicted: str,
) -> str:
    """Predictions beside their examples, each in the version that was known at its own time."""
    examples = use_case.examples
    source = use_case.sources[examples.source]
    time = quote(source.event_time)
    where = windows_sql(use_case, stretch)
    at = f"CAST({time} AS TIMESTAMPTZ)" if use_case.is_as_known else None
    rows = KnownVersions(lake, cursor, use_case, snapshot).source_sql(examples.source, where, at)
    wanted = example_types(use_case)
    keys = [f"{quote(c)} AS __key{n}" for n, c in enumerate(examples.entity)]
    plain = [quote(c) for c in wanted if c not in examples.request]
    columns = ", ".join((*keys, f"{time} AS __time", *plain, *examples.columns))
    same = " AND ".join(f"p.{quote(c)} = e.__key{n}" for n, c in enumerate(examples.entity))
    shown = ", ".join(f"e.{quote(c)}" for c in wanted)
    return (
        f"(SELECT p.*, {shown} FROM {predicted} p LEFT JOIN (SELECT {columns} FROM {rows} "
        f"WHERE {inside_sql(stretch, source.event_time)} AND {where}) e "
        f"ON {same} AND p.event_time = e.__time)"
    )


def _published_before(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    publication: str,
    stretch: Window,
) -> set[datetime]:
    """Starts of windows that the table of others may hold rows of."""
    try:
        relation = lake.relation(cursor, use_case.name, record_table(use_case, publication).name)
    except TableNotFound:
        return set()
    rows = cursor.execute(
        f"SELECT {WINDOW_START} FROM {relation} WHERE {windows_sql(use_case, stretch)}"
    ).fetchall()
    return {start for (start,) in rows}


def _counted_sql(counted: Mapping[Window, Counted]) -> str:
    rows = ", ".join(
        f"(TIMESTAMP '{naive_utc(window.start)}', {each.rows_in}, {each.rows_out})"
        for window, each in counted.items()
        if each.rows_in or each.rows_out
    )
    return (
        f"SELECT * FROM (VALUES {rows or '(NULL::TIMESTAMP, 0, 0)'}) AS c(start, rows_in, rows_out)"
    )


def _record_sql(declared: Publication, snapshot: int) -> str:
    """What is noted of each partition that holds rows: counts, versions, a digest of the rows."""
    columns = ", ".join(quote(column) for column in declared.types)
    target = literal(target_of(declared))
    return f"""SELECT timezone('UTC', c.start) AS window_at, {target} AS target, c.rows_in,
            c.rows_out, coalesce(s.content, '0') AS content,
            coalesce(s.model_versions, []) AS model_versions,
            {snapshot:d} AS snapshot, TIMESTAMPTZ '{datetime.now(UTC)}' AS published_at
        FROM temp.__counted c LEFT JOIN (
            SELECT {WINDOW_START}, CAST(sum(hash({columns})::HUGEINT) AS VARCHAR) AS content,
                list_sort(list(DISTINCT __version) FILTER (__version IS NOT NULL))
                    AS model_versions
            FROM {STAGED} GROUP BY 1) s ON s.{WINDOW_START} = c.start
        WHERE c.start IS NOT NULL"""

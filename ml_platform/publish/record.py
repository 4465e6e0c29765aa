"""What the lake notes of each partition that was published."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb

from ml_platform.errors import TableNotFound
from ml_platform.features import windows_sql
from ml_platform.publish.target import STAGED
from ml_platform.spec.publication import Publication
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.use_case import UseCase, published_table
from ml_platform.spec.windows import Window
from ml_platform.storage import Basis, Commit, Lake, Table, Written, replace_windows
from ml_platform.storage.tables import WINDOW_START, naive_utc


@dataclass(frozen=True)
class Counted:
    """Rows of one partition: those to publish, and those that the table of others holds then."""

    rows_in: int
    rows_out: int

    @property
    def is_complete(self) -> bool:
        return self.rows_in == self.rows_out


def record_table(use_case: UseCase, publication: str) -> Table:
    """One row for each partition with rows in the table of others."""
    return Table(
        schema=use_case.name,
        name=published_table(publication),
        columns={
            "window_at": "TIMESTAMPTZ",
            "target": "VARCHAR",
            "rows_in": "BIGINT",
            "rows_out": "BIGINT",
            "content": "VARCHAR",
            "model_versions": "INTEGER[]",
            "snapshot": "BIGINT",
            "published_at": "TIMESTAMPTZ",
        },
        order=("window_at",),
        stamps=("snapshot", "published_at"),
    )


def target_of(publication: Publication) -> str:
    """The table of others and what is done there, in words."""
    return f"{publication.table} ({publication.mode})"


def note(
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    publication: str,
    window_range: Window,
    counted: Mapping[Window, Counted],
    commit: Commit,
    basis: Basis,
) -> Written:
    """Note in the lake what was published of a range; `STAGED` holds the rows.

    Raises InputsChanged where the lake has others by now, and CommitConflict.
    """
    declared = use_case.publish[publication]
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE __counted AS {_counted_sql(counted)}")
    return replace_windows(
        basis.lake, cursor, record_table(use_case, publication),
        _record_sql(declared, basis.snapshot), time="window_at", calendar=use_case.calendar,
        window_range=window_range, commit=commit, basis=basis,
    )  # fmt: skip


def published_before(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    publication: str,
    window_range: Window,
) -> set[datetime]:
    """Starts of windows that the table of others may hold rows of."""
    try:
        relation = lake.relation(cursor, use_case.name, record_table(use_case, publication).name)
    except TableNotFound:
        return set()
    rows = cursor.execute(
        f"SELECT {WINDOW_START} FROM {relation} WHERE {windows_sql(use_case, window_range)}"
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

"""Tables of the lake: created when first written to, widened when a declaration gains columns."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import duckdb

from ml_platform.errors import ColumnChanged, DuplicateRows
from ml_platform.spec.queries import literal, quote
from ml_platform.storage.known_files import WINDOW_START
from ml_platform.storage.lake import Commit, Lake

__all__ = [
    "LAYOUT",
    "SNAPSHOT",
    "WINDOW_START",
    "Table",
    "canonical_types",
    "duplicated",
    "ensure_table",
    "evolve",
    "naive_utc",
    "require_types",
    "widened_sql",
]

SNAPSHOT = "_snapshot"
"""Column of tables with windows: the snapshot since which a row's window holds what it holds.

Rows are written again where a file is, so DuckLake's own `snapshot_id` of a row may be later.
"""
LAYOUT = f"year({WINDOW_START}), month({WINDOW_START})"
"""Windows of one month share files, however fine they are."""


@dataclass(frozen=True)
class Table:
    """A table of a use case: where it is, what it holds, and how its rows are ordered."""

    schema: str
    name: str
    columns: Mapping[str, str]
    """Names and DuckDB types, without `window_start` and `_snapshot`, which storage adds."""
    order: tuple[str, ...]
    """Columns by which the rows of a window are sorted; together they name a row."""
    stamps: tuple[str, ...] = ()
    """Columns that say when and from what a row was made: alone they do not make it a new row."""
    tolerance: float = 0.0
    """Relative difference up to which two floating-point numbers make no new row.

    For computed tables: DuckDB's threads add floats in another order each time.
    """

    @property
    def sql(self) -> str:
        return f"lake.{quote(self.schema)}.{quote(self.name)}"


def duplicated(table: Table, row: Sequence[Any]) -> DuplicateRows:
    """That a table would hold a row more than once; row: values of `table.order`, and how often."""
    named = ", ".join(f"{c} {v}" for c, v in zip(table.order, row[:-1], strict=True))
    return DuplicateRows(
        f"{table.schema}.{table.name}: {row[-1]} rows with {named}; there may be one: "
        "group by these columns in the query, or pick one row with QUALIFY row_number() … = 1"
    )


def naive_utc(moment: datetime) -> datetime:
    """The form in which `window_start` is stored."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def ensure_table(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    table: Table,
    commit: Commit,
    partitioned: bool = True,
) -> None:
    """Create the table, or add the columns it lacks; ColumnChanged where a column's type did."""
    if _missing(cursor, table, partitioned):
        # What is written along belongs to the rows, which follow.
        alone = replace(commit, also=None)
        lake.transact(cursor, alone, lambda t: evolve(t, table, partitioned))


def evolve(transaction: duckdb.DuckDBPyConnection, table: Table, partitioned: bool = True) -> bool:
    """As `ensure_table`, within a transaction; whether anything had to be done."""
    missing = _missing(transaction, table, partitioned)
    if missing.keys() == _wanted(table, partitioned).keys():
        columns = ", ".join(f"{quote(name)} {kind}" for name, kind in missing.items())
        transaction.execute(f"CREATE SCHEMA IF NOT EXISTS lake.{quote(table.schema)}")
        transaction.execute(f"CREATE TABLE {table.sql} ({columns})")
        if partitioned:
            transaction.execute(f"ALTER TABLE {table.sql} SET PARTITIONED BY ({LAYOUT})")
    else:
        for name, kind in missing.items():
            transaction.execute(f"ALTER TABLE {table.sql} ADD COLUMN {quote(name)} {kind}")
    return bool(missing)


def widened_sql(cursor: duckdb.DuckDBPyConnection, table: Table) -> str:
    """SQL of a stored table with windows, with nulls in columns that it is only about to gain.

    Raises ColumnChanged where a column's type did.
    """
    missing = _missing(cursor, table, partitioned=True)
    if not missing:
        return table.sql
    nulls = ", ".join(f"NULL::{kind} AS {quote(name)}" for name, kind in missing.items())
    return f"(SELECT *, {nulls} FROM {table.sql})"


def _wanted(table: Table, partitioned: bool) -> dict[str, str]:
    if not partitioned:
        return dict(table.columns)
    return {WINDOW_START: "TIMESTAMP", **table.columns, SNAPSHOT: "BIGINT"}


def _missing(cursor: duckdb.DuckDBPyConnection, table: Table, partitioned: bool) -> dict[str, str]:
    """Columns that are declared and not stored, in order; ColumnChanged where a type did."""
    wanted = _wanted(table, partitioned)
    stored = dict(
        cursor.execute(
            f"""SELECT lower(column_name), data_type FROM duckdb_columns()
            WHERE database_name = 'lake' AND schema_name = {literal(table.schema)}
            AND table_name = {literal(table.name)}"""
        ).fetchall()
    )
    known = {name: kind for name, kind in wanted.items() if name.lower() in stored}
    for (name, kind), now in zip(
        known.items(), canonical_types(cursor, known.values()), strict=True
    ):
        if now != stored[name.lower()]:
            raise ColumnChanged(
                f"{table.schema}.{table.name}: column '{name}' is stored as "
                f"{stored[name.lower()]}, now it would be {kind}; {_path(table, name)}"
            )
    return {name: kind for name, kind in wanted.items() if name not in known}


def require_types(cursor: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Raise ColumnChanged where a column of a table is stored as another type than declared."""
    _missing(cursor, table, partitioned=True)


def _path(table: Table, column: str) -> str:
    """What to do about a column whose type changed."""
    if column == "label" or column in table.order:
        return (
            "keys and labels keep their type: change it back, or declare the use case under "
            "another name, which computes everything of it anew"
        )
    return (
        "stored columns keep their type: cast it back in the query, or give it another name; one "
        "of a source: declare the source under another name, which reads its files again"
    )


def canonical_types(cursor: duckdb.DuckDBPyConnection, kinds: Collection[str]) -> tuple[str, ...]:
    """DuckDB's own names of types, INTEGER for INT."""
    if not kinds:
        return ()
    row = cursor.execute(
        f"SELECT {', '.join(f'typeof(CAST(NULL AS {kind}))' for kind in kinds)}"
    ).fetchone()
    return row or ()

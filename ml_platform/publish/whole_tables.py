"""Tables that are created with all their rows at once."""

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from ml_platform.errors import TargetError
from ml_platform.publish.mysql import LONGEST_TEXT
from ml_platform.publish.opening import opened_target
from ml_platform.publish.sql_target import SqlTarget
from ml_platform.publish.target import STAGED, Part, TargetTable
from ml_platform.settings import Settings
from ml_platform.spec.queries import literal, quote
from ml_platform.storage.extensions import connect_with
from ml_platform.storage.tables import naive_utc

BEGIN = naive_utc(datetime(1970, 1, 1, tzinfo=UTC))
PARTITION = "window_start"
"""Column by which staged rows are distinguished."""


def write_whole_table(settings: Settings, database: str, path: tuple[str, ...], file: Path) -> None:
    """Create a table of a database of others with the rows of a Parquet file.

    path: schema, where one is named, and table. Readers see it once it is whole. Lists, structs and
    maps are texts of JSON there. Raises TargetError where there is such a table, or the database
    cannot hold the rows; TargetUnavailable where its server does not answer.
    """
    with opened_target(settings, database) as target, closing(connect_with()) as cursor:
        if not isinstance(target, SqlTarget):
            raise TargetError(f"'{database}' is a lake, and tables are written to databases only")
        cursor.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
        table, rows = _stage(cursor, TargetTable(path, {}, (), "append"), file)
        target.write_whole(cursor, table, Part(BEGIN, BEGIN, rows, "all"))


def _stage(
    cursor: duckdb.DuckDBPyConnection, table: TargetTable, file: Path
) -> tuple[TargetTable, int]:
    """Stage the rows of a file; the table with its columns, and how many rows there are."""
    held = f"read_parquet({literal(str(file))})"
    stored = {name: kind for name, kind, *_ in cursor.execute(f"DESCRIBE FROM {held}").fetchall()}
    if PARTITION in map(str.lower, stored):
        raise TargetError(f"a table cannot have a column '{PARTITION}'; rename it")
    items = ", ".join(_item_sql(name, kind) for name, kind in stored.items())
    cursor.execute(
        f"CREATE TEMP VIEW {STAGED.removeprefix('temp.')} AS "
        f"SELECT {items}, TIMESTAMP '{BEGIN}' AS {PARTITION} FROM {held}"
    )
    columns = {name: "VARCHAR" if _is_nested(kind) else kind for name, kind in stored.items()}
    texts = [name for name, kind in columns.items() if kind == "VARCHAR"]
    longest = "".join(f", max(length({quote(name)}))" for name in texts)
    row = cursor.execute(f"SELECT count(*){longest} FROM {STAGED}").fetchone()
    assert row is not None
    lengths = {
        name: length
        for name, length in zip(texts, row[1:], strict=True)
        if length is not None and length > LONGEST_TEXT
    }
    return replace(table, columns=columns, lengths=lengths), int(row[0])


def _item_sql(name: str, kind: str) -> str:
    quoted = quote(name)
    return f"CAST(to_json({quoted}) AS VARCHAR) AS {quoted}" if _is_nested(kind) else quoted


def _is_nested(kind: str) -> bool:
    return kind.startswith(("MAP(", "STRUCT(")) or kind.endswith("]")

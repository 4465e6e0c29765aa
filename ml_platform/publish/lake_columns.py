"""What columns of a lake's table hold: types that Spark, Hive and Trino read too."""

from collections.abc import Mapping, Sequence

import duckdb
import pyarrow as pa

from ml_platform.errors import TargetError
from ml_platform.publish.target import BATCH_ROWS, STAGED, Part, TargetTable
from ml_platform.spec.queries import literal, quote

STORED = "__stored_there"
"""Under this name rows of a table of others are shown to DuckDB."""
CASTS = {
    "TINYINT": "INTEGER", "SMALLINT": "INTEGER", "UTINYINT": "INTEGER", "USMALLINT": "INTEGER",
    "UINTEGER": "BIGINT", "UBIGINT": "DECIMAL(20, 0)", "HUGEINT": "DECIMAL(38, 0)",
    "JSON": "VARCHAR", "UUID": "VARCHAR", "TIME": "VARCHAR", "TIMESTAMP": "TIMESTAMPTZ",
    "TIMESTAMP_S": "TIMESTAMPTZ", "TIMESTAMP_MS": "TIMESTAMPTZ",
}  # fmt: skip
"""Types that are published as another one: those that one of the engines does not have.

A time without an offset is one of the use case's zone; all times are instants, in microseconds.
"""


def published_type(kind: str) -> str:
    """The DuckDB type that a column of a DuckDB type is published as.

    >>> published_type("UTINYINT"), published_type("ENUM('a', 'b')"), published_type("DOUBLE")
    ('INTEGER', 'VARCHAR', 'DOUBLE')
    """
    return "VARCHAR" if kind.startswith("ENUM(") else CASTS.get(kind, kind)


def typed_columns(table: TargetTable) -> list[str]:
    """Select items over the staged rows: each column as it is published."""
    return [
        f"CAST({quote(column)} AS {published_type(kind)}) AS {quote(column)}"
        for column, kind in table.columns.items()
    ]


def partition_column(table: TargetTable, part: Part | None = None) -> str:
    """Select item of the column that distinguishes partitions: a day, or an hour as text."""
    kind = "VARCHAR" if table.is_hourly else "DATE"
    value = "NULL" if part is None else literal(part.label)
    return f"CAST({value} AS {kind}) AS {quote(table.partition)}"


def no_rows_sql(items: Sequence[str]) -> str:
    """A query of select items over the staged rows that yields none of them."""
    return f"SELECT {', '.join(items)} FROM {STAGED} LIMIT 0"


def described(cursor: duckdb.DuckDBPyConnection, query: str) -> dict[str, str]:
    """Columns and DuckDB types of what a query yields."""
    return {name: kind for name, kind, *_ in cursor.execute(f"DESCRIBE {query}").fetchall()}


def arrow_reader(cursor: duckdb.DuckDBPyConnection, query: str) -> pa.RecordBatchReader:
    """Rows of a query as Arrow batches, whose times are in UTC and microseconds."""
    rows = cursor.execute(query).to_arrow_reader(BATCH_ROWS)
    schema = pa.schema([pa.field(each.name, _in_utc(each.type)) for each in rows.schema])
    # Another zone is another way to show the same instants: nothing is computed.
    return pa.RecordBatchReader.from_batches(schema, (batch.cast(schema) for batch in rows))


def _in_utc(kind: pa.DataType) -> pa.DataType:
    return pa.timestamp("us", "UTC") if pa.types.is_timestamp(kind) else kind


def later_sql(table: TargetTable, part: Part, relation: str) -> str:
    """The staged rows of a partition that a table holds, or holds a later one of their key."""
    same = " AND ".join(f"t.{quote(c)} = s.{quote(c)}" for c in table.key)
    staged = f"(FROM {STAGED} WHERE window_start = TIMESTAMP '{part.start}')"
    return f"{relation} t JOIN {staged} s ON {same} WHERE t.event_time >= s.event_time"


def require_keys(
    cursor: duckdb.DuckDBPyConnection, lake: str, table: TargetTable, part: Part
) -> None:
    """Refuse rows that no key can find again: nulls equal nothing."""
    nulls = " OR ".join(f"{quote(column)} IS NULL" for column in table.key)
    row = cursor.execute(
        f"SELECT count(*) FROM {STAGED} WHERE window_start = TIMESTAMP '{part.start}' AND ({nulls})"
    ).fetchone()
    if row and row[0]:
        raise TargetError(
            f"lake '{lake}': {row[0]} rows for {table.name} have a null in their key, "
            f"{', '.join(table.key)}; publish a value in its place: coalesce(…, '') AS …"
        )


def described_schema(cursor: duckdb.DuckDBPyConnection, schema: pa.Schema) -> dict[str, str]:
    """DuckDB types of the columns of an Arrow schema."""
    cursor.register(STORED, schema.empty_table())
    found = described(cursor, f"FROM {STORED}")
    cursor.unregister(STORED)
    return found


def count(cursor: duckdb.DuckDBPyConnection, relation: str) -> int:
    """Rows of a relation, given as what follows FROM."""
    row = cursor.execute(f"SELECT count(*) FROM {relation}").fetchone()
    return int(row[0]) if row else 0


def snapshots_of(cursor: duckdb.DuckDBPyConnection, part: Part) -> list[int]:
    """Snapshots that the staged rows of a partition were scored at."""
    rows = cursor.execute(
        f"SELECT DISTINCT snapshot FROM {STAGED} "
        f"WHERE window_start = TIMESTAMP '{part.start}' ORDER BY 1"
    ).fetchall()
    return [number for (number,) in rows]


def require_no_clash(lake: str, table: TargetTable) -> None:
    """Refuse a column of the name that distinguishes partitions."""
    if table.partition.lower() in {column.lower() for column in table.columns}:
        raise TargetError(
            f"lake '{lake}': {table.name} is partitioned by '{table.partition}', which is a column "
            "that is published as well; name one of them otherwise (`partition: …` names the first)"
        )


def require_columns(
    lake: str, table: TargetTable, stored: Mapping[str, str], wanted: Mapping[str, str]
) -> None:
    """Refuse a table that lacks columns, or has them with another type."""
    lowered = {name.lower() for name in stored}
    lacking = [f"{quote(c)} {kind}" for c, kind in wanted.items() if c.lower() not in lowered]
    if lacking:
        raise TargetError(
            f"lake '{lake}': {table.name} lacks columns; add them: ALTER TABLE {table.name} ADD "
            f"COLUMNS ({', '.join(lacking)})"
        )
    require_types(lake, table, stored, wanted)


def require_types(
    lake: str, table: TargetTable, stored: Mapping[str, str], wanted: Mapping[str, str]
) -> None:
    """Refuse columns that are there with another type than what is published has."""
    lowered = {name.lower(): kind for name, kind in stored.items()}
    others = [
        f"'{name}' is {there}, and {kind} is published"
        for name, kind in wanted.items()
        if (there := lowered.get(name.lower(), kind)) != kind
    ]
    if others:
        raise TargetError(
            f"lake '{lake}': {table.name} has columns of other types: {'; '.join(others)}; "
            "publish to another table, or cast: CAST(… AS …) AS …"
        )

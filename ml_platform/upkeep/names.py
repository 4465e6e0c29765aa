"""Who names snapshots: model versions, rows of the lake, the audit.

A row that names a snapshot says that what it was made of can be read there again. Columns of other
names hold snapshots, too, which are only ever compared with others: when a window changed, when a
computation began to read. What the commits of those said is kept in a table of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import duckdb

from ml_platform.registry import trained_snapshots
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.use_case import PLATFORM
from ml_platform.storage import Lake
from ml_platform.storage.lake import EXPIRED_COMMITS
from ml_platform.storage.tables import SNAPSHOT, WINDOW_START

NAMING = "snapshot"
"""Column, or detail of an audit row, with the number of a snapshot that is to be read again."""
COMPARED = frozenset({"ingestions", "emptied_windows", EXPIRED_COMMITS})
"""Tables whose column of that name is only compared with other numbers."""
INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UBIGINT", "HUGEINT")
AUDIT = (PLATFORM, "audit")


@dataclass(frozen=True)
class Named:
    """The snapshots that one table, or the versions of one model, name."""

    by: str
    """In words: `trips.predictions`, `model versions of trips`."""
    snapshots: frozenset[int]
    kept_for: timedelta | None = None
    """How long what it names is kept; None for as long as it names it."""


Tables = Mapping[tuple[str, str], timedelta]
"""By schema and table, how long the snapshots are kept that its rows name; others for good."""


def collect_names(lake: Lake, cursor: duckdb.DuckDBPyConnection, kept_for: Tables) -> list[Named]:
    """Everything that names snapshots now. Raises RegistryUnavailable."""
    versions = [
        Named(f"model versions of {name}", snapshots)
        for name, snapshots in sorted(trained_snapshots(lake.settings).items())
    ]
    return [*versions, *named_in_lake(lake, cursor, kept_for)]


def named_in_lake(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, kept_for: Tables, since: int | None = None
) -> list[Named]:
    """What rows of the lake name; since: only those that were written after a snapshot."""
    found = []
    for schema, table, is_windowed in _naming_tables(cursor):
        later = "" if since is None else f" AND {_written(is_windowed)} > {since:d}"
        rows = cursor.execute(
            f"SELECT DISTINCT {NAMING} FROM lake.{quote(schema)}.{quote(table)} "
            f"WHERE {NAMING} IS NOT NULL{later}"
        ).fetchall()
        snapshots = frozenset(int(snapshot) for (snapshot,) in rows)
        found.append(Named(f"{schema}.{table}", snapshots, kept_for.get((schema, table))))
    return [*found, *_named_in_audit(lake, cursor)]


def _written(is_windowed: bool) -> str:
    # Rows are written again where a file is, and name what they did.
    return f"coalesce({SNAPSHOT}, snapshot_id)" if is_windowed else "snapshot_id"


def _naming_tables(cursor: duckdb.DuckDBPyConnection) -> list[tuple[str, str, bool]]:
    """Tables with a column that names snapshots, and whether they have windows."""
    listed = ", ".join(map(literal, INTEGERS))
    compared = ", ".join(map(literal, sorted(COMPARED)))
    return cursor.execute(
        f"""SELECT schema_name, table_name, bool_or(column_name = {literal(SNAPSHOT)})
            AND bool_or(column_name = {literal(WINDOW_START)})
        FROM duckdb_columns() WHERE database_name = 'lake' AND table_name NOT IN ({compared})
        GROUP BY ALL HAVING bool_or(column_name = {literal(NAMING)} AND data_type IN ({listed}))
        ORDER BY ALL"""
    ).fetchall()


def _named_in_audit(lake: Lake, cursor: duckdb.DuckDBPyConnection) -> list[Named]:
    schema, table = AUDIT
    if table not in lake.tables(cursor, schema):
        return []
    rows = cursor.execute(
        f"""SELECT DISTINCT TRY_CAST(json_extract_string(details, {literal(f"$.{NAMING}")})
            AS BIGINT) AS named FROM lake.{schema}.{table} WHERE named IS NOT NULL"""
    ).fetchall()
    return [Named("the audit", frozenset(snapshot for (snapshot,) in rows))]

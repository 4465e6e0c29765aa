"""Parquet files that an engine wrote below a table's folder, and that a transaction takes over.

A file becomes part of the table as it is, where all of its windows are to be replaced and DuckLake
can take it; rows of others are copied.
"""

from collections.abc import Collection, Iterable, Set
from dataclasses import dataclass
from datetime import datetime

import duckdb

from ml_platform.errors import LakeError
from ml_platform.spec.queries import literal, quote
from ml_platform.storage.known_files import METADATA, file_key
from ml_platform.storage.lake import Lake
from ml_platform.storage.tables import WINDOW_START, Table, canonical_types

TAKEN = frozenset({"year", "month"})
"""Names of the folders by which DuckLake knows the month of a file; a column of that name hides
one of them."""
NOT_IN_PARQUET = ("HUGEINT", "UHUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
"""Types that files of other engines hold as another one, which DuckLake does not take for them."""


@dataclass(frozen=True)
class DataFiles:
    """Files of whole rows, `window_start` included, each with windows of one month.

    Their paths end in `year=…/month=…/<name>`. Each row is in the window of the calendar, and no
    two rows have the same `table.order`.
    """

    paths: tuple[str, ...]

    def query(self, table: Table) -> str:
        """SQL of the rows, with the table's columns and types."""
        return self._rows(table)

    def stage(
        self, cursor: duckdb.DuckDBPyConnection, table: Table, staged: str, starts: Set[datetime]
    ) -> None:
        """Make a temporary view of the rows, with the table's types.

        starts: of the windows that may be there. Raises LakeError for a row in another one.
        """
        cursor.execute(f"CREATE OR REPLACE TEMP VIEW {staged} AS {self._rows(table, WINDOW_START)}")
        found = cursor.execute(f"SELECT DISTINCT {WINDOW_START} FROM temp.{staged}").fetchall()
        if wrong := {start for (start,) in found} - starts:
            raise LakeError(f"{table.schema}.{table.name}: no window starts at {min(wrong)}")

    def register(
        self, transaction: duckdb.DuckDBPyConnection, table: Table, come: Set[datetime]
    ) -> set[datetime]:
        """Make the files whose windows all come in part of the table; windows that are left."""
        if not self.paths or not come or not _fits(transaction, table):
            return set(come)
        held: dict[str, set[datetime]] = {}
        for path, start in transaction.execute(
            f"SELECT DISTINCT filename, {WINDOW_START} FROM {self._scan(filename=True)}"
        ).fetchall():
            held.setdefault(path, set()).add(start)
        # A window that is in a file which stays out is copied, so all its files stay out.
        left: set[datetime] = set(come)
        out = {start for starts in held.values() if not starts <= come for start in starts}
        while grown := {s for starts in held.values() if starts & out for s in starts} - out:
            out |= grown
        for path, starts in sorted(held.items()):
            if not starts & out:
                transaction.execute(
                    f"CALL ducklake_add_data_files('lake', {literal(table.name)}, {literal(path)}, "
                    f"schema => {literal(table.schema)}, allow_missing => true)"
                )
                left -= starts
        return left

    def _rows(self, table: Table, *more: str) -> str:
        typed = [f"CAST({quote(c)} AS {t}) AS {quote(c)}" for c, t in table.columns.items()]
        if self.paths:
            return f"SELECT {', '.join((*more, *typed))} FROM {self._scan()}"
        nothing = [f"NULL::{t} AS {quote(c)}" for c, t in table.columns.items()]
        nothing += [f"NULL::TIMESTAMP AS {name}" for name in more]
        return f"SELECT {', '.join(nothing)} WHERE false"

    def _scan(self, filename: bool = False) -> str:
        listed = ", ".join(map(literal, self.paths))
        named = ", filename = true" if filename else ""
        return f"read_parquet([{listed}], hive_partitioning = false{named})"


def table_folder(lake: Lake, cursor: duckdb.DuckDBPyConnection, table: Table) -> str:
    """The folder or URL below which a table's files are, without a slash at its end."""
    root = lake.settings.lake_files_uri.rstrip("/")
    row = cursor.execute(
        f"""SELECT s.path, s.path_is_relative, t.path, t.path_is_relative
        FROM {METADATA}.ducklake_table t JOIN {METADATA}.ducklake_schema s USING (schema_id)
        WHERE s.schema_name = {literal(table.schema)} AND t.table_name = {literal(table.name)}
        AND t.end_snapshot IS NULL AND s.end_snapshot IS NULL"""
    ).fetchone()
    if row is None:
        return f"{root}/{table.schema}/{table.name}"
    schema, of_root, own, of_schema = row
    above = f"{root}/{schema}" if of_root else str(schema)
    return (f"{above.rstrip('/')}/{own}" if of_schema else str(own)).rstrip("/")


def named_below(cursor: duckdb.DuckDBPyConnection, folder: str) -> frozenset[str]:
    """Keys of the files below a folder of an engine that the catalog names."""
    name = folder.rstrip("/").rpartition("/")[2]
    rows = cursor.execute(
        f"SELECT path FROM {METADATA}.ducklake_data_file WHERE contains(path, {literal(name)})"
    ).fetchall()
    return frozenset(file_key(path) for (path,) in rows)


def is_encrypted(cursor: duckdb.DuckDBPyConnection) -> bool:
    """Whether the lake's files are encrypted."""
    row = cursor.execute(
        "SELECT value FROM ducklake_options('lake') WHERE option_name = 'encrypted'"
    ).fetchone()
    return row is not None and str(row[0]).lower() == "true"


def require_no_encryption(cursor: duckdb.DuckDBPyConnection, what: str) -> None:
    """Raise LakeError where the lake's files are encrypted: then others cannot write them."""
    if is_encrypted(cursor):
        raise LakeError(
            f"{what} reads and writes the lake's files itself, and this lake's are encrypted with "
            "keys that only DuckDB has; compute in process, or keep the lake unencrypted on a "
            "store that encrypts"
        )


def _fits(transaction: duckdb.DuckDBPyConnection, table: Table) -> bool:
    """Whether DuckLake takes files of a table as they are."""
    if TAKEN & {name.lower() for name in table.columns}:
        return False
    kinds: Collection[str] = canonical_types(transaction, table.columns.values())
    return not any(_holds(kind, NOT_IN_PARQUET) for kind in kinds)


def _holds(kind: str, others: Iterable[str]) -> bool:
    return any(kind.startswith(other) for other in others)

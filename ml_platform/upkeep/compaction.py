"""Many small files become few, table by table; readers of any snapshot find the same rows.

Files are merged as they are: rows keep the snapshots that they came with. Where most rows of a file
are deleted it is written again without them. DuckLake then says of the rows that are left that they
came with that, so it is done only to tables whose rows say themselves when their window changed.
"""

from dataclasses import dataclass

import duckdb

from ml_platform.errors import LakeUnavailable, PlatformError
from ml_platform.spec.queries import literal, quote
from ml_platform.storage import Commit, Lake
from ml_platform.storage.known_files import METADATA
from ml_platform.storage.tables import SNAPSHOT, WINDOW_START

MOST_DELETED = 0.5
"""A file is written again without its deleted rows where they are a larger share."""
FILES_AT_ONCE = 16
"""So many are made in one transaction: others can write in between."""


@dataclass(frozen=True)
class Files:
    """The newest snapshot's files of one table."""

    schema: str
    table: str
    files: int
    bytes: int
    deleting: int
    """Those of them with deleted rows."""
    inlined: bool
    """Whether rows of it are in the catalog instead, as other tools may leave them."""

    @property
    def name(self) -> str:
        return f"{self.schema}.{self.table}"


@dataclass(frozen=True)
class Compacted:
    """What was made of the files of one table."""

    before: Files
    after: Files
    problem: str = ""
    """Why it was left as it is; empty where it was not."""


def read_files(lake: Lake) -> list[Files]:
    """The files of every table, in order of schema and table."""
    return lake.patience(lambda: _read_files(lake))


def _read_files(lake: Lake) -> list[Files]:
    with lake.cursor() as cursor:
        rows = cursor.execute(
            f"""SELECT s.schema_name, t.table_name, count(f.data_file_id),
                CAST(coalesce(sum(f.file_size_bytes), 0) AS BIGINT), count(d.data_file_id),
                t.table_id IN (SELECT table_id FROM {METADATA}.ducklake_inlined_data_tables)
            FROM {METADATA}.ducklake_table t
            JOIN {METADATA}.ducklake_schema s USING (schema_id)
            LEFT JOIN (FROM {METADATA}.ducklake_data_file WHERE end_snapshot IS NULL) f
                ON f.table_id = t.table_id
            LEFT JOIN (SELECT DISTINCT data_file_id FROM {METADATA}.ducklake_delete_file
                WHERE end_snapshot IS NULL) d ON d.data_file_id = f.data_file_id
            WHERE t.end_snapshot IS NULL AND s.end_snapshot IS NULL
            GROUP BY s.schema_name, t.table_name, t.table_id ORDER BY ALL"""
        ).fetchall()
    return [Files(*row) for row in rows]


def compact(lake: Lake, commit: Commit) -> list[Compacted]:
    """Compact each table that has more than one file; those that cannot be are named, and left."""
    done = []
    for before in read_files(lake):
        if before.files > 1 or before.deleting or before.inlined:
            done.append(_compact_if_possible(lake, before, commit))
    # While it merges, DuckLake keeps for older snapshots which tables there are now: within this
    # process they would seem to have tables, without rows, that were only made later.
    lake.close()
    return done


def _compact_if_possible(lake: Lake, before: Files, commit: Commit) -> Compacted:
    problem = ""
    try:
        with lake.cursor() as cursor:
            _compact(lake, cursor, before, commit)
    except LakeUnavailable:
        raise
    except PlatformError as error:
        problem = str(error)
        # What DuckDB takes for a fault of its own ends the connection for every other table.
        lake.close()
    after = {each.name: each for each in read_files(lake)}
    return Compacted(before, after.get(before.name, before), problem)


def _compact(lake: Lake, cursor: duckdb.DuckDBPyConnection, files: Files, commit: Commit) -> None:
    if files.inlined:
        flush = (
            f"CALL ducklake_flush_inlined_data('lake', schema_name => {literal(files.schema)}, "
            f"table_name => {literal(files.table)})"
        )
        _called(lake, cursor, flush, commit)
    named = f"'lake', {literal(files.table)}, schema => {literal(files.schema)}"
    if files.deleting and _says_when_it_changed(cursor, files):
        rewrite = f"CALL ducklake_rewrite_data_files({named}, delete_threshold => {MOST_DELETED})"
        _called(lake, cursor, rewrite, commit)
    merge = f"CALL ducklake_merge_adjacent_files({named}, max_compacted_files => {FILES_AT_ONCE})"
    while _called(lake, cursor, merge, commit):
        pass


def _called(lake: Lake, cursor: duckdb.DuckDBPyConnection, statement: str, commit: Commit) -> bool:
    """Call a function of DuckLake in a transaction; whether it did anything."""
    return lake.transact(cursor, commit, lambda t: bool(t.execute(statement).fetchall()))


def _says_when_it_changed(cursor: duckdb.DuckDBPyConnection, files: Files) -> bool:
    table = f"lake.{quote(files.schema)}.{quote(files.table)}"
    columns = {name for name, *_ in cursor.execute(f"DESCRIBE {table}").fetchall()}
    if not {SNAPSHOT, WINDOW_START} <= columns:
        return False
    # Files that an engine wrote, and those of releases before, leave it to DuckLake.
    silent = cursor.execute(f"SELECT 1 FROM {table} WHERE {SNAPSHOT} IS NULL LIMIT 1").fetchone()
    return silent is None

"""Data files as the lake's catalog knows them: where they are, and what they hold."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import duckdb

from ml_platform.spec.queries import literal

METADATA = "__ducklake_metadata_lake"
"""Where DuckLake attaches its own catalog."""
WINDOW_START = "window_start"
KEY_PATTERN = r"(spark-[0-9a-f]{16}/([^/]+/)*)?[^/]+$"
"""DuckLake's names are there once; those of Spark are there once a folder."""
KEY = re.compile(KEY_PATTERN)
OF_DUCKLAKE = re.compile(
    r"(^|/)(ducklake-[0-9a-f-]{36}(-delete)?\.parquet|spark-[0-9a-f]{16}/([^/]+/)*[^/]+)$"
)
"""Files that DuckLake wrote, or an engine below a folder of its own."""
DAY = "%Y-%m-%d"
MINUTE = "%Y-%m-%d %H:%M"


@dataclass(frozen=True)
class KnownFile:
    """A data file, or one of deleted rows, as the catalog knows it."""

    id: int
    """Of the data file; that of deleted rows belongs to one."""
    path: str
    """Absolute, or a URL."""
    bytes: int
    rows: int
    schema: str
    table: str
    written_at: int
    """The snapshot that wrote it."""
    ended_at: int | None
    """The snapshot that no longer reads it; None where the newest does."""
    key: str | None = field(default=None, repr=False)
    """What it is encrypted with, in base64."""
    first: datetime | None = None
    """Start of the first window with rows in it, in UTC without an offset; None in a table without
    windows."""
    last: datetime | None = None
    holds_deletes: bool = False
    """Whether it says which rows of the data file of this id are deleted, and holds none itself."""

    @property
    def is_current(self) -> bool:
        return self.ended_at is None

    @property
    def held(self) -> str:
        """What was in it, for people."""
        windows = ""
        if self.first is not None and self.last is not None:
            form = DAY if {self.first.time(), self.last.time()} == {datetime.min.time()} else MINUTE
            first, last = self.first.strftime(form), self.last.strftime(form)
            windows = f" of window {first}" if first == last else f" of windows {first} to {last}"
        read = "" if self.is_current else f", which snapshots before {self.ended_at} read"
        return (
            f"{self.rows:,} row{'s' * (self.rows != 1)} of {self.schema}.{self.table}{windows}, "
            f"written at snapshot {self.written_at}{read}"
        )


def known_files(
    cursor: duckdb.DuckDBPyConnection,
    root: str,
    key: str | None = None,
    catalog: str = METADATA,
) -> Iterator[KnownFile]:
    """Every file that a snapshot reads; only that of a key where one is given.

    root: the folder or URL of the lake's files. catalog: the database of the catalog's tables.
    """
    for kind, count in (("data", "record_count"), ("delete", "delete_count")):
        where = "" if key is None else (
            f"WHERE regexp_extract(f.path, {literal(KEY_PATTERN)}) = {literal(key)}"
        )  # fmt: skip
        rows = cursor.execute(
            f"""SELECT f.data_file_id, f.path, f.path_is_relative, f.file_size_bytes, f.{count},
                s.schema_name, s.path, s.path_is_relative, t.table_name, t.path, t.path_is_relative,
                f.begin_snapshot, f.end_snapshot, f.encryption_key, w.min_value, w.max_value
            FROM {catalog}.ducklake_{kind}_file f
            JOIN (SELECT table_id, schema_id, arg_max(table_name, begin_snapshot) AS table_name,
                    arg_max(path, begin_snapshot) AS path,
                    arg_max(path_is_relative, begin_snapshot) AS path_is_relative
                FROM {catalog}.ducklake_table GROUP BY ALL) t USING (table_id)
            JOIN {catalog}.ducklake_schema s USING (schema_id)
            LEFT JOIN (SELECT data_file_id, min_value, max_value
                FROM {catalog}.ducklake_file_column_stats x
                SEMI JOIN (SELECT table_id, column_id FROM {catalog}.ducklake_column
                    WHERE column_name = {literal(WINDOW_START)}) c
                ON x.table_id = c.table_id AND x.column_id = c.column_id
            ) w ON w.data_file_id = f.data_file_id
            {where} ORDER BY f.data_file_id"""
        ).fetchall()
        for row in rows:
            yield _known(root.rstrip("/"), row, holds_deletes=kind == "delete")


def file_key(path: str) -> str:
    """What identifies a file of the lake, from its path or from that in the catalog.

    >>> file_key("/srv/lake/trips/x/year=2024/month=5/ducklake-0.parquet")
    'ducklake-0.parquet'
    >>> file_key("/srv/lake/trips/x/spark-00c0ffee00c0ffee/year=2024/month=5/part-0.parquet")
    'spark-00c0ffee00c0ffee/year=2024/month=5/part-0.parquet'
    """
    found = KEY.search(path)
    return found.group() if found else path


def _known(root: str, row: tuple[Any, ...], *, holds_deletes: bool) -> KnownFile:
    (number, path, of_table, size, count, schema, s_path, of_root, table, t_path, of_schema,
     begin, end, key, first, last) = row  # fmt: skip
    above = f"{root}/{s_path}".rstrip("/") if of_root else str(s_path).rstrip("/")
    folder = f"{above}/{t_path}".rstrip("/") if of_schema else str(t_path).rstrip("/")
    full = f"{folder}/{path}" if of_table else str(path)
    return KnownFile(
        number, full, size, count, schema, table, begin, end, key, _moment(first), _moment(last),
        holds_deletes,
    )  # fmt: skip


def _moment(said: str | None) -> datetime | None:
    return None if said is None else datetime.fromisoformat(said).replace(tzinfo=None)

"""Columns of data files as DuckLake numbers them, for files that it did not write itself."""

import base64
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import duckdb

from ml_platform.errors import LakeError
from ml_platform.spec.queries import literal, quote
from ml_platform.storage.known_files import METADATA, KnownFile

ROW_ID, ROW_SNAPSHOT = "_ducklake_internal_row_id", "_ducklake_internal_snapshot_id"
NUMBERS = {
    "file_path": 2147483646,
    "pos": 2147483645,
    ROW_ID: 2147483540,
    ROW_SNAPSHOT: 2147483539,
}
"""Columns of DuckLake's own, which are numbered alike in every table."""
KEY_BYTES = 16


@dataclass(frozen=True)
class WrittenParquet:
    """A Parquet file, and what DuckLake keeps of it."""

    path: str
    rows: int
    bytes: int
    footer: int
    key: str | None
    """What it is encrypted with, in base64."""
    statistics: Mapping[int, Mapping[str, str]]
    """By the number of a column, as DuckDB names them: `num_values`, `min`, `max`."""


class Columns:
    """The columns of one table, with those inside of structs, lists and maps, at one snapshot."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, file: KnownFile) -> None:
        rows = cursor.execute(
            f"""SELECT column_id, column_name, parent_column FROM {METADATA}.ducklake_column
            WHERE table_id = (SELECT table_id FROM {METADATA}.ducklake_data_file
                WHERE data_file_id = {file.id}) AND begin_snapshot <= {file.written_at}
            ORDER BY begin_snapshot, column_id"""
        ).fetchall()
        self._numbers = {(parent, name): number for number, name, parent in rows}
        self._table = f"{file.schema}.{file.table}"

    def field_ids(self, names: Iterable[str]) -> str:
        """Field ids of columns for COPY, so that DuckLake finds them again."""
        return f"{{{', '.join(f'{quote(name)}: {self._field(name)}' for name in names)}}}"

    def numbers(self) -> dict[str, int]:
        """Number of each column by its path, as DuckDB names it in statistics."""
        paths: dict[int, str] = {}
        for (parent, name), number in self._numbers.items():
            above = "" if parent is None else f"{paths[parent]}."
            paths[number] = f"{above}{quote(name)}"
        return {path: number for number, path in paths.items()}

    def _field(self, name: str) -> str:
        if name in NUMBERS:
            return str(NUMBERS[name])
        number = self._numbers.get((None, name))
        if number is None:
            raise LakeError(f"{self._table}: a data file has a column '{name}' that it has not")
        return self._described(number)

    def _described(self, number: int) -> str:
        inside = [
            f"{quote(name)}: {self._described(each)}"
            for (parent, name), each in self._numbers.items()
            if parent == number
        ]
        return f"{{__duckdb_field_id: {number}, {', '.join(inside)}}}" if inside else str(number)


def reading(path: str, key: str | None) -> str:
    """SQL of a Parquet file's rows, with `file_row_number`, their positions from 0."""
    return (
        f"read_parquet({literal(path)}, file_row_number = true, hive_partitioning = false"
        f"{f', encryption_config = {_config(key)}' if key else ''})"
    )


def write_parquet(
    cursor: duckdb.DuckDBPyConnection,
    query: str,
    path: str,
    field_ids: str,
    numbers: Mapping[str, int],
    *,
    encrypted: bool,
) -> WrittenParquet:
    """Write the rows of a query as DuckLake would; an encrypted file has a key of its own."""
    key = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode() if encrypted else None
    options = ["FORMAT parquet", "RETURN_STATS true", f"FIELD_IDS {field_ids}"]
    if key is not None:
        options.append(f"ENCRYPTION_CONFIG {_config(key)}")
    row = cursor.execute(f"COPY ({query}) TO {literal(path)} ({', '.join(options)})").fetchone()
    assert row is not None
    _, rows, size, footer, statistics, *_ = row
    return WrittenParquet(
        path, rows, size, footer, key,
        {numbers[name]: each for name, each in (statistics or {}).items() if name in numbers},
    )  # fmt: skip


def _config(key: str) -> str:
    return f"{{footer_key_value: from_base64({literal(key)})}}"

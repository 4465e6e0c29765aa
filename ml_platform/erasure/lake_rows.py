"""Rows of an entity in the lake's data files, whichever snapshot reads them, or none."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import duckdb

from ml_platform.erasure.matching import Matching
from ml_platform.spec.queries import literal
from ml_platform.spec.use_case import REQUESTS, version_table
from ml_platform.storage import Lake
from ml_platform.storage.known_files import KnownFile, known_files
from ml_platform.storage.parquet_columns import reading

QUARANTINE = "quarantine"
RECORD = "record"
MANY = 500
"""So many files are read by one statement."""


@dataclass
class TableFiles:
    """The data files of one table of the use case."""

    table: str
    files: list[KnownFile] = field(default_factory=list)

    @property
    def relations(self) -> list[tuple[str, list[KnownFile]]]:
        """SQL of the rows of all files, with `__path` and `file_row_number`."""
        plain = [file for file in self.files if file.key is None]
        found = []
        for first in range(0, len(plain), MANY):
            chosen = plain[first : first + MANY]
            listed = ", ".join(literal(file.path) for file in chosen)
            found.append(
                (
                    f"""(SELECT *, filename AS __path FROM read_parquet([{listed}],
                    filename = true, file_row_number = true, union_by_name = true,
                    hive_partitioning = false))""",
                    chosen,
                )
            )
        # Each encrypted file has a key of its own.
        for file in self.files:
            if file.key is not None:
                found.append(
                    (
                        f"(SELECT *, {literal(file.path)} AS __path "
                        f"FROM {reading(file.path, file.key)})",
                        [file],
                    )
                )
        return found


def data_files(lake: Lake, cursor: duckdb.DuckDBPyConnection, schema: str) -> list[TableFiles]:
    """The data files of a use case, by table."""
    found: dict[str, TableFiles] = {}
    for file in known_files(cursor, lake.settings.lake_files_uri):
        if file.schema == schema and not file.holds_deletes:
            found.setdefault(file.table, TableFiles(file.table)).files.append(file)
    return list(found.values())


def learn_links(matching: Matching, tables: Sequence[TableFiles]) -> None:
    """Take in the entity's examples and predictions that the lake holds, of any time."""
    source = matching.use_case.examples.source
    if matching.has_examples:
        examples: set[tuple[str, ...]] = set()
        for table in tables:
            if table.table in {source, version_table(source)}:
                examples |= {
                    tuple(row)
                    for relation, _ in table.relations
                    for row in _rows(matching, relation, moments=True)
                }
        matching.learn(examples)
    ids = {
        row[0]
        for table in tables
        if table.table == REQUESTS
        for relation, _ in table.relations
        for row in _rows(matching, relation, moments=False)
    }
    matching.learn((), (each for each in ids if each is not None))


def find_rows(matching: Matching, tables: Iterable[TableFiles]) -> dict[KnownFile, list[int]]:
    """Positions of the entity's rows, by file."""
    found: dict[KnownFile, list[int]] = {}
    for table in tables:
        for relation, files in table.relations:
            columns = columns_of(matching.cursor, relation)
            where = (
                matching.of_record(RECORD)
                if table.table == QUARANTINE and RECORD in columns
                else matching.of_columns(columns)
            )
            if where is None:
                continue
            by_path = {file.path: file for file in files}
            for path, positions in matching.cursor.execute(
                f"""SELECT __path, list(file_row_number) FROM {relation}
                WHERE {where} GROUP BY 1 ORDER BY 1"""
            ).fetchall():
                found[by_path[path]] = positions
    return found


def _rows(matching: Matching, relation: str, *, moments: bool) -> list[tuple[str, ...]]:
    columns = columns_of(matching.cursor, relation)
    where = matching.of_columns(columns)
    if where is None:
        return []
    chosen = matching.of_moments(columns) if moments else "prediction_id"
    return matching.cursor.execute(
        f"SELECT DISTINCT {chosen} FROM {relation} WHERE {where}"
    ).fetchall()


def columns_of(cursor: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    """Names and types of the columns of a relation."""
    return {name: kind for name, kind, *_ in cursor.execute(f"DESCRIBE FROM {relation}").fetchall()}

"""Parquet files; their values keep their types until they are cast to the declared ones."""

from collections.abc import Iterator
from functools import partial

import duckdb

from ml_platform.sources.landing import LandingFile
from ml_platform.sources.listing import first_line
from ml_platform.sources.reading import Batch, Reading, json_object, path_list
from ml_platform.sources.step_tables import FILES, RAW
from ml_platform.spec.queries import exact_path, quote


def read_parquet_files(reading: Reading, files: list[LandingFile]) -> Iterator[Batch]:
    """Every row of the files, once; files with the same columns and types are read together."""
    schemas: dict[LandingFile, tuple[str, ...]] = {}
    refuse = partial(_refuse, reading)
    yield from reading.halving(files, partial(read_schemas, reading, schemas), refuse)
    groups: dict[tuple[str, ...], list[LandingFile]] = {}
    for file, schema in schemas.items():
        if reading.accept(file, top_level(schema)):
            groups.setdefault(schema, []).append(file)
    for schema, group in groups.items():
        read = partial(_read, reading, top_level(schema))
        yield from reading.halving(group, read, refuse)


def read_schemas(
    reading: Reading, schemas: dict[LandingFile, tuple[str, ...]], files: list[LandingFile]
) -> Iterator[Batch]:
    """Note the nodes of the schema of each file; there is no batch of rows."""
    nodes: dict[str, list[str]] = {}
    rows = reading.cursor.execute(
        """SELECT file_name,
            concat_ws(chr(31), coalesce(num_children, 0), type, converted_type, logical_type, name)
        FROM parquet_schema(?)""",
        [[exact_path(file.path) for file in files]],
    ).fetchall()
    for path, node in rows:
        nodes.setdefault(path, []).append(node)
    schemas.update({file: tuple(nodes[file.path]) for file in files})
    yield from ()


def _read(reading: Reading, columns: tuple[str, ...], files: list[LandingFile]) -> Iterator[Batch]:
    renamed = ", ".join(f"r.{quote(column)} AS __c{n}" for n, column in enumerate(columns))
    reading.cursor.execute(
        f"""CREATE OR REPLACE TEMP TABLE {RAW} AS
        SELECT f.number AS __file, r.file_row_number + 1 AS __row, {renamed}
        FROM read_parquet({path_list(files)}, filename = '__path', file_row_number = true,
            hive_partitioning = false) r
        JOIN {FILES} f ON f.path = r.__path"""
    )
    values = reading.values(columns)
    yield Batch(RAW, values, json_object(columns))


def _refuse(reading: Reading, file: LandingFile, error: duckdb.Error | None) -> Iterator[Batch]:
    detail = first_line(error).replace(file.path, "it") if error else "no reason given"
    reading.refuse(file, f"cannot be read as Parquet: {detail}")
    yield from ()


def top_level(schema: tuple[str, ...]) -> tuple[str, ...]:
    """Names of a schema's columns, without those of what is nested in them."""
    # The nodes stand depth first below the root; children of nested columns are no columns.
    parts = [node.split("\x1f") for node in schema]
    children, names = [int(part[0]) for part in parts], [part[-1] for part in parts]
    columns: list[str] = []
    at = 1
    while at < len(schema):
        columns.append(names[at])
        inside = children[at]
        at += 1
        while inside:
            inside += children[at] - 1
            at += 1
    return tuple(columns)

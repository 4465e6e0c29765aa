"""Arrow batches that come one by one, as relations of DuckDB."""

from collections.abc import Iterable, Iterator, Mapping

import duckdb
import pyarrow as pa

from ml_platform.sources.database_tables import Choose
from ml_platform.sources.shared_tables import types_of
from ml_platform.spec.queries import quote

RELATION = "__yielded"
ROWS_TOGETHER, BYTES_TOGETHER = 100_000, 32 * 2**20
"""Each statement costs some milliseconds, and what it reads is in memory."""


def arrow_relations(
    cursor: duckdb.DuckDBPyConnection,
    batches: Iterable[pa.RecordBatch],
    choose: Choose,
    nothing: pa.Schema,
) -> Iterator[str]:
    """SQL of some batches each time, and of no rows where none comes.

    nothing: the schema that there is without any batch.
    """
    schema: pa.Schema | None = None
    items = ""
    for together in _gathered(batches):
        if schema is None or not together.schema.equals(schema):
            columns = choose(types_of(cursor, together.schema))
        if schema is None:
            schema, items = together.schema, _items(columns)
        cursor.register(RELATION, _as(together, schema, columns))
        yield f"(SELECT {items} FROM {RELATION})"
        cursor.unregister(RELATION)
    if schema is None:
        cursor.register(RELATION, nothing.empty_table())
        yield f"(SELECT {_items(choose(types_of(cursor, nothing)))} FROM {RELATION})"
        cursor.unregister(RELATION)


def schema_of(cursor: duckdb.DuckDBPyConnection, types: Mapping[str, str]) -> pa.Schema:
    """Arrow's schema of columns with types of DuckDB."""
    nulls = ", ".join(f"CAST(NULL AS {kind}) AS {quote(name)}" for name, kind in types.items())
    return cursor.execute(f"SELECT {nulls} LIMIT 0").to_arrow_table().schema


def _items(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{quote(found)} AS {quote(name)}" for name, found in columns.items())


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches of one schema that follow each other, as far as they are small together."""
    some: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        is_full = rows >= ROWS_TOGETHER or size >= BYTES_TOGETHER
        if some and (is_full or not batch.schema.equals(some[0].schema)):
            yield pa.Table.from_batches(some)
            some, rows, size = [], 0, 0
        some.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
    if some:
        yield pa.Table.from_batches(some)


def _as(rows: pa.Table, schema: pa.Schema, columns: Mapping[str, str]) -> pa.Table:
    """The columns that are read, with the types of the first batch: what all lack in it is null."""
    if rows.schema.equals(schema):
        return rows
    fields = [field for field in schema if field.name in columns.values()]
    return rows.select([field.name for field in fields]).cast(pa.schema(fields))

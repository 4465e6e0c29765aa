"""Arrow batches that come one by one, as relations of DuckDB."""

from collections.abc import Iterable, Iterator, Mapping

import duckdb
import pyarrow as pa

from ml_platform.sources.database_tables import Choose
from ml_platform.sources.shared_tables import types_of
from ml_platform.spec.queries import quote

RELATION = "__yielded"


def arrow_relations(
    cursor: duckdb.DuckDBPyConnection,
    batches: Iterable[pa.RecordBatch],
    choose: Choose,
    nothing: pa.Schema,
) -> Iterator[str]:
    """SQL of each batch, and of no rows where none comes.

    nothing: the schema that there is without any batch.
    """
    schema: pa.Schema | None = None
    items = ""
    for batch in batches:
        if schema is None or not batch.schema.equals(schema):
            columns = choose(types_of(cursor, batch.schema))
        if schema is None:
            schema, items = batch.schema, _items(columns)
        cursor.register(RELATION, pa.Table.from_batches([_as(batch, schema, columns)]))
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


def _as(batch: pa.RecordBatch, schema: pa.Schema, columns: Mapping[str, str]) -> pa.RecordBatch:
    """The columns that are read, with the types of the first batch: what all lack in it is null."""
    if batch.schema.equals(schema):
        return batch
    fields = [field for field in schema if field.name in columns.values()]
    return pa.RecordBatch.from_arrays(
        [batch.column(field.name).cast(field.type) for field in fields], schema=pa.schema(fields)
    )

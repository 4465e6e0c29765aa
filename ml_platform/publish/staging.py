"""Rows to publish, of all partitions of a range, beside the lake: what a target reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import duckdb

from ml_platform.features import inside_sql, windows_sql
from ml_platform.publish.target import BATCH_ROWS, STAGED
from ml_platform.sources.known import KnownVersions
from ml_platform.spec.publication import Publication
from ml_platform.spec.publishing import example_types
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.storage.tables import WINDOW_START


@dataclass(frozen=True)
class StagedRows:
    """What lies in `STAGED`."""

    rows: Mapping[datetime, int]
    """How many rows there are, by start of the window in UTC without an offset."""
    bytes: int
    """Of their published columns in the form of Arrow, which no database changes."""


def stage(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    declared: Publication,
    window_range: Window,
    snapshot: int,
) -> StagedRows:
    """Put the rows to publish of a range into `STAGED`, as a snapshot of the lake has them."""
    relation = lake.relation(cursor, use_case.name, declared.reads, snapshot)
    rows = f"(FROM {relation} WHERE {windows_sql(use_case, window_range)})"
    if declared.reads_example:
        rows = _with_examples(cursor, lake, use_case, window_range, snapshot, rows)
    named = quote(declared.reads)
    items = ", ".join(declared.items)
    version = "NULL::INTEGER" if declared.features else f"{named}.model_version"
    latest = ""
    if "event_time" not in declared.keyed_by:
        # Of several predictions of one key an upsert keeps the latest.
        by = ", ".join((WINDOW_START, *map(quote, declared.keyed_by)))
        rank = f"row_number() OVER (PARTITION BY {by} ORDER BY event_time DESC)"
        latest = f"QUALIFY {rank} = 1"
    cursor.execute(
        f"""CREATE OR REPLACE TEMP TABLE __published AS
        FROM (SELECT {named}.{WINDOW_START}, {version} AS __version, {items}
        FROM {rows} AS {named}) {latest}"""
    )
    counts = cursor.execute(f"SELECT {WINDOW_START}, count(*) FROM {STAGED} GROUP BY 1").fetchall()
    columns = ", ".join(map(quote, declared.types))
    batches = cursor.execute(f"SELECT {columns} FROM {STAGED}").to_arrow_reader(BATCH_ROWS)
    return StagedRows(dict(counts), sum(batch.nbytes for batch in batches))


def _with_examples(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    window_range: Window,
    snapshot: int,
    predicted: str,
) -> str:
    """Predictions beside their examples, each in the version that was known at its own time."""
    examples = use_case.examples
    source = use_case.sources[examples.source]
    time = quote(source.event_time)
    where = windows_sql(use_case, window_range)
    at = f"CAST({time} AS TIMESTAMPTZ)" if use_case.is_as_known else None
    rows = KnownVersions(lake, cursor, use_case, snapshot).source_sql(examples.source, where, at)
    wanted = example_types(use_case)
    keys = [f"{quote(c)} AS __key{n}" for n, c in enumerate(examples.entity)]
    plain = [quote(c) for c in wanted if c not in examples.request]
    columns = ", ".join((*keys, f"{time} AS __time", *plain, *examples.columns))
    same = " AND ".join(f"p.{quote(c)} = e.__key{n}" for n, c in enumerate(examples.entity))
    shown = ", ".join(f"e.{quote(c)}" for c in wanted)
    return (
        f"(SELECT p.*, {shown} FROM {predicted} p LEFT JOIN (SELECT {columns} FROM {rows} "
        f"WHERE {inside_sql(window_range, source.event_time)} AND {where}) e "
        f"ON {same} AND p.event_time = e.__time)"
    )

"""Which version of a landing file, or of a table, each window of a source was ingested from."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import duckdb

from ml_platform.errors import TableNotFound
from ml_platform.sources.landing import LandingFile, read_index
from ml_platform.sources.tables import ingestions_table, landings_table
from ml_platform.sources.window_states import WindowState
from ml_platform.spec.queries import literal
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake, insert
from ml_platform.storage.changes import Range

FEW = 500
"""So many rows can be part of a statement."""


class IngestedFile(NamedTuple):
    """A version of a file, or a state of a table, that a window holds the rows of."""

    source: str
    file: str
    fingerprint: str
    window_start: datetime
    """In UTC without an offset."""
    corrections: str | None
    """How other rows than before count; None where only the contract is another one."""


def read_ingested(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    source: str,
    wanted: Range | None = None,
) -> dict[tuple[str, datetime], tuple[str, int]]:
    """Fingerprint of the version that was ingested last, and the snapshot that it was ingested at.

    By file and start of window. wanted: the windows to look at; by default all.
    """
    table = ingestions_table(use_case)
    try:
        relation = lake.relation(cursor, table.schema, table.name)
    except TableNotFound:
        return {}
    rows = cursor.execute(
        f"""SELECT file, window_start, arg_max(fingerprint, snapshot), max(snapshot)
        FROM {relation} WHERE source = ? AND {wanted.holds("window_start") if wanted else "true"}
        GROUP BY ALL""",
        [source],
    ).fetchall()
    return {(name, start): (fingerprint, at) for name, start, fingerprint, at in rows}


def ingested_files(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    source: str,
    names: Sequence[str],
) -> frozenset[str]:
    """Those of some files all of whose rows are in the lake: looking notes before it ingests."""
    landings, ingestions = landings_table(use_case), ingestions_table(use_case)
    try:
        looked_at = lake.relation(cursor, landings.schema, landings.name)
        ingested = lake.relation(cursor, ingestions.schema, ingestions.name)
    except TableNotFound:
        return frozenset()
    # The bounds are what DuckLake's least and greatest values leave out whole files by.
    some = "source = $1 AND file BETWEEN $2 AND $3 AND file IN (SELECT unnest($4::VARCHAR[]))"
    rows = cursor.execute(
        f"""SELECT l.file FROM (SELECT file, window_start FROM {looked_at} WHERE {some}) l
        LEFT JOIN (SELECT DISTINCT file, window_start FROM {ingested} WHERE {some}) i
        ON l.file = i.file AND l.window_start = i.window_start
        GROUP BY l.file HAVING bool_and(i.file IS NOT NULL)""",
        [source, min(names, default=""), max(names, default=""), list(names)],
    ).fetchall()
    return frozenset(name for (name,) in rows)


def held_files(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    source: str,
    present: list[LandingFile],
    starts: set[datetime],
    corrections: str,
) -> list[IngestedFile]:
    """Which versions of files the windows are about to hold, where that is not known yet.

    starts: of the windows that are ingested; corrections: how corrected rows count.
    """
    wanted = Range.of(starts)
    index = read_index(lake, cursor, use_case, source, wanted)
    ingested = read_ingested(lake, cursor, use_case, source, wanted)
    before: dict[str, set[datetime]] = {}
    for name, start in ingested:
        before.setdefault(name, set()).add(start)
    return [
        IngestedFile(
            source,
            file.name,
            file.fingerprint,
            start,
            corrections if _content(held) != _content(file.fingerprint) else None,
        )
        for file in present
        if (known := index.of(file)) and not known.error
        for start in (known.window_starts & starts) | before.get(file.name, set())
        if (held := ingested.get((file.name, start), ("", 0))[0]) != file.fingerprint
    ]


def held_states(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    source: str,
    states: Mapping[datetime, WindowState],
    corrections: str,
) -> list[IngestedFile]:
    """Which states of a table's rows, by start of window, the windows are about to hold.

    corrections: how corrected rows count.
    """
    table = use_case.sources[source].rows_of
    ingested = read_ingested(lake, cursor, use_case, source, Range.of(states))
    return [
        IngestedFile(
            source,
            table,
            state.fingerprint,
            start,
            corrections if _content(held) != _content(state.fingerprint) else None,
        )
        for start, state in states.items()
        if (held := ingested.get((table, start), ("", 0))[0]) != state.fingerprint
        and (state.mark or (table, start) in ingested)
    ]


def _content(fingerprint: str) -> str:
    """The part of a fingerprint that the contract has no part in."""
    return fingerprint.rpartition("-")[0]


def remember(
    transaction: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    held: Sequence[IngestedFile],
    snapshot: int,
) -> bool:
    """Note what windows hold from a snapshot on, in the transaction that makes it so.

    What is noted is not asked for again. Returns whether there was anything to note.
    """
    if held:
        named = ", ".join(IngestedFile._fields)
        query = f"SELECT {named}, {snapshot:d} AS snapshot FROM ({_rows(transaction, held)})"
        insert(transaction, ingestions_table(use_case), query)
    return bool(held)


def _rows(transaction: duckdb.DuckDBPyConnection, held: Sequence[IngestedFile]) -> str:
    """SQL of what windows hold, one row each."""
    if len(held) <= FEW:
        # DuckDB imports pandas for the first list that a process gives it.
        rows = ", ".join(f"({', '.join(map(_value, each))})" for each in held)
        return f"FROM (VALUES {rows}) t({', '.join(IngestedFile._fields)})"
    columns = [list(column) for column in zip(*held, strict=True)]
    transaction.execute(
        """CREATE OR REPLACE TEMP TABLE __ingestions AS SELECT
        unnest(?::VARCHAR[]) AS source, unnest(?::VARCHAR[]) AS file,
        unnest(?::VARCHAR[]) AS fingerprint, unnest(?::TIMESTAMP[]) AS window_start,
        unnest(?::VARCHAR[]) AS corrections""",
        columns,
    )
    return "FROM temp.__ingestions"


def _value(value: str | datetime | None) -> str:
    return "NULL" if value is None else literal(str(value))

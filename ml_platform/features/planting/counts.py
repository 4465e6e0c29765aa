"""How many rows a planted leak is in."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import duckdb

from ml_platform.features.planting.view_plants import PLANTED
from ml_platform.features.views import Sight, inside_sql, labels_table, own_labels_sql
from ml_platform.sources.tables import source_table
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake, Table
from ml_platform.storage.tables import WINDOW_START


def count_planted(
    cursor: duckdb.DuckDBPyConnection, clean: Table, planted: Table
) -> Counter[datetime]:
    """Rows of a planted view with a leak, by start of their window; clean: the view itself."""
    if PLANTED in planted.columns.keys() - clean.columns.keys():
        return _by_window(cursor, f"FROM {planted.sql} WHERE {PLANTED} IS NOT NULL")
    # What became a list or a struct is another one in each row.
    if clean.columns != planted.columns:
        return _by_window(cursor, f"FROM {planted.sql}")
    return count_other(cursor, clean.sql, planted.sql, list(clean.columns))


def count_other(
    cursor: duckdb.DuckDBPyConnection, one: str, other: str, columns: Sequence[str]
) -> Counter[datetime]:
    """Rows that only one of two relations has, by start of their window; of a changed row, once."""
    names = ", ".join((WINDOW_START, *map(quote, columns)))
    one, other = (f"SELECT {names} FROM {each}" for each in (one, other))
    sides = ((one, other), (other, one))
    found = (_by_window(cursor, f"FROM ({each} EXCEPT ALL {than})") for each, than in sides)
    return max(found, key=Counter.total)


def count_early(cursor: duckdb.DuckDBPyConnection, use_case: UseCase) -> int:
    """Labels that say to be known before any row of their entity was, in a source that they read.

    All labels where none of these sources has the columns of the entity.
    """
    entity = use_case.examples.entity
    labels = labels_table(use_case)
    keys = ", ".join(map(quote, entity))
    tables = [
        source_table(use_case, name).sql
        for name in use_case.label.reads
        if {*entity} <= use_case.sources[name].columns.keys()
    ]
    firsts = [
        f"SELECT {keys}, min(known_at) AS first FROM {table} GROUP BY ALL" for table in tables
    ]
    if not firsts:
        return _number(cursor, f"SELECT count(*) FROM {labels.sql}")
    known = f"SELECT {keys}, max(first) AS first FROM ({' UNION ALL '.join(firsts)}) GROUP BY ALL"
    return _number(
        cursor,
        f"SELECT count(*) FROM {labels.sql} JOIN ({known}) USING ({keys}) WHERE known_at < first",
    )


def count_missing(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    clean: str,
    windows: Sequence[Window],
    snapshot: int,
) -> int:
    """Labels that are others, or missing, where each window is computed by itself.

    clean: SQL that names the labels as they should be.
    """
    names = ", ".join(map(quote, labels_table(use_case).columns))
    return sum(
        _number(
            cursor,
            f"""SELECT count(*) FROM (SELECT {names} FROM {clean} WHERE {inside_sql(window)}
            EXCEPT ALL SELECT {names}
            FROM ({own_labels_sql(lake, cursor, use_case, Sight(window, snapshot))}))""",
        )
        for window in windows
    )


def _number(cursor: duckdb.DuckDBPyConnection, query: str) -> int:
    row = cursor.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def _by_window(cursor: duckdb.DuckDBPyConnection, rows: str) -> Counter[datetime]:
    found = cursor.execute(f"SELECT {WINDOW_START}, count(*) {rows} GROUP BY ALL").fetchall()
    return Counter(dict(found))

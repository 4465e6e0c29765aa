"""Rows that are read of a table, in temporary tables and in their windows."""

from collections.abc import Sequence
from heapq import nlargest
from itertools import pairwise

import duckdb

from ml_platform.spec.queries import quote
from ml_platform.spec.windows import Window
from ml_platform.storage.tables import naive_utc

MOST_RANGES = 8
"""So many times a table is asked for windows that are apart; those closest are read as one."""
IN_WINDOWS = """SELECT r.* EXCLUDE (__at), s.start AS window_start FROM {} r
    ASOF JOIN temp.__starts s ON r.__at >= s.starts_us WHERE r.__at < s.ends_us"""
"""SQL of rows with their windows, those of them that are in `temp.__starts`."""


def add_rows(cursor: duckdb.DuckDBPyConnection, table: str, query: str) -> None:
    """Add rows to a table of `temp`; a column of which parts have two types is one of texts."""
    try:
        there = _types_of(cursor, table)
    except duckdb.CatalogException:
        cursor.execute(f"CREATE TEMP TABLE {table} AS {query}")
        return
    types = _types_of(cursor, f"({query})")
    for name, kind in there.items():
        if types[name] != kind != "VARCHAR":
            cursor.execute(f"ALTER TABLE {table} ALTER {quote(name)} TYPE VARCHAR")
    cursor.execute(f"INSERT INTO {table} {query}")


def _types_of(cursor: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    rows = cursor.execute(f"DESCRIBE FROM {relation}").fetchall()
    return {str(row[0]): str(row[1]) for row in rows}


def name_windows(cursor: duckdb.DuckDBPyConnection, windows: Sequence[Window]) -> None:
    """Put windows, ascending, into `temp.__starts`."""
    listed = ",".join(f"{naive_utc(w.start)}/{naive_utc(w.end)}" for w in windows)
    cursor.execute(
        f"""CREATE OR REPLACE TEMP TABLE __starts AS
        SELECT start, epoch_us(start) AS starts_us,
            epoch_us(CAST(split_part(part, '/', 2) AS TIMESTAMP)) AS ends_us
        FROM (SELECT part, CAST(split_part(part, '/', 1) AS TIMESTAMP) AS start
            FROM (SELECT unnest(string_split('{listed}', ',')) AS part) WHERE part <> '')"""
    )


def parts_of(windows: Sequence[Window]) -> list[Window]:
    """A few ranges with all of some windows, ascending, and with as little else as can be."""
    parts: list[Window] = []
    for window in windows:
        if parts and parts[-1].end == window.start:
            parts.append(Window(parts.pop().start, window.end))
        else:
            parts.append(window)
    if not parts:
        return []
    gaps = [after.start - before.end for before, after in pairwise(parts)]
    kept = sorted(nlargest(MOST_RANGES - 1, range(len(gaps)), key=gaps.__getitem__))
    firsts = (0, *(at + 1 for at in kept))
    lasts = (*kept, len(parts) - 1)
    bounds = zip(firsts, lasts, strict=True)
    return [Window(parts[first].start, parts[last].end) for first, last in bounds]

"""Numbers that stand for a missing value: -999, 9999."""

from collections.abc import Mapping

import duckdb

NINES = r"-?9{3,}(\.[09]+)?"
FEWEST_TIMES = 2
SPANS_AWAY = 2.0
"""How many times the span of all other values a sentinel lies outside of them, at least."""


def find_sentinels(
    database: duckdb.DuckDBPyConnection, table: str, numbers: Mapping[str, str]
) -> dict[str, tuple[float, int]]:
    """Columns with such a value that lies far from all others: the value, and how often it is.

    numbers: SQL over the table by name of the column.
    """
    found: dict[str, tuple[float, int]] = {}
    for name, number in numbers.items():
        value = f"CAST({number} AS DOUBLE)"
        candidates = database.execute(
            f"""SELECT v, count(*) FROM (SELECT {value} AS v FROM {table})
            WHERE regexp_full_match(CAST(TRY_CAST(v AS DECIMAL(18, 1)) AS VARCHAR), '{NINES}')
            GROUP BY 1 HAVING count(*) >= {FEWEST_TIMES} ORDER BY 2 DESC"""
        ).fetchall()
        for candidate, times in candidates:
            least, most = database.execute(
                f"""SELECT min(v), max(v) FROM (SELECT {value} AS v FROM {table})
                WHERE v <> {candidate!r}"""
            ).fetchall()[0]
            if least is None or most <= least:
                continue
            away = SPANS_AWAY * (most - least)
            if candidate < least - away or candidate > most + away:
                found[name] = (candidate, times)
                break
    return found

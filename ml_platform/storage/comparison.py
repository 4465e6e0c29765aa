"""Whether the rows of a window are the same as before."""

from datetime import datetime

import duckdb

from ml_platform.spec.queries import quote
from ml_platform.storage.tables import WINDOW_START, Table

FLOATS = frozenset({"DOUBLE", "FLOAT", "REAL", "FLOAT4", "FLOAT8"})


def window_fingerprints(
    cursor: duckdb.DuckDBPyConnection, table: Table, rows: str
) -> dict[datetime, tuple[int, int]]:
    """Row count and fingerprint by window; where both are equal, so are the rows, in any order."""
    compared = ", ".join(quote(c) for c in table.columns if c not in table.stamps)
    # Hashed twice, because the sum of DuckDB's row hashes alone, which combines those of the
    # columns by XOR, stays the same more easily when two rows swap a value.
    found = cursor.execute(
        f"SELECT {WINDOW_START}, count(*), sum(hash(hash({compared}))::HUGEINT) "
        f"FROM {rows} GROUP BY 1"
    ).fetchall()
    return {start: (count, total) for start, count, total in found}


def windows_apart(
    cursor: duckdb.DuckDBPyConnection, table: Table, stored: str, computed: str
) -> set[datetime]:
    """Windows whose rows differ by more than the table's tolerance.

    stored, computed: what follows FROM; rows of one window and one `table.order` are compared.
    """
    keys = (WINDOW_START, *table.order)
    join = " AND ".join(f"old.{quote(c)} IS NOT DISTINCT FROM new.{quote(c)}" for c in keys)
    alike = " AND ".join(
        alike_sql(f"old.{quote(column)}", f"new.{quote(column)}", kind, table.tolerance)
        for column, kind in table.columns.items()
        if column not in {*table.stamps, *table.order}
    )
    found = cursor.execute(
        f"""
        SELECT DISTINCT coalesce(old.{WINDOW_START}, new.{WINDOW_START})
        FROM (SELECT *, true AS _is FROM {stored}) old
        FULL JOIN (SELECT *, true AS _is FROM {computed}) new ON {join}
        WHERE old._is IS NULL OR new._is IS NULL OR NOT ({alike or "true"})
        """
    ).fetchall()
    return {start for (start,) in found}


def alike_sql(one: str, other: str, kind: str, tolerance: float) -> str:
    """SQL that holds where two values of a type are the same, floats within a tolerance."""
    same = f"{one} IS NOT DISTINCT FROM {other}"
    if kind.upper() not in FLOATS:
        return same
    size = f"greatest(abs({one}), abs({other}))"
    close = f"abs({one} - {other}) <= {tolerance!r} * {size}"
    # Infinity is close to everything, by this measure, and NaN to NaN alone.
    finite = f"isfinite({one}) AND isfinite({other})"
    return f"({same} OR coalesce({finite} AND {close}, false))"

"""Examples, predictions and labels of a range, with the columns that cut them into segments."""

from collections.abc import Sequence

import duckdb
import pandas as pd

from ml_platform.errors import TableNotFound
from ml_platform.features import assemble, inside_sql, windows_sql
from ml_platform.monitoring.columns import monitored_columns
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake


def rows_in_segments(
    cursor: duckdb.DuckDBPyConnection, lake: Lake, use_case: UseCase, covered: Window, snapshot: int
) -> dict[str, pd.DataFrame]:
    """Examples, predictions and labels of a range, each with the columns that cut it."""
    examples = assemble(cursor, lake, use_case, covered, snapshot)
    keys = [*use_case.examples.entity, "event_time"]
    columns = [c for c in use_case.monitoring.segments.columns if c not in keys]
    predicted = [c.name for c in monitored_columns(use_case) if c.kind == "prediction"]
    extra = [c for c in use_case.prediction_columns if c not in predicted]
    found = {"examples": examples}
    for table, names in (
        ("predictions", [*predicted, *extra]),
        ("labels", ["label", "known_at"]),
    ):
        stored = _stored(cursor, lake, use_case, table, [*keys, *names], covered, snapshot)
        known = examples[[*keys, *columns]]
        stored = stored.merge(known, on=keys, how="inner") if len(stored) else stored
        found[table] = stored.reindex(columns=[*keys, *names, *columns])
    return found


def _stored(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    table: str,
    names: Sequence[str],
    covered: Window,
    snapshot: int,
) -> pd.DataFrame:
    try:
        relation = lake.relation(cursor, use_case.name, table, snapshot)
    except TableNotFound:
        types = {"event_time": "datetime64[us, UTC]", "known_at": "datetime64[us, UTC]"}
        return pd.DataFrame({n: pd.Series(dtype=types.get(n, "object")) for n in names})
    known = " AND label IS NOT NULL" if table == "labels" else ""
    return cursor.execute(
        f"SELECT {', '.join(quote(name) for name in names)} FROM {relation} "
        f"WHERE {inside_sql(covered)} AND {windows_sql(use_case, covered)}{known} "
        "ORDER BY event_time"
    ).fetch_df()

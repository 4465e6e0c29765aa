"""The monitored columns of a range, read from the lake at one snapshot."""

from collections.abc import Sequence
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.errors import TableNotFound
from ml_platform.features import assemble, inside_sql, label_history_sql, windows_sql
from ml_platform.monitoring.columns import MonitoredColumn, Readings, monitored_columns
from ml_platform.monitoring.live import live_columns, read_requests
from ml_platform.sources.known import KnownVersions
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake


def read_columns(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    window_range: Window,
    snapshot: int,
) -> dict[str, Readings]:
    """Every monitored column over a range; labels say from when on they were known.

    Model columns are those of the point-in-time join. Predictions and labels that nothing has
    been written of yet have no rows. Raises TableNotFound where examples or features lack.
    """
    columns = monitored_columns(use_case)
    examples = assemble(cursor, lake, use_case, window_range, snapshot)
    found = readings_of([c for c in columns if c.kind in {"request", "feature"}], examples)
    predicted = [c for c in columns if c.kind == "prediction"]
    names = [*(c.name for c in predicted), "event_time"]
    rows = stored_rows(cursor, lake, use_case, "predictions", names, window_range, snapshot)
    labels = label_rows(cursor, lake, use_case, ["event_time"], window_range, snapshot)
    labelled = [c for c in columns if c.kind == "label"]
    return found | readings_of(predicted, rows) | readings_of(labelled, labels)


def read_live_columns(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    window_range: Window,
    snapshot: int,
) -> dict[str, Readings]:
    """As `read_columns`, of rows that were predicted on request, where the log keeps a column.

    Raises TableNotFound where nothing has been answered yet.
    """
    kept = live_columns(use_case)
    columns = [column for column in monitored_columns(use_case) if column.name in kept]
    asked = [column for column in columns if column.kind != "label"]
    names = [column.name for column in asked]
    rows = read_requests(cursor, lake, use_case, names, window_range, snapshot)
    labels = [column for column in columns if column.kind == "label"]
    known = label_rows(cursor, lake, use_case, ["event_time"], window_range, snapshot)
    return {**readings_of(asked, rows), **readings_of(labels, known)}


def label_rows(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    keys: Sequence[str],
    window_range: Window,
    snapshot: int,
) -> pd.DataFrame:
    """Labels and `known_at` in order of event time; of corrected ones all, with `replaced_at`.

    keys: more columns; `event_time` is among them.
    """
    names = [*keys, "label", "known_at"]
    where = windows_sql(use_case, window_range)
    history = label_history_sql(KnownVersions(lake, cursor, use_case, snapshot), where)
    if history is None:
        return stored_rows(cursor, lake, use_case, "labels", names, window_range, snapshot)
    return cursor.execute(
        f"SELECT {', '.join(map(quote, names))}, replaced_at FROM {history} "
        f"WHERE {inside_sql(window_range)} AND {where} AND label IS NOT NULL ORDER BY event_time"
    ).fetch_df()


def stored_rows(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    table: str,
    names: Sequence[str],
    window_range: Window,
    snapshot: int,
) -> pd.DataFrame:
    """Columns of a table over a range, in order of event time; no rows where it is not there.

    names: `event_time` is among them. Labels that are null are left out.
    """
    try:
        relation = lake.relation(cursor, use_case.name, table, snapshot)
    except TableNotFound:
        types = {"event_time": "datetime64[us, UTC]", "known_at": "datetime64[us, UTC]"}
        return pd.DataFrame({n: pd.Series(dtype=types.get(n, "object")) for n in names})
    selected = ", ".join(quote(name) for name in names)
    labelled = "AND label IS NOT NULL" if table == "labels" else ""
    return cursor.execute(
        f"SELECT {selected} FROM {relation} WHERE {inside_sql(window_range)} "
        f"AND {windows_sql(use_case, window_range)} {labelled} ORDER BY event_time"
    ).fetch_df()


def readings_of(columns: Sequence[MonitoredColumn], rows: pd.DataFrame) -> dict[str, Readings]:
    """Columns of a frame by name; `known_at`, and `replaced_at` beside it, say when they held.

    rows: `event_time` in ascending order, and the columns.
    """
    times = epoch_microseconds(rows["event_time"])
    known = epoch_microseconds(rows["known_at"]) if "known_at" in rows else None
    replaced = epoch_microseconds(rows["replaced_at"]) if "replaced_at" in rows else None
    return {c.name: Readings(times, c.values(rows[c.name]), known, replaced) for c in columns}


def epoch_microseconds(times: "pd.Series[Any]") -> NDArray[np.int64]:
    """Aware times as microseconds since 1970; a missing one is later than any other."""
    instants = times.dt.tz_convert("UTC").dt.tz_localize(None)
    since_1970: NDArray[np.int64] = instants.to_numpy("datetime64[us]").astype(np.int64)
    return np.where(times.isna(), np.iinfo(np.int64).max, since_1970)

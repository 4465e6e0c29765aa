"""Rows that were predicted on request, as the reports want them."""

from collections.abc import Sequence
from datetime import datetime

import duckdb
import pandas as pd

from ml_platform.features import (
    best_sql,
    counted_sql,
    given_sql,
    has_feedback,
    inside_sql,
    instant,
    labels_sql,
    windows_sql,
)
from ml_platform.sources.known import KnownVersions
from ml_platform.spec.logged import readable_columns
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import FEEDBACK, REQUESTS, UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake


def live_columns(use_case: UseCase) -> frozenset[str]:
    """Columns that can be watched: those that the log keeps as they are, and the label."""
    return readable_columns(use_case) | {"label"}


def read_requests(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    names: Sequence[str],
    window_range: Window,
    snapshot: int,
) -> pd.DataFrame:
    """Columns of the rows that were answered, and `event_time`, in its order."""
    selected = ", ".join(quote(name) for name in (*names, "event_time"))
    relation = _answered(cursor, lake, use_case, window_range, snapshot)
    return cursor.execute(
        f"SELECT {selected} FROM {relation} ORDER BY event_time, prediction_id"
    ).fetch_df()


def labelled_requests(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    window_range: Window,
    snapshot: int,
    known_by: datetime | None = None,
) -> pd.DataFrame:
    """Predictions that were answered, with the labels of their examples where there are some.

    In order of event time, with `prediction_id`. A row that did not come by key is no example; it
    has a label where feedback names its id.
    known_by: take labels as they were known before this moment; by default what they say now.
    Raises TableNotFound where nothing has been answered yet.
    """
    where = f"{inside_sql(window_range)} AND {windows_sql(use_case, window_range)}"
    keys = (*use_case.examples.entity, "event_time")
    requests = _answered(cursor, lake, use_case, window_range, snapshot)
    nothing = "(SELECT NULL AS prediction_id, NULL AS label, NULL::TIMESTAMPTZ AS known_at)"
    labels, on, given = nothing, "false", nothing
    tables = lake.tables(cursor, use_case.name)
    if "labels" in tables and readable_columns(use_case).issuperset(use_case.examples.entity):
        near = windows_sql(use_case, window_range)
        known = KnownVersions(lake, cursor, use_case, snapshot)
        relation = labels_sql(known, near, known_by)
        labels = f"(FROM {relation} WHERE {where})"
        on = " AND ".join(f"p.{quote(key)} = l.{quote(key)}" for key in keys)
    if has_feedback(lake, cursor, use_case):
        given = f"({_given_by_id(cursor, lake, use_case, where, snapshot, known_by)})"
    predicted = ", ".join(
        f"CAST(CAST(p.{quote(name)} AS JSON) AS {kind}) AS {quote(name)}"
        if kind.startswith("MAP")
        else f"p.{quote(name)}"
        for name, kind in use_case.prediction_columns.items()
    )
    return cursor.execute(
        f"""SELECT {predicted}, p.event_time, p.prediction_id, p.model_version,
            coalesce(l.label, g.label) AS label,
            CASE WHEN l.label IS NULL THEN g.known_at ELSE l.known_at END AS known_at
        FROM {requests} p LEFT JOIN {labels} l ON {on}
        LEFT JOIN {given} g ON p.prediction_id = g.prediction_id
        ORDER BY p.event_time, p.prediction_id"""
    ).fetch_df()


def is_answered_twice(known: KnownVersions, window_range: Window) -> bool:
    """Whether several things were given for one prediction, so that its label may be another one.

    Where the use case takes revised values nobody asks what it was.
    """
    use_case = known.use_case
    if not use_case.is_as_known or not has_feedback(known.lake, known.cursor, use_case):
        return False
    feedback = known.lake.relation(known.cursor, use_case.name, FEEDBACK, known.snapshot)
    row = known.cursor.execute(
        f"""SELECT 1 FROM {feedback} WHERE {windows_sql(use_case, window_range)}
        AND prediction_id IS NOT NULL GROUP BY prediction_id HAVING count(*) > 1 LIMIT 1"""
    ).fetchone()
    return row is not None


def _given_by_id(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    where: str,
    snapshot: int,
    known_by: datetime | None,
) -> str:
    """SELECT of the labels given for predictions that are named by their ids."""
    by = ("prediction_id",)
    given = given_sql(lake, cursor, use_case, where, snapshot)
    named = f"FROM ({given}) WHERE prediction_id IS NOT NULL"
    if known_by is None or not use_case.is_as_known:
        return best_sql(named, use_case, "true", by)
    counted = f"counts_from < {instant(known_by)}"
    best = best_sql(counted_sql(named, by), use_case, counted, by)
    return f"SELECT * REPLACE (counts_from AS known_at) FROM ({best})"


def _answered(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    window_range: Window,
    snapshot: int,
) -> str:
    relation = lake.relation(cursor, use_case.name, REQUESTS, snapshot)
    where = f"{inside_sql(window_range)} AND {windows_sql(use_case, window_range)}"
    return f"(FROM {relation} WHERE {where} AND mode = 'live')"

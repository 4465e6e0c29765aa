"""Stored predictions with the labels that were known by a moment."""

from datetime import datetime

import duckdb
import pandas as pd

from ml_platform.features import inside_sql, labels_sql, windows_sql
from ml_platform.sources.known import KnownVersions
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake


def labelled_predictions(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    window_range: Window,
    snapshot: int,
    known_by: datetime | None,
    more: tuple[str, ...] = (),
) -> pd.DataFrame:
    """Predictions of a range, with `label` and `known_at` where there is a label.

    known_by: labels as they were known before this moment, those among them that were not known
    yet have a later `known_at`; None for what they say now. more: further columns of predictions.
    In order of event time and entity, at one snapshot. Raises TableNotFound where nothing has been
    predicted, or no label computed.
    """
    near = windows_sql(use_case, window_range)
    known = KnownVersions(lake, cursor, use_case, snapshot)
    relations = {
        table: f"(FROM {relation} WHERE {inside_sql(window_range)} AND {near})"
        for table, relation in (
            ("predictions", lake.relation(cursor, use_case.name, "predictions", snapshot)),
            ("labels", labels_sql(known, near, known_by)),
        )
    }
    names = (*more, *use_case.prediction_columns, "event_time", "model_version")
    keys = (*use_case.examples.entity, "event_time")
    return cursor.execute(
        f"""SELECT {", ".join(f"p.{quote(name)}" for name in names)}, l.label, l.known_at
        FROM {relations["predictions"]} p LEFT JOIN {relations["labels"]} l
        ON {" AND ".join(f"p.{quote(key)} = l.{quote(key)}" for key in keys)}
        ORDER BY {", ".join(f"p.{quote(key)}" for key in ("event_time", *keys[:-1]))}"""
    ).fetch_df()

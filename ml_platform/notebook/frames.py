"""Tables of a use case as frames, a range of partitions at a time."""

from collections.abc import Sequence
from datetime import datetime

import pandas as pd

from ml_platform.errors import EmptyPartition, TableNotFound
from ml_platform.features import labels_table, windows_sql
from ml_platform.monitoring.labelled import labelled_predictions
from ml_platform.registry import Promotion
from ml_platform.spec.queries import quote
from ml_platform.spec.ranges import BETWEEN
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake, Table
from ml_platform.storage.tables import WINDOW_START

STAMPS = ("model_version", "snapshot", "scored_at")


def read_predictions(
    lake: Lake, use_case: UseCase, window_range: Window, known_by: datetime | None
) -> pd.DataFrame:
    """Predictions of a range beside their labels; EmptyPartition where there are none."""
    entity, more = use_case.examples.entity, ("snapshot", "scored_at")
    with lake.cursor(use_case.timezone) as cursor:
        snapshot = lake.snapshot(cursor)
        found = labelled_predictions(
            cursor, lake, use_case, window_range, snapshot, known_by, (*entity, *more)
        )
    if found.empty:
        raise _nothing(lake, use_case, "predictions", window_range)
    found = found.rename(columns={"known_at": "label_known_at"})
    if known_by is not None:
        known = found["label_known_at"] < pd.Timestamp(known_by)
        found[["label", "label_known_at"]] = found[["label", "label_known_at"]].where(known)
    predicted = [*use_case.prediction_columns]
    return found[[*entity, "event_time", *predicted, "label", "label_known_at", *STAMPS]]


def read_labels(lake: Lake, use_case: UseCase) -> pd.DataFrame:
    """Every label that is known now; TableNotFound where none was ever computed."""
    table = labels_table(use_case)
    columns = ", ".join(map(quote, table.columns))
    with lake.cursor(use_case.timezone) as cursor:
        relation = lake.relation(cursor, use_case.name, table.name)
        order = ", ".join(map(quote, table.order))
        sql = f"SELECT {columns} FROM {relation} WHERE label IS NOT NULL ORDER BY {order}"
        frame: pd.DataFrame = cursor.execute(sql).to_arrow_table().to_pandas()
    return frame.rename(columns={"known_at": "label_known_at"})


def read_reports(
    lake: Lake, use_case: UseCase, table: Table, window_range: Window, at: str = "window_at"
) -> pd.DataFrame:
    """Rows of a table of reports with their `partition`; EmptyPartition where there are none.

    at: column with a moment within the partition.
    """
    columns = ", ".join(map(quote, table.columns))
    with lake.cursor(use_case.timezone) as cursor:
        relation = lake.relation(cursor, use_case.name, table.name)
        order = ", ".join((WINDOW_START, *map(quote, table.order)))
        frame: pd.DataFrame = (
            cursor.execute(
                f"""SELECT {columns} FROM {relation}
                WHERE {windows_sql(use_case, window_range)} ORDER BY {order}"""
            )
            .to_arrow_table()
            .to_pandas()
        )
    if frame.empty:
        raise _nothing(lake, use_case, table.name, window_range)
    calendar = use_case.calendar
    keys = {moment: calendar.key(calendar.window_at(moment)) for moment in frame[at].unique()}
    frame.insert(0, "partition", frame[at].map(keys))
    return frame


def read_history(decisions: Sequence[Promotion], use_case: UseCase) -> pd.DataFrame:
    """Decisions about model versions, in the order in which they were made."""
    rows = [
        (p.version, p.outcome, p.effective_from, p.decided_at, p.decided_by, p.reason)
        for p in decisions
    ]
    names = ["version", "decision", "effective_from", "decided_at", "decided_by", "reason"]
    frame = pd.DataFrame(rows, columns=names)
    for name in ("effective_from", "decided_at"):
        frame[name] = pd.to_datetime(frame[name], utc=True).dt.tz_convert(use_case.timezone)
    return frame


def read_columns(use_case: UseCase) -> pd.DataFrame:
    """What an estimator is given, a row for each column: `type` in DuckDB, `source`."""
    views = {
        f"{view}__{feature}": f"feature view {view}"
        for view, declared in use_case.model_views.items()
        for feature in declared.features
    }
    rows = [
        (name, kind, views.get(name, f"examples of {use_case.examples.source}"))
        for name, kind in use_case.model_columns.items()
    ]
    return pd.DataFrame(rows, columns=["column", "type", "source"]).set_index("column")


def stored_range(lake: Lake, use_case: UseCase, table: str) -> tuple[str, int] | None:
    """Range of the partitions that a table has, by its name, and rows; None where it has none."""
    with lake.cursor() as cursor:
        try:
            relation = lake.relation(cursor, use_case.name, table)
        except TableNotFound:
            return None
        row = cursor.execute(
            f"SELECT min({WINDOW_START}), max({WINDOW_START}), count(*) FROM {relation}"
        ).fetchone()
    if row is None or row[0] is None:
        return None
    calendar = use_case.calendar
    first, last = (calendar.key(calendar.window_stored(at)) for at in row[:2])
    return f"{first}{BETWEEN}{last}", int(row[2])


def _nothing(lake: Lake, use_case: UseCase, table: str, window_range: Window) -> EmptyPartition:
    found = stored_range(lake, use_case, table)
    there = f"there are {found[1]:,} rows in {found[0]}" if found else f"materialise {table} first"
    return EmptyPartition(
        f"{use_case.name} has no {table.replace('_', ' ')} in {window_range}; {there}"
    )

"""Examples, predictions and labels of a range, with the columns that cut them into segments."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import pandas as pd

from ml_platform.features import assemble
from ml_platform.monitoring.columns import monitored_columns
from ml_platform.monitoring.live import labelled_requests, live_columns, read_requests
from ml_platform.monitoring.readings import label_rows, stored_rows
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake

ID = "prediction_id"


@dataclass(frozen=True)
class SegmentRows:
    """Rows of one segment, or of all of them, each table in order of event time."""

    tables: Mapping[str, pd.DataFrame]
    """`examples`, `predictions` and `labels`."""
    keys: tuple[str, ...]
    """Columns by which labels meet their predictions."""

    def __getitem__(self, table: str) -> pd.DataFrame:
        return self.tables[table]

    def where(self, kept: Mapping[str, "pd.Series[bool]"]) -> "SegmentRows":
        """The rows that are kept of each table."""
        tables: dict[str, Any] = {name: rows[kept[name]] for name, rows in self.tables.items()}
        return SegmentRows(tables, self.keys)


def segment_columns(use_case: UseCase, *, live: bool) -> tuple[str, ...]:
    """The columns that are declared; live: those of them that the log keeps as they are."""
    declared = use_case.monitoring.segments.columns
    kept = live_columns(use_case)
    return tuple(column for column in declared if not live or column in kept)


def rows_in_segments(
    cursor: duckdb.DuckDBPyConnection, lake: Lake, use_case: UseCase, covered: Window, snapshot: int
) -> SegmentRows:
    """Examples, predictions and labels of a range, each with the columns that cut it."""
    examples = assemble(cursor, lake, use_case, covered, snapshot)
    keys = [*use_case.examples.entity, "event_time"]
    columns = [c for c in segment_columns(use_case, live=False) if c not in keys]
    predicted = [c.name for c in monitored_columns(use_case) if c.kind == "prediction"]
    extra = [c for c in use_case.prediction_columns if c not in predicted]
    names = [*keys, *predicted, *extra]
    tables = {
        "predictions": stored_rows(cursor, lake, use_case, "predictions", names, covered, snapshot),
        "labels": label_rows(cursor, lake, use_case, keys, covered, snapshot),
    }
    found = {"examples": examples}
    for table, stored in tables.items():
        known = examples[[*keys, *columns]]
        named = [*stored.columns, *columns]
        cut = stored.merge(known, on=keys, how="inner") if len(stored) else stored
        found[table] = cut.reindex(columns=named)
    return SegmentRows(found, tuple(keys))


def requests_in_segments(
    cursor: duckdb.DuckDBPyConnection, lake: Lake, use_case: UseCase, covered: Window, snapshot: int
) -> SegmentRows:
    """As `rows_in_segments`, of rows that were predicted on request.

    Raises TableNotFound where nothing has been answered yet.
    """
    kept = live_columns(use_case)
    watched = [
        c.name
        for c in monitored_columns(use_case)
        if c.kind in {"request", "feature"} and c.name in kept
    ]
    columns = segment_columns(use_case, live=True)
    names = list(dict.fromkeys((ID, *watched, *columns)))
    examples = read_requests(cursor, lake, use_case, names, covered, snapshot)
    answered = labelled_requests(cursor, lake, use_case, covered, snapshot)
    answered = answered.merge(examples[[ID, *columns]], on=ID, how="inner")
    labelled = answered[answered["label"].notna()]
    predicted = [ID, "event_time", *use_case.prediction_columns, *columns]
    found = {
        "examples": examples,
        "predictions": answered[predicted],
        "labels": labelled[[ID, "event_time", "label", "known_at", *columns]],
    }
    return SegmentRows(found, (ID,))

"""Examples, predictions and labels of a range, with the columns that cut them into segments."""

import duckdb
import pandas as pd

from ml_platform.features import assemble
from ml_platform.monitoring.columns import monitored_columns
from ml_platform.monitoring.readings import stored_rows
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
        stored = stored_rows(cursor, lake, use_case, table, [*keys, *names], covered, snapshot)
        known = examples[[*keys, *columns]]
        stored = stored.merge(known, on=keys, how="inner") if len(stored) else stored
        found[table] = stored.reindex(columns=[*keys, *names, *columns])
    return found

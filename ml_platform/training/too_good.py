"""Metrics of a holdout that are too good to be true, and the columns that carry them."""

from collections.abc import Mapping
from math import isfinite

import duckdb
import pandas as pd

from ml_platform.spec.declared import Metric, Task
from ml_platform.spec.queries import quote
from ml_platform.spec.strength import NEARLY, measure_strengths

LIMITS: dict[Task, tuple[Metric, float]] = {
    "binary": ("roc_auc", 0.995),
    "multiclass": ("macro_f1", 0.995),
    "regression": ("r2", 0.995),
}
"""What hardly any model reaches that knows only what was known at the event."""
MOST_NAMED = 3
MOST_OF_IT = 0.8
"""Share of all importance that the columns named have together."""


def find_too_good(
    task: Task,
    metrics: Mapping[str, float],
    rows: pd.DataFrame,
    importances: Mapping[str, float],
) -> str:
    """Why metrics of a holdout are too good to be true, in a sentence; empty where they are not.

    rows: model columns and `label`, of the holdout and what was fitted on; importances: by column.
    It names the columns of which each alone nearly determines the label, and where there is none
    those that the model relies on most.
    """
    metric, limit = LIMITS[task]
    value = metrics.get(metric)
    if value is None or value <= limit:
        return ""
    strengths = _strengths(task, rows)
    suspicious = {name: strength for name, strength in strengths.items() if strength >= NEARLY}
    said = f"{metric} is {value:.4g} on the holdout, above {limit}, "
    if suspicious:
        named = ", ".join(f"{n} ({s:.2f} of 1)" for n, s in list(suspicious.items())[:MOST_NAMED])
        return f"{said}and of its columns each of these alone nearly determines the label: {named}"
    named = ", ".join(_carriers(importances))
    return f"{said}and of its columns the model relies most on {named}"


def _carriers(importances: Mapping[str, float]) -> list[str]:
    """The columns that have most of all importance together, at most three."""
    ranked = sorted(importances.items(), key=lambda item: -item[1])
    total = sum(max(value, 0.0) for _, value in ranked)
    had, chosen = 0.0, list[str]()
    for name, value in ranked[:MOST_NAMED]:
        if chosen and had >= MOST_OF_IT * total:
            break
        chosen.append(name)
        had += max(value, 0.0)
    return chosen


def _strengths(task: Task, rows: pd.DataFrame) -> dict[str, float]:
    """How much each column alone says of the label, the strongest first."""
    names = [str(name) for name in rows.columns if name != "label"]
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("file", rows)
        return measure_strengths(_Frame(connection, rows), quote("label"), task, names)


class _Frame:
    """A frame that is asked about by SQL, see `QueryableRows`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, frame: pd.DataFrame) -> None:
        self._connection = connection
        self._frame = frame

    def numbers(self, sql: str) -> tuple[float, ...]:
        row = self._connection.execute(sql).fetchone() or ()
        return tuple(float(x) if x is not None and isfinite(x) else 0.0 for x in row)

    def is_ordered(self, name: str) -> bool:
        return self._frame[name].dtype != object

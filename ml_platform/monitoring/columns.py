"""What of a use case is watched for drift, and the forms in which columns are compared."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.spec.queries import is_numeric
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.watching import Drift

Kind = Literal["request", "feature", "prediction", "label"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class MonitoredColumn:
    """One column that is compared with the champion's reference."""

    name: str
    kind: Kind
    numeric: bool

    def method(self, drift: Drift) -> str:
        """The measure, by Evidently's name for it."""
        if self.numeric:
            return drift.method
        return "psi" if drift.method == "psi" else "jensenshannon"

    def threshold(self, drift: Drift) -> float:
        general = drift.threshold if self.numeric else drift.categorical_threshold
        return drift.thresholds.get(self.name, general)

    def null_threshold(self, drift: Drift) -> float:
        return drift.null_thresholds.get(self.name, drift.null_threshold)

    def values(self, column: "pd.Series[Any]") -> "pd.Series[Any]":
        """The column as it is compared: numbers as finite float64 or NaN, others as text or None.

        Booleans and numbers that stand for classes become one text whatever their type was, so
        that `True`, `1` and `1.0` are the same class. An infinity counts as missing.
        """
        if self.numeric:
            numbers = column.astype(np.float64)
            return numbers.where(np.isfinite(numbers))
        if pd.api.types.infer_dtype(column, skipna=True) in {"boolean", "integer", "floating"}:
            column = column.astype(np.float64)
        texts = [
            str(value) if known else None
            for value, known in zip(column, column.notna(), strict=True)
        ]
        return pd.Series(texts, index=column.index, dtype=object)


def monitored_columns(use_case: UseCase) -> tuple[MonitoredColumn, ...]:
    """Request columns, features, the prediction and the label, in this order."""
    label = "DOUBLE" if use_case.label.task == "regression" else "VARCHAR"
    types = {**use_case.model_columns, **use_case.prediction_columns, "label": label}
    kinds: dict[str, Kind] = {
        **dict.fromkeys(use_case.model_columns, "feature"),
        **dict.fromkeys(use_case.examples.request, "request"),
        **dict.fromkeys(use_case.prediction_columns, "prediction"),
        "label": "label",
    }
    return tuple(
        MonitoredColumn(name, kinds[name], is_numeric(types[name]))
        for name in use_case.watched_columns
    )


def vanished_columns(
    use_case: UseCase, trained_on: Mapping[str, str]
) -> tuple[MonitoredColumn, ...]:
    """Columns that a model version was trained on and that the use case no longer has.

    trained_on: names and DuckDB types.
    """
    present = {column.name for column in monitored_columns(use_case)}
    return tuple(
        MonitoredColumn(name, "feature" if "__" in name else "request", is_numeric(kind))
        for name, kind in trained_on.items()
        if name not in present
    )


@dataclass(frozen=True)
class Readings:
    """One column over a range of event time, in the order of event times."""

    times: NDArray[np.int64]
    """Microseconds since 1970, UTC, ascending; shape (n,)."""
    values: "pd.Series[Any]"
    """As `MonitoredColumn.values` makes them; shape (n,)."""
    known: NDArray[np.int64] | None = None
    """From when on each value was known, where that is later than its event time."""
    replaced: NDArray[np.int64] | None = None
    """From when on another value was known in its place, where there are such."""

    def between(self, since: datetime, until: datetime) -> "pd.Series[Any]":
        """Values with an event time in `[since, until)` that were known by its end."""
        first, last = np.searchsorted(self.times, [microseconds(since), microseconds(until)])
        held = self.held(int(first), int(last), microseconds(until))
        return self.values.iloc[held].reset_index(drop=True)

    def held(self, first: int, last: int, until: int) -> slice | NDArray[np.int64]:
        """Those of rows `[first, last)` whose value was known before a moment, and still held."""
        if self.known is None:
            return slice(first, last)
        holds = self.known[first:last] < until
        if self.replaced is not None:
            holds &= self.replaced[first:last] >= until
        return first + np.flatnonzero(holds)

    def part(self, since: datetime, until: datetime) -> "Readings":
        """The rows of a range of event time."""
        first, last = np.searchsorted(self.times, [microseconds(since), microseconds(until)])
        rows = slice(int(first), int(last))
        return Readings(
            self.times[rows],
            self.values.iloc[rows],
            None if self.known is None else self.known[rows],
            None if self.replaced is None else self.replaced[rows],
        )


def current_frame(
    readings: Mapping[str, Readings], since: datetime, until: datetime
) -> pd.DataFrame:
    """The window's values side by side, shorter columns filled up with missing ones.

    Drift is a matter of each column alone, so the rows of this frame need not belong together.
    """
    columns = {name: each.between(since, until) for name, each in readings.items()}
    return pd.concat(columns, axis=1) if columns else pd.DataFrame()


def microseconds(moment: datetime) -> int:
    """An aware datetime as microseconds since 1970."""
    return (moment.astimezone(UTC) - EPOCH) // timedelta(microseconds=1)

"""What was known when: examples, features and labels of a range, read once at one snapshot.

Every policy of a replay looks at the same rows; each decision sees those that were known then.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.features import assemble, label_history_sql, windows_sql
from ml_platform.monitoring.columns import Readings, microseconds, monitored_columns
from ml_platform.monitoring.readings import epoch_microseconds, readings_of
from ml_platform.sources.known import KnownVersions
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window, utc
from ml_platform.storage import Lake

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class ReplayInputs:
    """The rows of a range and when each of their labels was known."""

    use_case: UseCase
    snapshot: int
    examples: pd.DataFrame
    """As `assemble` gives them: entity, `event_time`, model columns; in order of time."""
    labels: pd.DataFrame
    """`position` of the example, `event_time`, `label`, `known_at`, and `replaced_at` where another
    label took its place; in order of position, then of becoming known."""

    @classmethod
    def read(cls, lake: Lake, use_case: UseCase, window_range: Window) -> "ReplayInputs":
        """Read a range at the newest snapshot; raises TableNotFound where a table lacks."""
        with lake.cursor(use_case.timezone) as cursor:
            snapshot = lake.snapshot(cursor)
            examples = assemble(cursor, lake, use_case, window_range, snapshot)
            keys = examples[[*use_case.examples.entity, "event_time"]]
            cursor.register("examples", keys.assign(position=np.arange(len(keys))))
            try:
                labels = _read_labels(cursor, lake, use_case, window_range, snapshot)
            finally:
                cursor.unregister("examples")
        return cls(use_case, snapshot, examples, labels)

    def positions(self, window_range: Window) -> slice:
        """Which examples lie in a range."""
        bounds = [microseconds(window_range.start), microseconds(window_range.end)]
        first, last = np.searchsorted(self._times, bounds)
        return slice(int(first), int(last))

    def labelled(self, window_range: Window, known_by: datetime) -> pd.DataFrame:
        """The examples of a range with the labels known before a moment.

        The same frame as `assemble` gives with `labels_known_by`, had it been asked then.
        """
        labels = self._labels_at(window_range, known_by)
        rows = self.examples.iloc[labels["position"].to_numpy()].reset_index(drop=True)
        return rows.assign(label=labels["label"], label_known_at=labels["known_at"])

    def beside(self, predictions: pd.DataFrame, window: Window, known_by: datetime) -> pd.DataFrame:
        """Predictions of a window's examples with `label` and `known_at` where known before then.

        predictions: one row for each example of the window, in their order.
        """
        labels = self._labels_at(window, known_by)
        places = labels["position"].to_numpy() - self.positions(window).start
        label = np.full(len(predictions), None, dtype=object)
        label[places] = labels["label"].to_numpy()
        known = pd.Series(pd.NaT, index=range(len(predictions)), dtype=labels["known_at"].dtype)
        known.iloc[places] = labels["known_at"].to_numpy()
        return predictions.reset_index(drop=True).assign(label=label, known_at=known)

    def revision(self, window: Window, moment: datetime) -> int:
        """A number that changes whenever what is known of a window's labels does."""
        return int(np.searchsorted(self._changes(window), microseconds(moment)))

    @cached_property
    def last_label(self) -> datetime:
        """A moment by which every label was known."""
        latest = self.labels["known_at"].max()
        nothing = datetime.fromtimestamp(0, UTC)
        return nothing if pd.isna(latest) else latest.to_pydatetime() + timedelta(seconds=1)

    @cached_property
    def readings(self) -> Mapping[str, Readings]:
        """Request columns, features and the label, as drift compares them."""
        columns = monitored_columns(self.use_case)
        given = [column for column in columns if column.kind in {"request", "feature"}]
        label = [column for column in columns if column.kind == "label"]
        return {**readings_of(given, self.examples), **readings_of(label, self.labels)}

    def _labels_at(self, window_range: Window, moment: datetime) -> pd.DataFrame:
        rows, at = self._label_rows(window_range), microseconds(moment)
        holds = (self._known[rows] < at) & (self._replaced[rows] >= at)
        return self.labels.iloc[rows][holds].reset_index(drop=True)

    def _changes(self, window: Window) -> Integers:
        rows = self._label_rows(window)
        return np.unique(np.concatenate((self._known[rows], self._replaced[rows])))

    def _label_rows(self, window_range: Window) -> slice:
        examples = self.positions(window_range)
        first, last = np.searchsorted(self._positions, [examples.start, examples.stop])
        return slice(int(first), int(last))

    @cached_property
    def _times(self) -> Integers:
        return epoch_microseconds(self.examples["event_time"])

    @cached_property
    def _positions(self) -> Integers:
        return self.labels["position"].to_numpy(dtype=np.int64)

    @cached_property
    def _known(self) -> Integers:
        return epoch_microseconds(self.labels["known_at"])

    @cached_property
    def _replaced(self) -> Integers:
        return epoch_microseconds(self.labels["replaced_at"])


def _read_labels(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    window_range: Window,
    snapshot: int,
) -> pd.DataFrame:
    keys = ", ".join(quote(c) for c in (*use_case.examples.entity, "event_time"))
    near = windows_sql(use_case, window_range)
    current = lake.relation(cursor, use_case.name, "labels", snapshot)
    history = label_history_sql(KnownVersions(lake, cursor, use_case, snapshot), near)
    labels = history or f"(SELECT *, NULL::TIMESTAMPTZ AS replaced_at FROM {current})"
    table: pd.DataFrame = (
        cursor.execute(
            f"""SELECT position, event_time, label, known_at, replaced_at
            FROM (FROM {labels} WHERE {near} AND label IS NOT NULL) JOIN examples USING ({keys})
            ORDER BY position, known_at"""
        )
        .to_arrow_table()
        .to_pandas()
    )
    return table


def looking_back(use_case: UseCase, window_range: Window) -> Window:
    """A range with all that its first decision looks back to."""
    calendar = use_case.calendar
    lengths = [use_case.model.window, use_case.monitoring.window]
    lengths += [use_case.retrain.window] if use_case.retrain.window else []
    earliest: datetime = min(
        (length.before(window_range.start, calendar.timezone) for length in lengths), key=utc
    )
    return Window(max(earliest, calendar.start, key=utc), window_range.end)

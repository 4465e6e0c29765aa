"""The performance report: predictions against the labels that have arrived.

A window is reported twice. `first` is what could be said when the window was first due: with the
labels known by its end and the label's horizon, or by the report if that was earlier. Once it
holds numbers, or the horizon has passed, it stays as it is, unless another version's predictions
have taken the place of those that it measured. `current` counts every label known now.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from ml_platform.errors import EmptyPartition, LabelsNotArrived, PlatformError, TableNotFound
from ml_platform.features import (
    split_by_window,
    versions_if_asked,
    windows_sql,
)
from ml_platform.metrics import measure
from ml_platform.monitoring.labelled import labelled_predictions
from ml_platform.monitoring.live import is_answered_twice, labelled_requests
from ml_platform.resampling import standard_error
from ml_platform.sources.known import KnownVersions
from ml_platform.spec.declared import METRICS
from ml_platform.spec.use_case import REQUESTS, UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Basis, Commit, Lake, Table, compute_windows, replace_windows
from ml_platform.storage.tables import WINDOW_START, naive_utc

Revision = Literal["first", "current"]
Row = dict[str, Any]


@dataclass(frozen=True)
class PerformanceReport:
    """What one revision of a window's report says."""

    rows: int
    """Predictions of the window."""
    labelled: int
    """Those of them whose label was known."""
    versions: tuple[int, ...]
    """Which model versions made the predictions."""
    labels_known_by: datetime
    """Only labels known before this moment count."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Empty where labels were too few; without those that are undefined on these rows."""
    errors: Mapping[str, float] = field(default_factory=dict)
    """Standard errors of the model's metric and of those that have bounds."""
    kept: Mapping[str, bool] = field(default_factory=dict)
    """Whether each metric that has bounds and a value keeps them."""

    @property
    def passed(self) -> bool | None:
        """Whether all bounds are kept; None where no metric that has some has a value."""
        return all(self.kept.values()) if self.kept else None

    @property
    def status(self) -> Literal["ok", "too few labels"]:
        """Whether there was enough to measure; whether bounds are kept says `passed`."""
        return "ok" if self.metrics else "too few labels"

    @property
    def coverage(self) -> float:
        """Share of the predictions whose label was known."""
        return self.labelled / self.rows


@dataclass(frozen=True)
class PerformanceRun:
    """What a range of performance reports says; windows without a report say why."""

    snapshot: int
    """Snapshot after the reports were written."""
    windows: Mapping[Window, PerformanceReport] = field(default_factory=dict)
    """The current revision of each window."""
    skipped: Mapping[Window, PlatformError] = field(default_factory=dict)


def performance_table(use_case: UseCase, *, live: bool = False) -> Table:
    """Where performance reports are kept: one row for each metric and revision of each window.

    live: those of the rows that were predicted on request.
    """
    return Table(
        schema=use_case.name,
        name="live_performance_report" if live else "performance_report",
        columns={
            "window_at": "TIMESTAMPTZ",
            "revision": "VARCHAR",
            "metric": "VARCHAR",
            "value": "DOUBLE",
            "standard_error": "DOUBLE",
            "status": "VARCHAR",
            "passed": "BOOLEAN",
            "rows": "BIGINT",
            "labelled": "BIGINT",
            "coverage": "DOUBLE",
            "model_versions": "INTEGER[]",
            "labels_known_by": "TIMESTAMPTZ",
            "snapshot": "BIGINT",
        },
        order=("revision", "metric"),
        stamps=("labels_known_by", "snapshot"),
    )


def report_performance(
    lake: Lake,
    use_case: UseCase,
    window_range: Window,
    commit: Commit,
    *,
    now: datetime,
    live: bool = False,
) -> PerformanceRun:
    """Report on every window of a range and store the reports, in one transaction.

    now: labels known before this moment count. Windows without predictions, and windows none of
    whose labels is known yet, are skipped with a reason; where the range is a single window,
    that is EmptyPartition or LabelsNotArrived. A metric that is undefined has no value.
    live: report on what was predicted on request, not on the prediction table.
    """
    table = performance_table(use_case, live=live)
    read = labelled_requests if live else labelled_predictions

    def compute(cursor: duckdb.DuckDBPyConnection, basis: Basis) -> PerformanceRun:
        frame = read(cursor, lake, use_case, window_range, basis.snapshot, now)
        kept = _stored_first(cursor, lake, use_case, table, window_range, basis.snapshot)
        known = KnownVersions(lake, cursor, use_case, basis.snapshot)
        any_corrected = _is_corrected(known, window_range, live)

        def known_then(window: Window, by: datetime) -> pd.DataFrame | None:
            if not any_corrected or not _is_corrected(known, window, live):
                return None
            return read(cursor, lake, use_case, window, basis.snapshot, by)

        source = REQUESTS if live else "predictions"
        found, skipped, rows = _reported(
            use_case, window_range, frame, known_then, kept, now, basis.snapshot, source
        )
        cursor.register("performance_rows", _arrow(use_case, rows))
        try:
            written = replace_windows(
                lake, cursor, table, "FROM performance_rows", time="window_at",
                calendar=use_case.calendar, window_range=window_range, commit=commit, basis=basis,
            )  # fmt: skip
        finally:
            cursor.unregister("performance_rows")
        return PerformanceRun(written.snapshot, found, skipped)

    return compute_windows(lake, use_case, table.name, window_range, commit, compute)


def _is_corrected(known: KnownVersions, window_range: Window, live: bool) -> bool:
    """Whether labels of a range may have been others before."""
    where = windows_sql(known.use_case, window_range)
    if versions_if_asked(known, "labels", where) is not None:
        return True
    return live and is_answered_twice(known, window_range)


def _reported(
    use_case: UseCase,
    window_range: Window,
    frame: pd.DataFrame,
    known_then: Callable[[Window, datetime], pd.DataFrame | None],
    kept: Mapping[datetime, list[Row]],
    now: datetime,
    snapshot: int,
    source: str,
) -> tuple[dict[Window, PerformanceReport], dict[Window, PlatformError], list[Row]]:
    """What each window says, why others say nothing, and the rows of both revisions.

    frame: predictions with the labels known by now; known_then: those of a window with the labels
    known by a moment, None where none was corrected. kept: rows of the first revision that are
    stored; source: table that `frame` was predicted in.
    """
    windows = list(use_case.calendar.windows(window_range))
    found: dict[Window, PerformanceReport] = {}
    skipped: dict[Window, PlatformError] = {}
    rows: list[Row] = []
    for window, part in split_by_window(frame, windows):
        first = kept.get(window.start.astimezone(UTC), [])
        try:
            current = _measured(use_case, window, part, now, source)
        except (EmptyPartition, LabelsNotArrived) as error:
            skipped[window] = error
            rows += first
            continue
        found[window] = current
        due = use_case.label.horizon.after(window.end, use_case.calendar.timezone)
        if not _is_final(first, due) or _is_of_others(first, current):
            by = min(now, due)
            by_then = known_then(window, by)
            if by_then is None:
                then = measure_window(use_case, part, by, current)
            else:
                then = measure_window(use_case, by_then, by)
            first = list(_rows(use_case, window, "first", then, snapshot))
        rows += [*first, *_rows(use_case, window, "current", current, snapshot)]
    if len(windows) == 1 and skipped:
        raise skipped[windows[0]]
    return found, skipped, rows


def _stored_first(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    table: Table,
    window_range: Window,
    snapshot: int,
) -> dict[datetime, list[Row]]:
    try:
        relation = lake.relation(cursor, use_case.name, table.name, snapshot)
    except TableNotFound:
        return {}
    stored = cursor.execute(
        f"""SELECT {", ".join(table.columns)}
        FROM {relation} WHERE revision = 'first' AND {windows_sql(use_case, window_range)}
        ORDER BY {WINDOW_START}, metric"""
    ).to_arrow_table()
    first: dict[datetime, list[Row]] = {}
    for row in stored.to_pylist():
        first.setdefault(row["window_at"].astimezone(UTC), []).append(row)
    return first


def _measured(
    use_case: UseCase, window: Window, rows: pd.DataFrame, by: datetime, table: str
) -> PerformanceReport:
    key = use_case.calendar.key(window)
    if not len(rows):
        raise EmptyPartition(
            f"{use_case.name} has no predictions for {key}; materialise "
            f"{use_case.name}/{table} for it first"
        )
    measured = measure_window(use_case, rows, by)
    if not measured.labelled:
        raise LabelsNotArrived(
            f"{use_case.name}: none of the {len(rows)} predictions for {key} has a label known "
            f"before {by.isoformat()}; report again once labels have been computed"
        )
    return measured


def measure_window(
    use_case: UseCase, rows: pd.DataFrame, by: datetime, other: PerformanceReport | None = None
) -> PerformanceReport:
    """How good the predictions of a window are, by the labels known before a moment.

    rows: prediction columns, `model_version`, and `label` and `known_at` where there is a label.
    other: an earlier result of the same rows, whose figures hold where no label came in between.
    """
    # Arrays: a mask of pandas costs as much as the metrics of a window of few rows.
    known_at = rows["known_at"].to_numpy("datetime64[us]")
    held = ~pd.isna(rows["label"].to_numpy()) & (known_at < np.datetime64(naive_utc(by), "us"))
    known = rows if held.all() else rows[held]
    metrics: Mapping[str, float] = {}
    errors: Mapping[str, float] = {}
    bounds = use_case.monitoring.performance.bounds_by(use_case.model.metric)
    if other is not None and other.labelled == len(known):
        metrics, errors = other.metrics, other.errors
    elif len(known) >= use_case.monitoring.performance.min_rows:
        task, label = use_case.label.task, known["label"]
        metrics = measure(task, label, known)
        looked_at = metrics.keys() & {use_case.model.metric, *bounds}
        found = {
            name: standard_error(name, task, label, known)
            for name in METRICS[task]
            if name in looked_at
        }
        errors = {name: error for name, error in found.items() if error is not None}
    return PerformanceReport(
        rows=len(rows),
        labelled=len(known),
        versions=tuple(int(version) for version in np.unique(rows["model_version"].to_numpy())),
        labels_known_by=by,
        metrics=metrics,
        errors=errors,
        kept={name: each.hold(metrics[name]) for name, each in bounds.items() if name in metrics},
    )


def _is_final(first: list[Row], due: datetime) -> bool:
    return any(row["value"] is not None or row["labels_known_by"] >= due for row in first)


def _is_of_others(first: list[Row], current: PerformanceReport) -> bool:
    """Whether predictions of other versions have taken the place of those that were measured."""
    return any(tuple(row["model_versions"]) != current.versions for row in first)


def _rows(
    use_case: UseCase, window: Window, revision: Revision, said: PerformanceReport, snapshot: int
) -> Iterator[Row]:
    for metric in METRICS[use_case.label.task]:
        value = said.metrics.get(metric)
        undefined = said.metrics and value is None
        yield {
            "window_at": window.start.astimezone(UTC),
            "revision": revision,
            "metric": metric,
            "value": value,
            "standard_error": said.errors.get(metric),
            "status": "undefined" if undefined else said.status,
            "passed": said.kept.get(metric),
            "rows": said.rows,
            "labelled": said.labelled,
            "coverage": said.coverage,
            "model_versions": list(said.versions),
            "labels_known_by": said.labels_known_by.astimezone(UTC),
            "snapshot": snapshot,
        }


def _arrow(use_case: UseCase, rows: list[Row]) -> pa.Table:
    types = {
        "TIMESTAMPTZ": pa.timestamp("us", "UTC"), "VARCHAR": pa.string(), "DOUBLE": pa.float64(),
        "BOOLEAN": pa.bool_(), "BIGINT": pa.int64(), "INTEGER[]": pa.list_(pa.int32()),
    }  # fmt: skip
    columns = performance_table(use_case).columns
    return pa.Table.from_pylist(rows, pa.schema([(n, types[t]) for n, t in columns.items()]))

"""Reports of many windows in order of time, as pages and notebooks draw them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ml_platform.errors import TableNotFound
from ml_platform.monitoring.drift import drift_table
from ml_platform.monitoring.performance import performance_table
from ml_platform.monitoring.scores import is_failure
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake, Table
from ml_platform.storage.tables import WINDOW_START, naive_utc, widened_sql

__all__ = [
    "DriftCell",
    "DriftRow",
    "DriftWindow",
    "PerformanceWindow",
    "ReportedColumn",
    "column_drift",
    "drift_by_column",
    "drift_windows",
    "performance_windows",
]


@dataclass(frozen=True)
class PerformanceWindow:
    """What the performance report of one window says."""

    window: Window
    rows: int
    """Predictions."""
    labelled: int
    versions: tuple[int, ...]
    """Which made the predictions."""
    status: str
    passed: bool | None
    """Whether all bounds are kept, as now known; None where nothing that has one was measured."""
    current: Mapping[str, float] = field(default_factory=dict)
    """Metrics by the labels known now; those without a value are left out."""
    first: Mapping[str, float] = field(default_factory=dict)
    """Metrics as the window was first reported."""
    failing: tuple[str, ...] = ()
    """Metrics that break their bounds, as now known."""
    errors: Mapping[str, float] = field(default_factory=dict)
    """Standard errors of the metrics, as now known, where they were computed."""

    @property
    def coverage(self) -> float:
        """Share of the predictions whose label is known."""
        return self.labelled / self.rows if self.rows else 0.0


@dataclass(frozen=True)
class DriftWindow:
    """What the drift report of one window says, in sum."""

    window: Window
    version: int
    """Whose training data it is held against."""
    judged: int
    drifted: int
    passed: bool | None
    """None where no column could be judged."""

    @property
    def share(self) -> float | None:
        """Share of the judged columns that drifted; None where none was judged."""
        return self.drifted / self.judged if self.judged else None


@dataclass(frozen=True)
class ReportedColumn:
    """What the drift report of one window says of one column."""

    window: Window
    column: str
    kind: str
    """`request`, `feature`, `prediction` or `label`."""
    method: str | None
    score: float | None
    threshold: float | None
    drifted: bool | None
    """None where it could not be judged; `status` says why."""
    status: str
    rows: int
    null_share: float | None
    reference_null_share: float | None
    nulls_drifted: bool | None
    new_categories: int | None

    @property
    def severity(self) -> float | None:
        """Score in units of the threshold; None where there is no score."""
        if self.score is None or not self.threshold:
            return None
        return self.score / self.threshold


@dataclass(frozen=True)
class DriftCell:
    """What one or a few neighbouring windows say of one column: the worst of them."""

    window: Window
    """The one with the farthest values; of several alike the first."""
    severity: float | None
    """Score in units of the threshold; None where no window could judge the values."""
    drifted: bool
    """Whether values or nulls drifted in any of the windows."""
    nulls_drifted: bool
    new_categories: int
    """The most that one window had."""


@dataclass(frozen=True)
class DriftRow:
    """One column over time."""

    column: str
    kind: str
    cells: Mapping[int, DriftCell]
    """By position in time; where a window does not report the column, there is none."""


def performance_windows(
    lake: Lake, use_case: UseCase, newest: int | None = None, *, until: datetime | None = None
) -> list[PerformanceWindow]:
    """Performance reports in order of time.

    newest: only so many, the newest; until: only windows that begin before this moment.
    """
    rows = _rows(
        lake, use_case, performance_table(use_case),
        """any_value(rows), max(labelled) FILTER (revision = 'current'),
        any_value(model_versions) FILTER (revision = 'current'),
        mode(status) FILTER (revision = 'current'),
        bool_and(passed) FILTER (revision = 'current'),
        map_from_entries(coalesce(list((metric, value))
            FILTER (revision = 'current' AND value IS NOT NULL), [])),
        map_from_entries(coalesce(list((metric, value))
            FILTER (revision = 'first' AND value IS NOT NULL), [])),
        coalesce(list(metric ORDER BY metric) FILTER (revision = 'current' AND NOT passed), []),
        map_from_entries(coalesce(list((metric, standard_error))
            FILTER (revision = 'current' AND standard_error IS NOT NULL), []))""",
        newest, until,
    )  # fmt: skip
    return [
        PerformanceWindow(
            use_case.calendar.window_stored(start), count, labelled or 0, tuple(versions or ()),
            status or "no label is known", passed, current, first, tuple(failing), errors,
        )
        for start, count, labelled, versions, status, passed, current, first, failing, errors
        in rows
    ]  # fmt: skip


def drift_windows(
    lake: Lake, use_case: UseCase, newest: int | None = None, *, until: datetime | None = None
) -> list[DriftWindow]:
    """Drift reports in order of time, in sum; `newest` and `until` as for performance."""
    rows = _rows(
        lake, use_case, drift_table(use_case),
        "any_value(reference_version), count(drifted), count(*) FILTER (drifted)",
        newest, until,
    )  # fmt: skip
    limit = use_case.monitoring.drift.share
    return [
        DriftWindow(
            use_case.calendar.window_stored(start), version, judged, drifted,
            not is_failure(drifted, judged, limit) if judged else None,
        )
        for start, version, judged, drifted in rows
    ]  # fmt: skip


def column_drift(lake: Lake, use_case: UseCase, window: Window) -> list[ReportedColumn]:
    """Each column of the drift report of a window, by name; none where there is no report."""
    with lake.cursor(use_case.timezone) as cursor:
        try:
            relation = lake.relation(cursor, use_case.name, "drift_report")
        except TableNotFound:
            return []
        rows = cursor.execute(
            f"""SELECT column_name, kind, method, score, threshold, drifted, status, current_rows,
            null_share, reference_null_share, nulls_drifted, new_categories
            FROM {relation} WHERE {WINDOW_START} = ? ORDER BY 1""",
            [naive_utc(window.start)],
        ).fetchall()
    return [ReportedColumn(window, *row) for row in rows]


def drift_by_column(
    lake: Lake, use_case: UseCase, windows: Sequence[Window], cells: int
) -> list[DriftRow]:
    """Columns of the drift reports of some windows, by name, in at most so many cells of time.

    windows: in order; each cell holds equally many of them, the last one perhaps fewer.
    """
    if not windows:
        return []
    each = -(-len(windows) // cells)
    with lake.cursor(use_case.timezone) as cursor:
        relation = lake.relation(cursor, use_case.name, "drift_report")
        rows = cursor.execute(
            f"""WITH said AS (
                SELECT column_name, kind, score / nullif(threshold, 0) AS severity, drifted,
                    coalesce(nulls_drifted, false) AS nulls_drifted, new_categories,
                    {WINDOW_START} AS start,
                    dense_rank() OVER (ORDER BY {WINDOW_START}) - 1 AS position
                FROM {relation} WHERE {WINDOW_START} BETWEEN $1 AND $2),
            cells AS (
                SELECT column_name, any_value(kind) AS kind, position // $3 AS cell,
                    max(severity) AS severity, coalesce(bool_or(drifted), false) AS drifted,
                    bool_or(nulls_drifted) AS nulls_drifted,
                    coalesce(max(new_categories), 0) AS new_categories,
                    coalesce(arg_max(start, severity), min(start)) AS worst
                FROM said GROUP BY 1, 3)
            SELECT column_name, any_value(kind),
                list([cell, new_categories] ORDER BY cell), list(worst ORDER BY cell),
                list(severity ORDER BY cell), list([drifted, nulls_drifted] ORDER BY cell)
            FROM cells GROUP BY 1 ORDER BY 1""",
            [naive_utc(windows[0].start), naive_utc(windows[-1].start), each],
        ).fetchall()
    by_start = {naive_utc(window.start): window for window in windows}
    return [
        DriftRow(
            column,
            kind,
            {
                cell: DriftCell(by_start[start], severity, drifted, nulls, new)
                for (cell, new), start, severity, (drifted, nulls) in zip(*parts, strict=True)
                # A report that has been written since.
                if start in by_start
            },
        )
        for column, kind, *parts in rows
    ]


def _rows(
    lake: Lake,
    use_case: UseCase,
    table: Table,
    selected: str,
    newest: int | None,
    until: datetime | None,
) -> list[tuple[Any, ...]]:
    """A row for each window of a report, in order of time; none where there is no table."""
    with lake.cursor(use_case.timezone) as cursor:
        try:
            lake.relation(cursor, use_case.name, table.name)
        except TableNotFound:
            return []
        relation = widened_sql(cursor, table)
        found = cursor.execute(
            f"""SELECT {WINDOW_START}, {selected} FROM {relation}
            WHERE $1 IS NULL OR {WINDOW_START} < $1
            GROUP BY 1 ORDER BY 1 DESC LIMIT $2""",
            [naive_utc(until) if until else None, newest],
        ).fetchall()
    return found[::-1]

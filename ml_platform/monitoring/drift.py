"""The drift report: has what the champion is given moved away from what it was trained on?

The partition of a window judges the rows that trail up to the window's end, as long a range as
`monitoring.window` says: features and request columns of the examples, their predictions whoever
made them, and the labels known by that end. They are held against the reference sample of the
version that was champion when the window began.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC
from typing import Any

import duckdb
import pyarrow as pa

from ml_platform.errors import EmptyPartition, PlatformError
from ml_platform.monitoring.columns import Readings, monitored_columns, vanished_columns
from ml_platform.monitoring.readings import read_columns, read_live_columns
from ml_platform.monitoring.scores import ColumnDrift, is_failure, measure_drift, trail
from ml_platform.monitoring.segment_rows import segment_columns
from ml_platform.monitoring.segments import SegmentReport, judge_segments, segments_table
from ml_platform.registry import ModelVersion, Registry, champions_of
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import (
    Basis,
    Commit,
    Lake,
    Replacement,
    Table,
    compute_windows,
    replace_together,
)


@dataclass(frozen=True)
class WindowDrift:
    """What the report of one window says."""

    version: int
    """Whose reference sample the window was compared with."""
    columns: tuple[ColumnDrift, ...]
    limit: float
    """Share of drifted columns from which on the window fails."""
    segments: tuple[SegmentReport, ...] = ()
    """Segments that the use case declares to be watched by themselves."""

    @property
    def judged(self) -> int:
        """How many columns could be judged."""
        return sum(column.drifted is not None for column in self.columns)

    @property
    def drifted(self) -> tuple[str, ...]:
        """Names of the drifted columns."""
        return tuple(column.column for column in self.columns if column.drifted)

    @property
    def named(self) -> str:
        """The drifted columns in a message; where nulls drifted, with their shares."""
        return ", ".join(column.named for column in self.columns if column.drifted)

    @property
    def worst(self) -> tuple[ColumnDrift, ...]:
        """The drifted columns, the farthest beyond its limit first."""
        drifted = [column for column in self.columns if column.drifted]
        return tuple(sorted(drifted, key=lambda column: (-column.times_limit, column.column)))

    @property
    def share(self) -> float | None:
        """Share of drifted columns among the judged ones; None where none was judged."""
        return len(self.drifted) / self.judged if self.judged else None

    @property
    def prediction_drifted(self) -> bool:
        return any(column.drifted for column in self.columns if column.kind == "prediction")

    @property
    def largest_score(self) -> float | None:
        """Largest score of a column; None where none was scored."""
        return max((c.score for c in self.columns if c.score is not None), default=None)

    @property
    def failing_segments(self) -> tuple[SegmentReport, ...]:
        return tuple(report for report in self.segments if report.failed)

    @property
    def failed(self) -> bool:
        """Whether the share of drifted columns reached the limit."""
        return is_failure(len(self.drifted), self.judged, self.limit)


@dataclass(frozen=True)
class DriftRun:
    """What a range of drift reports says; windows without a report say why."""

    snapshot: int
    """Snapshot after the reports were written."""
    windows: Mapping[Window, WindowDrift] = field(default_factory=dict)
    skipped: Mapping[Window, PlatformError] = field(default_factory=dict)


def drift_table(use_case: UseCase, *, live: bool = False) -> Table:
    """Where drift reports are kept: one row for each column of each window.

    live: those of the rows that were predicted on request.
    """
    return Table(
        schema=use_case.name,
        name="live_drift_report" if live else "drift_report",
        columns={
            "window_at": "TIMESTAMPTZ",
            "column_name": "VARCHAR",
            "kind": "VARCHAR",
            "method": "VARCHAR",
            "score": "DOUBLE",
            "threshold": "DOUBLE",
            "drifted": "BOOLEAN",
            "status": "VARCHAR",
            "current_rows": "BIGINT",
            "reference_rows": "BIGINT",
            "null_share": "DOUBLE",
            "reference_null_share": "DOUBLE",
            "null_score": "DOUBLE",
            "null_threshold": "DOUBLE",
            "nulls_drifted": "BOOLEAN",
            "evidently_score": "DOUBLE",
            "new_categories": "BIGINT",
            "reference_version": "INTEGER",
            "snapshot": "BIGINT",
        },
        order=("kind", "column_name"),
        stamps=("snapshot",),
    )


def report_drift(
    lake: Lake,
    registry: Registry,
    use_case: UseCase,
    window_range: Window,
    commit: Commit,
    *,
    live: bool = False,
) -> DriftRun:
    """Report on every window of a range and store the reports, in one transaction.

    Windows before the first promotion, and windows that no example trails up to, are skipped with
    a reason. The values of a column are not judged where the window has fewer than `drift.min_rows`
    of them or the reference none; its nulls are where the window has that many rows. A column that
    vanished, or lost all its values, has drifted.
    live: report on what was predicted on request, in the columns that the log keeps as they are.
    Raises TableNotFound where the examples or a feature table lack, ModelNotFound, ModelRefused.
    """
    table = drift_table(use_case, live=live)

    def compute(cursor: duckdb.DuckDBPyConnection, basis: Basis) -> DriftRun:
        champions, lacking = champions_of(lake, use_case, window_range)
        models = {v: registry.load(use_case, v) for v in sorted(set(champions.values()))}
        found = judge_windows(cursor, lake, use_case, champions, models, basis.snapshot, live=live)
        cut = judge_segments(
            cursor, lake, use_case, {w: champions[w] for w in found}, models, basis.snapshot,
            live=live,
        )  # fmt: skip
        found = {w: replace(each, segments=tuple(cut.get(w, ()))) for w, each in found.items()}
        with_segments = bool(segment_columns(use_case, live=live))
        cursor.register("drift_rows", _rows(use_case, found, basis.snapshot))
        cursor.register("segment_rows", _segment_rows(use_case, found, basis.snapshot))
        replaced = [Replacement(table, "FROM drift_rows", time="window_at")]
        if with_segments:
            # Beside the report, in its transaction: the two never speak of different rows.
            also = Replacement(
                segments_table(use_case, live=live), "FROM segment_rows", time="window_at"
            )
            replaced.append(also)
        try:
            written, *_ = replace_together(
                lake, cursor, replaced,
                calendar=use_case.calendar, window_range=window_range, commit=commit, basis=basis,
            )  # fmt: skip
        finally:
            cursor.unregister("drift_rows")
            cursor.unregister("segment_rows")
        empty = {
            window: EmptyPartition(
                f"{use_case.name} has no rows that trail up to the end of {window}"
            )
            for window in champions
            if window not in found
        }
        return DriftRun(written.snapshot, found, {**lacking, **empty})

    return compute_windows(lake, use_case, table.name, window_range, commit, compute)


def judge_windows(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    champions: Mapping[Window, int],
    models: Mapping[int, ModelVersion],
    snapshot: int,
    *,
    live: bool = False,
) -> dict[Window, WindowDrift]:
    """Judge windows, each by its champion, without storing anything; those without rows lack."""
    if not champions:
        return {}
    trails = [trail(use_case, window, version) for window, version in champions.items()]
    window_range = Window(min(t.since for t in trails), max(t.until for t in trails))
    read = read_live_columns if live else read_columns
    readings = read(cursor, lake, use_case, window_range, snapshot)
    judged = judge_readings(use_case, readings, champions, models)
    return {window: drift for window, drift in judged if drift is not None}


def judge_readings(
    use_case: UseCase,
    readings: Mapping[str, Readings],
    champions: Mapping[Window, int],
    models: Mapping[int, ModelVersion],
) -> Iterator[tuple[Window, WindowDrift | None]]:
    """Judge windows, each as it is asked for; None where no row trails up to one's end.

    readings: every monitored column over the trails of all windows.
    """
    gone = [
        c for model in models.values() for c in vanished_columns(use_case, model.fitted_columns)
    ]
    watched = [column for column in monitored_columns(use_case) if column.name in readings]
    limit = use_case.monitoring.drift.share
    results = measure_drift(
        list(dict.fromkeys((*watched, *gone))),
        readings,
        {version: model.reference for version, model in models.items()},
        [trail(use_case, window, version) for window, version in champions.items()],
        use_case.monitoring.drift,
    )
    for (window, version), columns in zip(champions.items(), results, strict=True):
        there = any(column.current_rows for column in columns)
        found = WindowDrift(version, _of_this_version(columns), limit) if there else None
        yield window, found


def _of_this_version(columns: Sequence[ColumnDrift]) -> tuple[ColumnDrift, ...]:
    # A column that another version of the range knew is no matter of this one.
    return tuple(c for c in columns if c.status != "absent" or c.reference_rows)


def _rows(use_case: UseCase, found: Mapping[Window, WindowDrift], snapshot: int) -> pa.Table:
    judged = [(w, drift, column) for w, drift in found.items() for column in drift.columns]
    # Column by column: a range has a row for each column of very many windows.
    given: dict[str, list[Any]] = {
        "window_at": [window.start.astimezone(UTC) for window, _, _ in judged],
        "column_name": [column.column for _, _, column in judged],
        "reference_version": [drift.version for _, drift, _ in judged],
        "snapshot": [snapshot] * len(judged),
    }
    table = drift_table(use_case)
    values = {
        name: given[name] if name in given else [getattr(c, name) for _, _, c in judged]
        for name in table.columns
    }
    return _arrow(table, values)


def _segment_rows(
    use_case: UseCase, found: Mapping[Window, WindowDrift], snapshot: int
) -> pa.Table:
    judged = [(w, drift, report) for w, drift in found.items() for report in drift.segments]
    given: dict[str, list[Any]] = {
        "window_at": [window.start.astimezone(UTC) for window, _, _ in judged],
        "reference_version": [drift.version for _, drift, _ in judged],
        "snapshot": [snapshot] * len(judged),
    }
    table = segments_table(use_case)
    values = {
        name: given[name] if name in given else [getattr(r, name) for _, _, r in judged]
        for name in table.columns
    }
    return _arrow(table, values)


def _arrow(table: Table, values: Mapping[str, list[Any]]) -> pa.Table:
    types = {
        "TIMESTAMPTZ": pa.timestamp("us", "UTC"), "VARCHAR": pa.string(), "DOUBLE": pa.float64(),
        "BOOLEAN": pa.bool_(), "BIGINT": pa.int64(), "INTEGER": pa.int32(),
        "VARCHAR[]": pa.list_(pa.string()),
    }  # fmt: skip
    arrays = {n: pa.array(values[n], types[kind]) for n, kind in table.columns.items()}
    return pa.table(arrays)

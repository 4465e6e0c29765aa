"""Drift scores of many overlapping windows against one reference each.

Neighbouring windows share most of their rows, so a column is kept sorted (or counted) while its
window moves: the day that leaves is taken out, the day that arrives is put in.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import pandas as pd

from ml_platform.monitoring.columns import Kind, MonitoredColumn, Readings, microseconds
from ml_platform.monitoring.distances import (
    Fences,
    Floats,
    SharedSteps,
    binned_shares,
    counted_shares,
    measure_jensenshannon,
    measure_ks,
    measure_psi,
    measure_wasserstein,
)
from ml_platform.monitoring.samples import MovingCounts, MovingOrder, Reference
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.watching import Drift
from ml_platform.spec.windows import Window

Status = Literal["scored", "too few rows", "too few values", "all null", "absent", "no reference"]


@dataclass(frozen=True)
class ColumnDrift:
    """What one window says of one column."""

    column: str
    kind: Kind
    method: str
    score: float | None
    """None unless the status is `scored`; for `ks` a p-value, else a distance."""
    threshold: float
    drifted: bool | None
    """Whether values or nulls have; None where the column is not judged."""
    status: Status
    current_rows: int
    reference_rows: int
    null_share: float | None
    """Share of missing values in the window; None where it has no rows."""
    reference_null_share: float | None
    null_score: float | None
    """Absolute difference of both shares of missing values; None where one of them lacks."""
    null_threshold: float
    nulls_drifted: bool | None
    """None where the window has too few rows, or the reference has no value."""
    evidently_score: float | None
    """The score by Evidently's definition, which values far outside of the others inflate."""
    new_categories: int | None
    """Categories of the window that the reference sample lacks; None for numbers."""

    @property
    def named(self) -> str:
        """The name, with the shares of nulls where it is these that drifted."""
        return named_column(
            self.column, bool(self.nulls_drifted), self.null_share, self.reference_null_share
        )

    @property
    def times_limit(self) -> float:
        """How far values or nulls went, in limits; infinite where values are lost."""
        if self.score is None:
            return math.inf if self.drifted else 0.0
        # A p-value is small where samples differ, a distance large.
        pair = (self.score, self.threshold)
        above, below = pair[::-1] if self.method == "ks" else pair
        nulls = (self.null_score or 0.0) / self.null_threshold
        return max(above / below if below else math.inf, nulls)

    def __str__(self) -> str:
        beyond = self.score is not None and is_beyond(self.method, self.score, self.threshold)
        return drifted_column(
            self.named, self.score if beyond else None, self.threshold, bool(self.nulls_drifted)
        )


def is_beyond(method: str, score: float, threshold: float) -> bool:
    """Whether values have drifted by a score and its threshold."""
    # A p-value is small where samples differ, a distance large.
    return score <= threshold if method == "ks" else score >= threshold


def drifted_column(named: str, score: float | None, threshold: float, nulls_drifted: bool) -> str:
    """A drifted column and how far it went; score: None where its values are within the limit.

    >>> drifted_column("gauge", 0.8123, 0.3, False)
    'gauge 0.81 (limit 0.3)'
    """
    if score is not None:
        return f"{named} {score:.2f} (limit {threshold:g})"
    return named if nulls_drifted else f"{named} has no values any more"


def named_column(
    column: str, nulls_drifted: bool, null_share: float | None, reference_null_share: float | None
) -> str:
    """A drifted column in messages; shares of nulls stand there where it is these that drifted.

    >>> named_column("gauge", True, 0.95, 0.0)
    'gauge (nulls 0% → 95%)'
    """
    if not nulls_drifted or null_share is None or reference_null_share is None:
        return column
    return f"{column} (nulls {reference_null_share:.0%} → {null_share:.0%})"


@dataclass(frozen=True)
class Trail:
    """The rows that one window is judged by, and the version whose reference it is held against."""

    since: datetime
    until: datetime
    version: int


def trail(use_case: UseCase, window: Window, version: int) -> Trail:
    """The rows that a window is judged by."""
    since = use_case.monitoring.window.before(window.end, use_case.calendar.timezone)
    return Trail(since, window.end, version)


def is_failure(drifted: int, judged: int, limit: float) -> bool:
    """Whether a report fails: the share of drifted columns reached the limit, and one drifted."""
    return drifted > 0 and drifted / judged >= limit


def measure_drift(
    columns: Sequence[MonitoredColumn],
    readings: Mapping[str, Readings],
    references: Mapping[int, pd.DataFrame],
    trails: Sequence[Trail],
    drift: Drift,
) -> Iterator[list[ColumnDrift]]:
    """Judge every column in every trail, given in order of time; results in the given orders.

    Each trail is judged as its result is asked for. Columns without readings are absent.
    references: reference samples by version.
    """
    judges = [_ColumnJudge(c, readings.get(c.name), references, drift) for c in columns]
    steps = SharedSteps()
    for trail in trails:
        steps.move_on()
        yield [judge.judge(trail, steps) for judge in judges]


class _ColumnJudge:
    """One column through all windows."""

    def __init__(
        self,
        column: MonitoredColumn,
        readings: Readings | None,
        references: Mapping[int, pd.DataFrame],
        drift: Drift,
    ) -> None:
        self._column, self._readings, self._drift = column, readings, drift
        self._references = {
            version: Reference(column, frame.get(column.name))
            for version, frame in references.items()
        }
        self._moving: MovingOrder | MovingCounts | None = None
        if readings is not None:
            self._moving = (MovingOrder if column.numeric else MovingCounts)(readings)

    def judge(self, trail: Trail, steps: SharedSteps) -> ColumnDrift:
        reference = self._references[trail.version]
        rows, count = 0, 0
        if self._moving is not None:
            rows = self._moving.move(microseconds(trail.since), microseconds(trail.until))
            count = self._moving.count
        status = self._status(reference, rows, count)
        score, evidently_score = None, None
        if status == "scored":
            score, evidently_score = self._scores(reference, steps)
        null_share = (rows - count) / rows if rows else None
        null_score = _difference(null_share, reference.null_share)
        null_threshold = self._column.null_threshold(self._drift)
        nulls_drifted = None
        if null_score is not None and status not in {"too few rows", "no reference"}:
            nulls_drifted = null_score >= null_threshold
        return ColumnDrift(
            column=self._column.name,
            kind=self._column.kind,
            method=self._column.method(self._drift),
            score=score,
            threshold=self._column.threshold(self._drift),
            drifted=nulls_drifted or self._is_drifted(status, score),
            status=status,
            current_rows=rows,
            reference_rows=reference.rows,
            null_share=null_share,
            reference_null_share=reference.null_share,
            null_score=null_score,
            null_threshold=null_threshold,
            nulls_drifted=nulls_drifted,
            evidently_score=evidently_score,
            new_categories=self._new_categories(reference),
        )

    def _status(self, reference: Reference, rows: int, count: int) -> Status:
        if self._moving is None:
            return "absent"
        if reference.count == 0:
            return "no reference"
        if rows < self._drift.min_rows:
            return "too few rows"
        if count == 0:
            return "all null"
        # What is judged are values: those that a dying feed has left may be too few.
        return "too few values" if count < self._drift.min_rows else "scored"

    def _scores(self, reference: Reference, steps: SharedSteps) -> tuple[float, float]:
        """The score, and Evidently's; they are the same where no value lies beyond the fences."""
        if isinstance(self._moving, MovingCounts):
            score = self._of_shares(*counted_shares(*self._moving.beside(reference)))
            return score, score
        assert self._moving is not None
        before, now = reference.ordered, self._moving.ordered
        if self._column.method(self._drift) == "ks":
            # Ranks: outliers do not inflate them.
            score = measure_ks(before, now)
            return score, score
        evidently_score = self._distance(reference, before, now, reference.scale, steps)
        fences = reference.fences.around(Fences.of(now))
        clipped, shown = fences.clip(before), fences.clip(now)
        if clipped is before and shown is now and reference.clipped_scale == reference.scale:
            return evidently_score, evidently_score
        scale = reference.clipped_scale
        return self._distance(reference, clipped, shown, scale, steps), evidently_score

    def _distance(
        self, reference: Reference, before: Floats, now: Floats, scale: float, steps: SharedSteps
    ) -> float:
        if self._column.method(self._drift) != "wasserstein":
            return self._of_shares(*binned_shares(before, now, reference.distinct))
        return measure_wasserstein(before, now, scale, steps.of(len(before), len(now)))

    def _of_shares(self, before: Floats, now: Floats) -> float:
        psi = self._column.method(self._drift) == "psi"
        return (measure_psi if psi else measure_jensenshannon)(before, now)

    def _is_drifted(self, status: Status, score: float | None) -> bool | None:
        if score is None:
            return True if status in {"absent", "all null"} else None
        column, drift = self._column, self._drift
        return is_beyond(column.method(drift), score, column.threshold(drift))

    def _new_categories(self, reference: Reference) -> int | None:
        if not isinstance(self._moving, MovingCounts) or reference.count == 0:
            return None
        before, now = self._moving.beside(reference)
        return int(((before == 0) & (now > 0)).sum())


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else abs(one - other)

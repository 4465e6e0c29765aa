"""Drift scores of many overlapping windows against one reference each.

Neighbouring windows share most of their rows, so a column is kept sorted (or counted) while its
window moves: the day that leaves is taken out, the day that arrives is put in.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import pandas as pd

from ml_platform.monitoring.columns import Kind, MonitoredColumn, Readings, microseconds
from ml_platform.monitoring.distances import (
    SharedSteps,
    binned_shares,
    counted_shares,
    measure_jensenshannon,
    measure_ks,
    measure_psi,
    measure_wasserstein,
)
from ml_platform.monitoring.samples import MovingCounts, MovingOrder, Reference
from ml_platform.spec.watching import Drift

Status = Literal["scored", "too few rows", "all null", "absent", "no reference"]


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
    """None where the column is not judged."""
    status: Status
    current_rows: int
    reference_rows: int
    null_share: float | None
    """Share of missing values in the window; None where it has no rows."""
    new_categories: int | None
    """Categories of the window that the reference sample lacks; None for numbers."""


@dataclass(frozen=True)
class Trail:
    """The rows that one window is judged by, and the version whose reference it is held against."""

    since: datetime
    until: datetime
    version: int


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
    judges = [_Judge(c, readings.get(c.name), references, drift) for c in columns]
    steps = SharedSteps()
    for trail in trails:
        steps.move_on()
        yield [judge.judge(trail, steps) for judge in judges]


class _Judge:
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
        status: Status = "scored"
        if self._moving is None:
            status = "absent"
        elif reference.count == 0:
            status = "no reference"
        elif rows < self._drift.min_rows:
            status = "too few rows"
        elif count == 0:
            status = "all null"
        score = self._score(reference, steps) if status == "scored" else None
        return ColumnDrift(
            column=self._column.name,
            kind=self._column.kind,
            method=self._column.method(self._drift),
            score=score,
            threshold=self._column.threshold(self._drift),
            drifted=self._is_drifted(status, score),
            status=status,
            current_rows=rows,
            reference_rows=reference.rows,
            null_share=(rows - count) / rows if rows else None,
            new_categories=self._new_categories(reference),
        )

    def _score(self, reference: Reference, steps: SharedSteps) -> float:
        method = self._column.method(self._drift)
        if isinstance(self._moving, MovingCounts):
            shares = counted_shares(*self._moving.beside(reference))
        else:
            assert self._moving is not None
            current = self._moving.ordered
            if method == "wasserstein":
                of_sizes = steps.of(reference.count, len(current))
                return measure_wasserstein(reference.ordered, current, reference.scale, of_sizes)
            if method == "ks":
                return measure_ks(reference.ordered, current)
            shares = binned_shares(reference.ordered, current, reference.distinct)
        return (measure_psi if method == "psi" else measure_jensenshannon)(*shares)

    def _is_drifted(self, status: Status, score: float | None) -> bool | None:
        if score is None:
            return True if status in {"absent", "all null"} else None
        threshold = self._column.threshold(self._drift)
        # A p-value is small where samples differ, a distance large.
        p_value = self._column.method(self._drift) == "ks"
        return score <= threshold if p_value else score >= threshold

    def _new_categories(self, reference: Reference) -> int | None:
        if not isinstance(self._moving, MovingCounts) or reference.count == 0:
            return None
        before, now = self._moving.beside(reference)
        return int(((before == 0) & (now > 0)).sum())

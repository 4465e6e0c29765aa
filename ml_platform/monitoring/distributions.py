"""The two sides of a drift report, column by column: shares of values in common bins."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.errors import TableNotFound
from ml_platform.monitoring.columns import MonitoredColumn, current_frame, monitored_columns
from ml_platform.monitoring.readings import read_columns
from ml_platform.monitoring.scores import Trail, trail
from ml_platform.monitoring.stored_drift import StoredDrift
from ml_platform.registry import ModelVersion, Registry
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake

BINS = 20
"""Of equal width, between the percentiles `EDGES`; the outer ones hold what lies beyond."""
EDGES = (1.0, 99.0)
CATEGORIES = 12
"""Shown by name; the others are summed."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ComparedRows:
    """The rows that a drift report compares."""

    rows: Trail
    """The range of event time, as it is compared."""
    model: ModelVersion
    columns: tuple[MonitoredColumn, ...]
    current: pd.DataFrame
    """Monitored columns of the range; rows need not belong together."""
    reference: pd.DataFrame
    """Those of them that the reference has."""
    snapshot: int
    """The state of the lake that was read."""
    expired: bool
    """Whether that is another one than the report's, which has expired."""


@dataclass(frozen=True)
class Distribution:
    """One column on both sides."""

    column: str
    numeric: bool
    bins: tuple[str, ...]
    """What each bin holds, in words."""
    reference: tuple[float, ...]
    """Share of the reference's values in each bin; of those that are not missing."""
    current: tuple[float, ...]
    reference_rows: int
    current_rows: int


def compared_rows(
    lake: Lake, registry: Registry, use_case: UseCase, window: Window, stored: StoredDrift
) -> ComparedRows:
    """Read both sides of a stored report again, at the snapshot that it was computed from."""
    model = registry.load(use_case, stored.version)
    rows = trail(use_case, window, stored.version)
    with lake.cursor(use_case.timezone) as cursor:
        window_range, snapshot = Window(rows.since, rows.until), stored.snapshot
        try:
            readings = read_columns(cursor, lake, use_case, window_range, snapshot)
        except TableNotFound:
            snapshot = lake.snapshot(cursor)
            readings = read_columns(cursor, lake, use_case, window_range, snapshot)
    columns = monitored_columns(use_case)
    known = {
        c.name: c.values(model.reference[c.name]) for c in columns if c.name in model.reference
    }
    return ComparedRows(
        rows,
        model,
        columns,
        current_frame(readings, rows.since, rows.until),
        pd.DataFrame(known),
        snapshot,
        snapshot != stored.snapshot,
    )


def distributions(compared: ComparedRows, names: Sequence[str]) -> dict[str, Distribution]:
    """Columns by name that have a value on either side; the others are left out."""
    by_name = {column.name: column for column in compared.columns}
    found: dict[str, Distribution] = {}
    for name in names:
        if name not in by_name or name not in compared.current:
            continue
        current = compared.current[name].dropna()
        reference = compared.reference.get(name, pd.Series(dtype=object)).dropna()
        if len(current) or len(reference):
            found[name] = distribution(by_name[name], reference, current)
    return found


def distribution(
    column: MonitoredColumn, reference: "pd.Series[Any]", current: "pd.Series[Any]"
) -> Distribution:
    """Both sides of a column in common bins.

    reference, current: values without missing ones, as `MonitoredColumn.values` makes them; one of
    them may be empty.
    """
    sides = (reference, current)
    if column.numeric:
        bins, counts = _numbers(*(side.to_numpy(dtype=np.float64) for side in sides))
    else:
        bins, counts = _categories(*sides)
    shares = [tuple((c / max(c.sum(), 1.0)).tolist()) for c in counts]
    return Distribution(
        column.name, column.numeric, bins, shares[0], shares[1], len(reference), len(current)
    )


def _numbers(*sides: Floats) -> tuple[tuple[str, ...], list[Floats]]:
    everything = np.concatenate(sides)
    distinct = np.unique(everything)
    if len(distinct) <= BINS:
        names = tuple(f"{value:.6g}" for value in distinct)
        return names, [(side[:, None] == distinct).sum(axis=0).astype(np.float64) for side in sides]
    # By side: the larger one does not decide alone what both are drawn over.
    ends = [np.percentile(side, EDGES) for side in sides if len(side)]
    low, high = min(e[0] for e in ends), max(e[1] for e in ends)
    edges = (
        np.linspace(low, high, BINS + 1) if high > low else np.array([low, low + 0.5, low + 1.0])
    )
    counts = [
        np.histogram(np.clip(side, edges[0], edges[-1]), edges)[0].astype(np.float64)
        for side in sides
    ]
    inner = [f"{a:.4g} to {b:.4g}" for a, b in pairwise(edges[1:-1])]
    return (f"up to {edges[1]:.4g}", *inner, f"from {edges[-2]:.4g}"), counts


def _categories(*sides: "pd.Series[Any]") -> tuple[tuple[str, ...], list[Floats]]:
    counts = [side.value_counts() for side in sides]
    together = pd.concat([c / max(c.sum(), 1) for c in counts], axis=1).fillna(0.0)
    order = together.max(axis=1).sort_values(ascending=False, kind="stable").index
    named = list(order[:CATEGORIES])
    rest = len(order) - len(named)
    columns = []
    for each in counts:
        shown = [float(each.get(name, 0)) for name in named]
        columns.append(np.array([*shown, *([float(each.sum()) - sum(shown)] if rest else [])]))
    others = (f"{rest} other{'s' if rest > 1 else ''}",) if rest else ()
    return (*map(str, named), *others), columns

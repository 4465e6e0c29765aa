"""The leak check: take away what was not known, compute again, compare.

A cut at moment t hides every source row that was not known at t. Whatever a view says about
moments up to t has to stay as it is; where it does not, the feature looked into the future.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import pandas as pd

from ml_platform.errors import EmptyPartition, LeakFound
from ml_platform.features.known import features_sql
from ml_platform.features.views import Sight, view_sql, windows_sql
from ml_platform.sources.known import KnownVersions
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import UseCase, feature_table
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake, Written

# Sums of floats depend on their order, which a longer range may change.
RELATIVE_TOLERANCE = 1e-9
# A range is checked in a few of its windows, each at fewer moments: a query that leaks does so in
# every one.
WINDOWS_CHECKED = 2
CUTS_ALONE, CUTS_IN_A_RANGE = 4, 2


@dataclass(frozen=True)
class LeakReport:
    """What the check compared; `problem` is None where nothing differed."""

    view: str
    window: Window
    cuts: tuple[datetime, ...]
    rows_compared: int
    problem: str | None

    def raise_if_found(self) -> None:
        """Raise LeakFound with the first row that differs."""
        if self.problem:
            raise LeakFound(self.problem)


def check_written(lake: Lake, use_case: UseCase, view: str, written: Written) -> list[LeakReport]:
    """Check a view where it was just written: a single window, or a few of a range.

    Windows without rows are left out. Looks at the lake as the write left it: what others have
    written since is no leak.
    """
    cuts = CUTS_ALONE if len(written.rows) == 1 else CUTS_IN_A_RANGE
    filled = [window for window, rows in written.rows.items() if rows]
    return [
        check_leak(lake, use_case, view, window, cuts, written.snapshot)
        for window in _spread(filled)
    ]


def check_leak(
    lake: Lake,
    use_case: UseCase,
    view: str,
    window: Window,
    cuts: int = CUTS_ALONE,
    snapshot: int | None = None,
) -> LeakReport:
    """Compare a stored window of a view with what it yields when the future is hidden.

    cuts: how many moments of the window are tried, spread over its rows, the last row included;
    snapshot: of the lake, by default the newest. Raises EmptyPartition where the window has no
    rows.
    """
    keys = ["event_time", *use_case.features[view].entity]
    with lake.cursor(use_case.timezone) as cursor:
        if snapshot is None:
            snapshot = lake.snapshot(cursor)
        relation = lake.relation(cursor, use_case.name, feature_table(view), snapshot)
        stored = _read(cursor, f"FROM {relation} WHERE {windows_sql(use_case, window)}", keys)
        if stored.empty:
            raise EmptyPartition(f"{use_case.name}/{feature_table(view)} has no rows in {window}")
        moments = _moments(stored, cuts)
        versions = KnownVersions(lake, cursor, use_case, snapshot)
        compared = 0
        for moment in moments:
            # What was known then: corrections that came later are hidden, too.
            known = features_sql(versions, view, windows_sql(use_case, window), moment)
            if known != relation:
                told = f"FROM {known} WHERE {windows_sql(use_case, window)}"
                kept = _read(cursor, told, keys)
                kept = kept[kept["event_time"] <= moment]
            else:
                kept = stored[stored["event_time"] <= moment]
            compared += len(kept)
            sight = Sight(window, snapshot, moment)
            if difference := _difference(lake, cursor, use_case, view, kept, sight):
                # With everything shown the same rows must come back; else the range is to blame.
                unhidden = _difference(
                    lake, cursor, use_case, view, stored, Sight(window, snapshot)
                )
                problem = _explain(use_case, view, window, moment, difference, bool(unhidden))
                return LeakReport(view, window, moments, compared, problem)
        return LeakReport(view, window, moments, compared, None)


def _spread(windows: Sequence[Window]) -> Sequence[Window]:
    if len(windows) <= WINDOWS_CHECKED:
        return windows
    last = len(windows) - 1
    return [windows[last * i // (WINDOWS_CHECKED - 1)] for i in range(WINDOWS_CHECKED)]


def _moments(stored: pd.DataFrame, cuts: int) -> tuple[datetime, ...]:
    last = len(stored) - 1
    rows = [last * (i + 1) // cuts for i in range(cuts)]
    times = [stored["event_time"].iloc[row].to_pydatetime() for row in rows]
    return tuple(dict.fromkeys(times))


def _read(cursor: duckdb.DuckDBPyConnection, query: str, keys: list[str]) -> pd.DataFrame:
    order = ", ".join(quote(key) for key in keys)
    rows: pd.DataFrame = cursor.execute(f"{query} ORDER BY {order}").to_arrow_table().to_pandas()
    return rows


def _difference(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    view: str,
    stored: pd.DataFrame,
    sight: Sight,
) -> str:
    declared = use_case.features[view]
    keys = ["event_time", *declared.entity]
    query = view_sql(lake, cursor, use_case, view, sight)
    again = _read(cursor, f"SELECT * FROM ({query})", keys)
    if sight.known_by is not None:
        again = again[again["event_time"] <= sight.known_by]
    both = stored.merge(again, on=keys, how="outer", suffixes=("", "_again"), indicator="_side")
    for side, said in ("right_only", "the row appears"), ("left_only", "the row is gone"):
        if (both["_side"] == side).any():
            return f"{_named(both[both['_side'] == side].iloc[-1], keys)}: {said}"
    for feature in declared.features:
        one, other = both[feature], both[f"{feature}_again"]
        if not (same := _same(one, other)).all():
            row = both[~same].iloc[-1]
            return (
                f"{_named(row, keys)}: {feature}: stored {row[feature]}, "
                f"without the future {row[f'{feature}_again']}"
            )
    return ""


def _same(one: "pd.Series[Any]", other: "pd.Series[Any]") -> "pd.Series[bool]":
    neither = one.isna() & other.isna()
    if pd.api.types.is_float_dtype(one) and pd.api.types.is_float_dtype(other):
        larger = one.abs().where(one.abs() >= other.abs(), other.abs())
        return neither | (one == other) | ((one - other).abs() <= RELATIVE_TOLERANCE * larger)
    return neither | (one == other)


def _named(row: "pd.Series[Any]", keys: list[str]) -> str:
    at, *entity = keys
    return f"{', '.join(f'{key}={row[key]}' for key in entity)} at {row[at].isoformat()}"


def _explain(
    use_case: UseCase,
    view: str,
    window: Window,
    moment: datetime,
    difference: str,
    range_differs: bool,
) -> str:
    declared = use_case.features[view]
    file = use_case.folder / (declared.sql or f"features/{view}.sql")
    key = use_case.calendar.key(window)
    if range_differs:
        return (
            f"{file}: partition {key} computed alone differs from what is stored: {difference}. "
            f"Either its sources changed since, or the query looks further back than its lookback "
            f"of {declared.lookback}"
        )
    return (
        f"{file}: a leak in partition {key}: hiding what was not known at {moment.isoformat()} "
        f"changes {difference}. A feature may use only rows with known_at <= its event_time"
    )

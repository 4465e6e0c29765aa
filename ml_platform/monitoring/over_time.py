"""How predictions are distributed and how late labels come, over time, as pages draw them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ml_platform.errors import TableNotFound
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import EXPLANATIONS, UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.storage.tables import WINDOW_START, naive_utc

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LARGEST_CLASSES = 6
"""Classes with a share of their own, the most frequent; the others are counted together."""
OTHER = "other classes"


@dataclass(frozen=True)
class PredictedWindow:
    """How the predictions of one window are distributed."""

    window: Window
    rows: int
    quantiles: tuple[float, ...] = ()
    """Of probabilities or of numbers, at `QUANTILES`; none of classes."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Share of the rows by predicted class; none of numbers."""


@dataclass(frozen=True)
class LabelDelay:
    """How long after the event the labels of one window were known."""

    window: Window
    labels: int
    median: timedelta
    most: timedelta
    """Nine in ten were known by then."""


def predicted_windows(
    lake: Lake, use_case: UseCase, newest: int, *, until: datetime | None = None
) -> list[PredictedWindow]:
    """The newest windows of the prediction table, in order of time.

    newest: at most so many; until: only windows that begin before this moment.
    """
    if "predicted" not in use_case.prediction_columns or use_case.label.task == "regression":
        name = next(iter(use_case.prediction_columns))
        rows = _rows(
            lake, use_case, "predictions",
            f"count(*), quantile_cont({quote(name)}, {list(QUANTILES)})", newest, until,
        )  # fmt: skip
        return [
            PredictedWindow(use_case.calendar.window_stored(start), count, tuple(quantiles))
            for start, count, quantiles in rows
        ]
    rows = _rows(
        lake, use_case, "predictions", "count(*), map_entries(histogram(predicted))", newest, until
    )
    counted: dict[str, int] = {}
    for _, _, classes in rows:
        for each in classes:
            counted[each["key"]] = counted.get(each["key"], 0) + each["value"]
    kept = sorted(counted, key=lambda name: (-counted[name], name))[:LARGEST_CLASSES]
    found = []
    for start, count, classes in rows:
        by_class = {each["key"]: each["value"] / count for each in classes}
        shares = {name: by_class.get(name, 0.0) for name in kept}
        if len(counted) > len(kept):
            shares[OTHER] = max(0.0, 1.0 - sum(shares.values()))
        found.append(PredictedWindow(use_case.calendar.window_stored(start), count, shares=shares))
    return found


def label_delays(
    lake: Lake, use_case: UseCase, newest: int, *, until: datetime | None = None
) -> list[LabelDelay]:
    """The newest windows that have labels, in order of time; as `predicted_windows`.

    As the labels say now: that of a row that was corrected counts from its correction.
    """
    rows = _rows(
        lake, use_case, "labels",
        "count(*), quantile_cont(epoch(known_at) - epoch(event_time), [0.5, 0.9])", newest, until,
    )  # fmt: skip
    return [
        LabelDelay(
            use_case.calendar.window_stored(start), count, *(timedelta(seconds=s) for s in seconds)
        )
        for start, count, seconds in rows
    ]


@dataclass(frozen=True)
class ContributedColumn:
    """How much a column moved the predictions that are explained, window by window."""

    column: str
    mean: float
    """Mean of the absolute contributions, in the unit of the prediction, over all windows."""
    windows: Mapping[Window, float]
    """The same of each window, in order of time."""


def contributed_columns(
    lake: Lake, use_case: UseCase, newest: int, *, until: datetime | None = None
) -> list[ContributedColumn]:
    """Columns by how much they moved predictions in the newest windows, the farthest first.

    As `predicted_windows`; empty where no explanations are stored.
    """
    counted = _rows(lake, use_case, EXPLANATIONS, "count(*)", newest, until)
    if not counted:
        return []
    with lake.cursor(use_case.timezone) as cursor:
        relation = lake.relation(cursor, use_case.name, EXPLANATIONS)
        rows = cursor.execute(
            f"""SELECT each.key, {WINDOW_START}, sum(abs(each.value)), count(*) FROM (
                SELECT {WINDOW_START}, unnest(map_entries(contributions)) AS each FROM {relation}
                WHERE {WINDOW_START} BETWEEN $1 AND $2
            ) GROUP BY ALL ORDER BY ALL""",
            [counted[0][0], counted[-1][0]],
        ).fetchall()
    sums: dict[str, dict[datetime, tuple[float, int]]] = {}
    for column, start, total, count in rows:
        sums.setdefault(column, {})[start] = (total, count)
    found = [
        ContributedColumn(
            column,
            sum(total for total, _ in by.values()) / sum(count for _, count in by.values()),
            {use_case.calendar.window_stored(s): total / n for s, (total, n) in by.items()},
        )
        for column, by in sums.items()
    ]
    return sorted(found, key=lambda each: (-each.mean, each.column))


def _rows(
    lake: Lake, use_case: UseCase, table: str, selected: str, newest: int, until: datetime | None
) -> list[tuple[Any, ...]]:
    with lake.cursor(use_case.timezone) as cursor:
        try:
            relation = lake.relation(cursor, use_case.name, table)
        except TableNotFound:
            return []
        before = f"($1 IS NULL OR {WINDOW_START} < $1)"
        found = cursor.execute(
            f"SELECT max({WINDOW_START}) FROM {relation} WHERE {before}",
            [naive_utc(until) if until else None],
        ).fetchone()
        if not found or found[0] is None:
            return []
        last = use_case.calendar.window_stored(found[0])
        # Files of what was long before are not opened. A window may be longer than the last one
        # by an hour or by days, as months are.
        first = naive_utc(last.start - (last.end - last.start) * newest * 1.2)
        rows = cursor.execute(
            f"""SELECT {WINDOW_START}, {selected} FROM {relation}
            WHERE {WINDOW_START} BETWEEN $1 AND $2 GROUP BY 1 ORDER BY 1 DESC LIMIT $3""",
            [first, found[0], newest],
        ).fetchall()
    return rows[::-1]

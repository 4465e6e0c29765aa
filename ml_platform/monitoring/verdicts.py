"""Whether each reported window passed: basis of notifications and of retraining."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Literal

from ml_platform.errors import TableNotFound
from ml_platform.monitoring.scores import is_failure
from ml_platform.spec.queries import literal
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.storage.tables import WINDOW_START

Cause = Literal["drift", "performance"]
REPORTS: dict[Cause, tuple[str, str, str, str]] = {
    "drift": ("drift_report", "column_name", "drifted", "TRUE"),
    "performance": ("performance_report", "metric", "passed", "revision = 'current'"),
}
"""Table, what its rows are about, what they say of it, and which of them count."""


def drift_passed(
    use_case: UseCase, drifted: Mapping[str, bool], chosen: Collection[str] | None = None
) -> bool | None:
    """Whether a window passes by the columns that count; None where none of them was judged.

    drifted: by column, of those that were judged; chosen: those that count, by default all.
    """
    counted = [each for name, each in drifted.items() if chosen is None or name in chosen]
    if not counted:
        return None
    return not is_failure(sum(counted), len(counted), use_case.monitoring.drift.share)


def performance_passed(
    kept: Mapping[str, bool], chosen: Collection[str] | None = None
) -> bool | None:
    """Whether a window passes by the metrics that count; None where none of them was measured.

    kept: whether its bounds were kept, by metric; chosen: those that count, by default all.
    """
    counted = [each for name, each in kept.items() if chosen is None or name in chosen]
    return all(counted) if counted else None


@dataclass(frozen=True)
class Streak:
    """The newest verdict, and for how long it has been the same."""

    passed: bool
    newest: Window
    since: Window
    """The first of the unbroken run of windows with this verdict that ends with the newest."""
    windows: int
    """How many they are."""


def newest_streak(lake: Lake, use_case: UseCase, cause: Cause) -> Streak | None:
    """The newest verdict of reports; None where no window could be judged."""
    verdicts = _verdicts(lake, use_case, cause, None)
    if not verdicts:
        return None
    newest, passed = verdicts[-1]
    alike = [start for start, _ in takewhile(lambda v: v[1] == passed, reversed(verdicts))]
    return Streak(
        passed,
        use_case.calendar.window_stored(newest),
        use_case.calendar.window_stored(alike[-1]),
        len(alike),
    )


def window_verdicts(lake: Lake, use_case: UseCase, cause: Cause) -> list[tuple[Window, bool]]:
    """(window, passed) of every window that could be judged, in order of time."""
    verdicts = _verdicts(lake, use_case, cause, None)
    return [(use_case.calendar.window_stored(start), passed) for start, passed in verdicts]


def retraining_verdicts(lake: Lake, use_case: UseCase, cause: Cause) -> list[tuple[Window, bool]]:
    """The same by what counts for retraining: `retrain.columns` and `retrain.metrics`."""
    columns, metrics = use_case.retrain.columns, use_case.retrain.metrics
    verdicts = _verdicts(lake, use_case, cause, columns if cause == "drift" else metrics)
    return [(use_case.calendar.window_stored(start), passed) for start, passed in verdicts]


def _verdicts(
    lake: Lake, use_case: UseCase, cause: Cause, chosen: Collection[str] | None
) -> list[tuple[datetime, bool]]:
    """As `window_verdicts`, by the start as it is stored: there may be very many."""
    table, name, said, where = REPORTS[cause]
    if chosen is not None:
        where += f" AND {name} IN ({', '.join(map(literal, chosen)) or 'NULL'})"
    with lake.cursor() as cursor:
        try:
            relation = lake.relation(cursor, use_case.name, table)
        except TableNotFound:
            return []
        # Counted there: a report has a row for each column or metric of each window.
        rows = cursor.execute(
            f"""SELECT {WINDOW_START}, count(*) FILTER ({said}), count(*) FROM {relation}
            WHERE {where} AND {said} IS NOT NULL GROUP BY 1 ORDER BY 1"""
        ).fetchall()
    limit = use_case.monitoring.drift.share
    return [
        (start, not is_failure(true, counted, limit) if cause == "drift" else true == counted)
        for start, true, counted in rows
    ]

"""Whether each reported window passed: what retraining is decided on.

Of what a report says only that counts which the use case's `retrain` names.
"""

from collections.abc import Callable, Mapping
from datetime import UTC
from typing import Literal

from ml_platform.errors import TableNotFound
from ml_platform.monitoring.drift import is_failure
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.storage.tables import WINDOW_START

Cause = Literal["drift", "performance"]


def drift_passed(use_case: UseCase, drifted: Mapping[str, bool]) -> bool | None:
    """Whether a window passes by the columns that count; None where none of them was judged.

    drifted: by column, of those that were judged.
    """
    chosen = use_case.retrain.columns
    counted = [each for name, each in drifted.items() if chosen is None or name in chosen]
    if not counted:
        return None
    return not is_failure(sum(counted), len(counted), use_case.monitoring.drift.share)


def performance_passed(use_case: UseCase, kept: Mapping[str, bool]) -> bool | None:
    """Whether a window passes by the metrics that count; None where none of them was measured.

    kept: whether its bounds were kept, by metric.
    """
    chosen = use_case.retrain.metrics
    counted = [each for name, each in kept.items() if chosen is None or name in chosen]
    return all(counted) if counted else None


def window_verdicts(lake: Lake, use_case: UseCase, cause: Cause) -> list[tuple[Window, bool]]:
    """(window, passed) of every window that could be judged, in order of time."""
    judge: Callable[[UseCase, Mapping[str, bool]], bool | None]
    if cause == "drift":
        table, name, said, judge = "drift_report", "column_name", "drifted", drift_passed
        where = "TRUE"
    else:
        table, name, said, judge = "performance_report", "metric", "passed", performance_passed
        where = "revision = 'current'"
    with lake.cursor() as cursor:
        try:
            relation = lake.relation(cursor, use_case.name, table)
        except TableNotFound:
            return []
        rows = cursor.execute(
            f"""SELECT {WINDOW_START}, list({name}), list({said}) FROM {relation}
            WHERE {where} AND {said} IS NOT NULL GROUP BY 1 ORDER BY 1"""
        ).fetchall()
    verdicts = []
    for start, names, values in rows:
        passed = judge(use_case, dict(zip(names, values, strict=True)))
        if passed is not None:
            verdicts.append((use_case.calendar.window_at(start.replace(tzinfo=UTC)), passed))
    return verdicts

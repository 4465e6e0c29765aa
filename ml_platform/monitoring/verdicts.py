"""Whether each reported window passed: what retraining is decided on."""

from datetime import UTC
from typing import Literal

from ml_platform.errors import TableNotFound
from ml_platform.monitoring.drift import is_failure, stored_drift
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.storage.tables import WINDOW_START


def window_verdicts(
    lake: Lake, use_case: UseCase, cause: Literal["drift", "performance"]
) -> list[tuple[Window, bool]]:
    """(window, passed) of every window that could be judged, in order of time."""
    if cause == "performance":
        return _performance(lake, use_case)
    limit = use_case.monitoring.drift.share
    return [
        (report.window, not is_failure(len(report.drifted), report.judged, limit))
        for report in stored_drift(lake, use_case)
        if report.judged
    ]


def _performance(lake: Lake, use_case: UseCase) -> list[tuple[Window, bool]]:
    with lake.cursor() as cursor:
        try:
            relation = lake.relation(cursor, use_case.name, "performance_report")
        except TableNotFound:
            return []
        rows = cursor.execute(
            f"""SELECT {WINDOW_START}, any_value(passed) FROM {relation}
            WHERE revision = 'current' AND passed IS NOT NULL GROUP BY 1 ORDER BY 1"""
        ).fetchall()
    calendar = use_case.calendar
    return [(calendar.window_at(start.replace(tzinfo=UTC)), passed) for start, passed in rows]

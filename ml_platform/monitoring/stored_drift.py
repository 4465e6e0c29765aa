"""Drift reports as the lake holds them, one summary a window."""

from dataclasses import dataclass

from ml_platform.errors import EmptyPartition, TableNotFound
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.storage.tables import WINDOW_START, naive_utc


@dataclass(frozen=True)
class StoredDrift:
    """Summary of one report as the lake holds it."""

    window: Window
    version: int
    snapshot: int
    """State of the lake that was compared."""
    judged: int
    drifted: tuple[str, ...]
    largest_score: float | None


def stored_drift(lake: Lake, use_case: UseCase, window: Window | None = None) -> list[StoredDrift]:
    """Summaries of the stored reports, in order of time; of one window where it is given.

    Raises EmptyPartition where that window has no report.
    """
    with lake.cursor(use_case.timezone) as cursor:
        try:
            relation = lake.relation(cursor, use_case.name, "drift_report")
            rows = cursor.execute(
                f"""SELECT {WINDOW_START}, any_value(reference_version), max(snapshot),
                count(drifted), coalesce(list(column_name ORDER BY score DESC NULLS FIRST)
                FILTER (drifted), []), max(score)
                FROM {relation} WHERE $1 IS NULL OR {WINDOW_START} = $1 GROUP BY 1 ORDER BY 1""",
                [naive_utc(window.start) if window else None],
            ).fetchall()
        except TableNotFound:
            rows = []
    if window and not rows:
        raise EmptyPartition(
            f"{use_case.name} has no drift report for {use_case.calendar.key(window)}; "
            f"materialise {use_case.name}/drift_report for it first"
        )
    return [
        StoredDrift(
            use_case.calendar.window_stored(start),
            version,
            snapshot,
            judged,
            tuple(drifted),
            largest,
        )
        for start, version, snapshot, judged, drifted, largest in rows
    ]

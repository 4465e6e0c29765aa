"""How drift and performance stand now: the newest window that could be judged."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ml_platform.monitoring.drift import stored_drift
from ml_platform.monitoring.verdicts import window_verdicts
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.storage.tables import WINDOW_START, naive_utc


@dataclass(frozen=True)
class ColumnScore:
    """A drifted column of a report; a column that vanished has no score."""

    column: str
    score: float | None
    threshold: float


@dataclass(frozen=True)
class Latest:
    """What the newest judged window says, and for how long it has been so."""

    window: Window
    passed: bool
    value: float
    """Share of drifted columns, or the model's metric."""
    rows: int
    """Columns judged, or labelled predictions."""
    versions: tuple[int, ...]
    """Whose training data drift is measured against, or who made the predictions."""
    streak: tuple[Window, ...]
    """The unbroken run of windows with this verdict that ends with the newest, in order."""
    columns: tuple[ColumnScore, ...] = field(default=())
    """Drifted columns, the farthest first."""


def latest_drift(lake: Lake, use_case: UseCase) -> Latest | None:
    """How drift stands; None where no window could be judged yet."""
    verdicts = window_verdicts(lake, use_case, "drift")
    if not verdicts:
        return None
    window, passed = verdicts[-1]
    (report,) = stored_drift(lake, use_case, window)
    return Latest(
        window,
        passed,
        value=len(report.drifted) / report.judged,
        rows=report.judged,
        versions=(report.version,),
        streak=_streak(verdicts),
        columns=_drifted_columns(lake, use_case, window),
    )


def latest_performance(lake: Lake, use_case: UseCase) -> Latest | None:
    """How performance stands; None where no window could be judged yet, or no bound is set."""
    verdicts = window_verdicts(lake, use_case, "performance")
    if not verdicts:
        return None
    window, passed = verdicts[-1]
    with lake.cursor() as cursor:
        relation = lake.relation(cursor, use_case.name, "performance_report")
        row = cursor.execute(
            f"""SELECT value, labelled, model_versions FROM {relation}
            WHERE {WINDOW_START} = ? AND revision = 'current' AND metric = ?""",
            [naive_utc(window.start), use_case.model.metric],
        ).fetchone()
    # A window is judged by this very metric, so there is a row with a value.
    assert row is not None
    value, labelled, versions = row
    return Latest(window, passed, value, labelled, tuple(versions), _streak(verdicts))


def bounds_text(use_case: UseCase) -> str:
    """The bounds that performance has to keep, in words."""
    spec = use_case.monitoring.performance
    named = [("at least", spec.min), ("at most", spec.max)]
    return " and ".join(f"{word} {bound}" for word, bound in named if bound is not None)


def _streak(verdicts: Sequence[tuple[Window, bool]]) -> tuple[Window, ...]:
    newest = verdicts[-1][1]
    broken = next((i for i, (_, v) in enumerate(reversed(verdicts)) if v != newest), len(verdicts))
    return tuple(window for window, _ in verdicts[len(verdicts) - broken :])


def _drifted_columns(lake: Lake, use_case: UseCase, window: Window) -> tuple[ColumnScore, ...]:
    with lake.cursor() as cursor:
        relation = lake.relation(cursor, use_case.name, "drift_report")
        rows = cursor.execute(
            f"""SELECT column_name, score, threshold FROM {relation}
            WHERE {WINDOW_START} = ? AND drifted
            ORDER BY CASE WHEN method = 'ks' THEN -score ELSE score END / threshold
            DESC NULLS FIRST, column_name""",
            [naive_utc(window.start)],
        ).fetchall()
    return tuple(ColumnScore(*row) for row in rows)

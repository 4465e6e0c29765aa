"""How drift and performance stand now: the newest window that could be judged."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ml_platform.errors import TableNotFound
from ml_platform.monitoring.scores import drifted_column, named_column
from ml_platform.monitoring.stored_drift import stored_drift
from ml_platform.monitoring.verdicts import REPORTS, Cause, Streak, newest_streak
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.storage.tables import WINDOW_START, naive_utc


@dataclass(frozen=True)
class ColumnScore:
    """A drifted column of a report."""

    column: str
    score: float | None
    """None where its values were not judged: it vanished, or too few are left."""
    threshold: float
    values_drifted: bool
    null_share: float | None
    reference_null_share: float | None
    nulls_drifted: bool

    def __str__(self) -> str:
        named = named_column(
            self.column, self.nulls_drifted, self.null_share, self.reference_null_share
        )
        score = self.score if self.values_drifted else None
        return drifted_column(named, score, self.threshold, self.nulls_drifted)


@dataclass(frozen=True)
class Unjudged:
    """A reported window that says nothing: not that all is well, nor that it is not."""

    window: Window
    why: str
    """The status of its report, such as `too few labels`."""


@dataclass(frozen=True)
class Latest:
    """What the newest judged window says, and for how long it has been so."""

    window: Window
    passed: bool
    value: float
    """Share of drifted columns, or the metric."""
    rows: int
    """Columns judged, or labelled predictions."""
    versions: tuple[int, ...]
    """Whose training data drift is measured against, or who made the predictions."""
    streak: Streak
    columns: tuple[ColumnScore, ...] = field(default=())
    """Drifted columns, the farthest first."""
    metric: str = ""
    """What `value` is, of performance: one that fails where one does, else the model's."""
    bounds: str = ""
    """Between what the metric has to be, in words."""
    unjudged: tuple[Unjudged, ...] = ()
    """Windows since then that have a report and could not be judged, in order."""


def latest_drift(lake: Lake, use_case: UseCase) -> Latest | None:
    """How drift stands; None where no window could be judged yet."""
    streak = newest_streak(lake, use_case, "drift")
    if streak is None:
        return None
    window, passed = streak.newest, streak.passed
    (report,) = stored_drift(lake, use_case, window)
    return Latest(
        window,
        passed,
        value=len(report.drifted) / report.judged,
        rows=report.judged,
        versions=(report.version,),
        streak=streak,
        columns=_drifted_columns(lake, use_case, window),
        unjudged=unjudged_since(lake, use_case, "drift", window),
    )


def latest_performance(lake: Lake, use_case: UseCase) -> Latest | None:
    """How performance stands; None where no window could be judged yet, or no bound is set."""
    streak = newest_streak(lake, use_case, "performance")
    if streak is None:
        return None
    window, passed = streak.newest, streak.passed
    with lake.cursor() as cursor:
        relation = lake.relation(cursor, use_case.name, "performance_report")
        row = cursor.execute(
            f"""SELECT metric, value, labelled, model_versions FROM {relation}
            WHERE {WINDOW_START} = ? AND revision = 'current' AND passed IS NOT NULL
            ORDER BY passed, metric <> ?, metric""",
            [naive_utc(window.start), use_case.model.metric],
        ).fetchone()
    # A window is judged by its metrics, so there is a row with a value.
    assert row is not None
    metric, value, labelled, versions = row
    bounds = use_case.monitoring.performance.bounds_by(use_case.model.metric)
    return Latest(
        window,
        passed,
        value,
        labelled,
        tuple(versions),
        streak,
        metric=metric,
        bounds=str(bounds.get(metric, "")),
        unjudged=unjudged_since(lake, use_case, "performance", window),
    )


def unjudged_since(
    lake: Lake, use_case: UseCase, cause: Cause, judged: Window | None
) -> tuple[Unjudged, ...]:
    """Reported windows after one, of all where it is None, that could not be judged, and why."""
    table, _, said, where = REPORTS[cause]
    with lake.cursor() as cursor:
        try:
            relation = lake.relation(cursor, use_case.name, table)
        except TableNotFound:
            return ()
        rows = cursor.execute(
            f"""SELECT {WINDOW_START}, mode(status) FROM {relation}
            WHERE {where} AND ($1 IS NULL OR {WINDOW_START} > $1)
            GROUP BY 1 HAVING count({said}) = 0 ORDER BY 1""",
            [naive_utc(judged.start) if judged else None],
        ).fetchall()
    return tuple(Unjudged(use_case.calendar.window_stored(start), why) for start, why in rows)


def named_unjudged(use_case: UseCase, unjudged: Sequence[Unjudged]) -> str:
    """Windows that could not be judged, in a message; empty where there are none."""
    if not unjudged:
        return ""
    key = use_case.calendar.key
    first, last = key(unjudged[0].window), key(unjudged[-1].window)
    why = ", ".join(dict.fromkeys(each.why for each in unjudged))
    where = first if len(unjudged) == 1 else f"{len(unjudged)} partitions, {first} to {last}"
    return f"not judged since: {where} ({why})"


def _drifted_columns(lake: Lake, use_case: UseCase, window: Window) -> tuple[ColumnScore, ...]:
    with lake.cursor() as cursor:
        relation = lake.relation(cursor, use_case.name, "drift_report")
        rows = cursor.execute(
            f"""SELECT column_name, score, threshold,
            coalesce(CASE WHEN method = 'ks' THEN score <= threshold ELSE score >= threshold END,
            false), null_share, reference_null_share, coalesce(nulls_drifted, false)
            FROM {relation} WHERE {WINDOW_START} = ? AND drifted
            ORDER BY CASE WHEN score IS NOT NULL THEN greatest(null_score / null_threshold,
            CASE WHEN method = 'ks' THEN threshold / score ELSE score / threshold END) END
            DESC NULLS FIRST, column_name""",
            [naive_utc(window.start)],
        ).fetchall()
    return tuple(ColumnScore(*row) for row in rows)

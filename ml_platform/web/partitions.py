"""Pages of one partition: its drift report and its performance report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ml_platform.alerts.condition import counted
from ml_platform.errors import EmptyPartition, PlatformError, TableNotFound
from ml_platform.monitoring import stored_drift
from ml_platform.monitoring.curves import Curve, curves_of
from ml_platform.monitoring.distributions import Distribution, compared_rows, distributions
from ml_platform.monitoring.segments import latest_segments
from ml_platform.monitoring.series import (
    PerformanceWindow,
    ReportedColumn,
    column_drift,
    drift_windows,
    performance_windows,
)
from ml_platform.monitoring.stored_drift import StoredDrift
from ml_platform.spec.declared import LARGER_IS_BETTER
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage.tables import WINDOW_START, naive_utc
from ml_platform.web.site import Site, neighbours, path_to

DRAWN = 30
"""Columns whose distributions are drawn, the farthest first."""


def drift_partition(site: Site, name: str, key: str) -> dict[str, Any]:
    """What is known of one drift report; raises EmptyPartition where there is none."""
    case = site.use_case(name)
    window = site.window(case, key)
    (stored,) = stored_drift(site.lake, case, window)
    return {
        "case": case,
        "key": key,
        "stored": stored,
        "share": len(stored.drifted) / stored.judged if stored.judged else None,
        "limit": case.monitoring.drift.share,
        "version": path_to(case, "versions", stored.version),
        "evidently": path_to(case, "drift", f"{key}.html"),
        "dagster": site.in_dagster(case, "drift_report", window),
        "data": path_to(case, "drift", key),
        **_neighbours(case, [w.window for w in drift_windows(site.lake, case)], window, "drift"),
    }


def drift_columns(site: Site, case: UseCase, stored: StoredDrift) -> dict[str, Any]:
    """The columns and segments of a drift report; distributions are read again for it."""
    window = stored.window
    columns = sorted(column_drift(site.lake, case, window), key=_farthest_first)
    names = [column.column for column in columns[:DRAWN]]
    drawn: Mapping[str, Distribution] = {}
    problem = ""
    try:
        compared = compared_rows(site.lake, site.registry, case, window, stored)
        drawn = distributions(compared, names)
        if compared.expired:
            problem = (
                f"Snapshot {stored.snapshot}, which the scores were computed from, has expired; "
                f"the distributions are those of snapshot {compared.snapshot}."
            )
    except PlatformError as error:
        problem = f"Distributions cannot be drawn: {error}"
    segments = latest_segments(site.lake, case, window)
    return {
        "columns": [_column(column, drawn.get(column.column)) for column in columns],
        "problem": problem,
        "segments": segments[1] if segments else [],
    }


def _farthest_first(column: ReportedColumn) -> tuple[bool, float, str]:
    drifted = bool(column.drifted) or bool(column.nulls_drifted)
    return not drifted, -(column.severity or 0.0), column.column


def _column(column: ReportedColumn, drawn: Distribution | None) -> dict[str, Any]:
    return {"report": column, "said": in_words(column), "bars": drawn and bars(drawn)}


def in_words(column: ReportedColumn) -> str:
    """What a report says of a column, in a sentence."""
    said = []
    if column.score is not None and column.threshold is not None:
        side = "reached" if column.score >= column.threshold else "stayed below"
        said.append(f"{column.method} {column.score:.3g} {side} the limit {column.threshold:g}")
    else:
        said.append(f"values were not judged: {column.status}")
    if column.null_share is not None and column.reference_null_share is not None:
        if column.nulls_drifted:
            was, now = column.reference_null_share, column.null_share
            said.append(f"{now:.1%} are missing, {was:.1%} were")
        elif column.null_share >= 0.0005:
            said.append(f"{column.null_share:.1%} are missing")
    if column.new_categories:
        said.append(f"{column.new_categories} new categories")
    return "; ".join(said)


@dataclass(frozen=True)
class Bars:
    """Two distributions over the same bins, as boxes of a diagram of 320 by 96 pixels."""

    width: float
    height: float
    boxes: tuple[tuple[float, float, float, float, float, float, str], ...]
    """x, width, y and height of the reference, y and height now, and what it says."""


def bars(drawn: Distribution) -> Bars:
    """Boxes of a distribution."""
    width, height = 320.0, 96.0
    most = max(*drawn.reference, *drawn.current, 1e-12)
    step = width / len(drawn.bins)

    def box(position: int, name: str, was: float, now: float) -> tuple[Any, ...]:
        tall, tall_now = height * was / most, height * now / most
        label = f"{name}: {was:.1%} of the training data, {now:.1%} now"
        return (
            position * step, step - 1, height - tall, tall, height - tall_now, tall_now, label
        )  # fmt: skip

    sides = zip(drawn.bins, drawn.reference, drawn.current, strict=True)
    boxes = tuple(box(i, name, was, now) for i, (name, was, now) in enumerate(sides))
    return Bars(width, height, boxes)


def require_performance(site: Site, name: str, key: str) -> dict[str, Any]:
    """Use case and key of a performance report; EmptyPartition where there is none."""
    case = site.use_case(name)
    with site.lake.cursor() as cursor:
        try:
            table = site.lake.relation(cursor, name, "performance_report")
            sql = f"SELECT 1 FROM {table} WHERE {WINDOW_START} = $1 LIMIT 1"
            found = cursor.execute(sql, [naive_utc(site.window(case, key).start)]).fetchone()
        except TableNotFound:
            found = None
    if found is None:
        raise _not_reported(name, key)
    return {"case": case, "key": key}


def _not_reported(name: str, key: str) -> EmptyPartition:
    return EmptyPartition(
        f"{name} has no performance report for {key}; materialise "
        f"{name}/performance_report for it first"
    )


def performance_partition(site: Site, name: str, key: str) -> dict[str, Any]:
    """Values of the page of one performance report; EmptyPartition where there is none."""
    case = site.use_case(name)
    window = site.window(case, key)
    windows = performance_windows(site.lake, case)
    report = next((each for each in windows if each.window == window), None)
    if report is None:
        raise _not_reported(name, key)
    problem = ""
    curves = None
    try:
        curves = curves_of(site.lake, case, window, datetime.now(UTC))
    except TableNotFound as error:
        problem = str(error)
    segments = latest_segments(site.lake, case, window)
    return {
        "case": case,
        "key": key,
        "report": report,
        "metrics": _metrics(case, report),
        "curves": curves,
        "plots": _plots(curves) if curves else [],
        "problem": problem,
        "segments": [s for s in segments[1] if s.value is not None] if segments else [],
        "versions": [(v, path_to(case, "versions", v)) for v in report.versions],
        "dagster": site.in_dagster(case, "performance_report", window),
        "predictions": site.in_dagster(case, "predictions", window),
        "data": path_to(case, "performance", key),
        **_neighbours(case, [w.window for w in windows], window, "performance"),
    }


def _metrics(case: UseCase, report: PerformanceWindow) -> list[dict[str, Any]]:
    bounds = case.monitoring.performance.bounds_by(case.model.metric)
    names = sorted(report.current, key=lambda name: (name != case.model.metric, name))
    return [
        {
            "name": name,
            "value": report.current[name],
            "first": report.first.get(name),
            "bounds": str(bounds.get(name, "")),
            "failed": name in report.failing,
            "better": "higher" if name in LARGER_IS_BETTER else "lower",
        }
        for name in names
    ]


@dataclass(frozen=True)
class Plot:
    """A curve in a square of 0 to 1, or bars."""

    title: str
    x: str
    y: str
    line: str = ""
    """Points of a `<polyline>` in a square of 240 pixels."""
    dots: tuple[tuple[float, float, str], ...] = ()
    diagonal: bool = False
    boxes: tuple[tuple[float, float, float, float, str], ...] = ()
    """x, y, width, height and what it says."""
    ends: tuple[str, str] = ("0", "1")
    """Of the x axis."""


SIDE = 240.0


def _plots(curves: Any) -> list[Plot]:
    plots = []
    if curves.roc:
        plots.append(_curve("ROC curve", "false positive rate", "true positive rate", curves.roc,
                            diagonal=True))  # fmt: skip
    if curves.precision_recall:
        plots.append(_curve("Precision and recall", "recall", "precision",
                            curves.precision_recall))  # fmt: skip
    if curves.calibration:
        plots.append(_curve("Calibration", "mean probability", "share of positives",
                            curves.calibration, diagonal=True, dotted=True))  # fmt: skip
    if curves.deciles:
        plots.append(_scaled("Predicted and actual", "mean prediction", "mean of the label",
                             curves.deciles))  # fmt: skip
    if curves.residuals:
        plots.append(_bars("Residuals", "predicted - actual", curves.residuals))
    if curves.predicted:
        plots.append(_bars("Predictions", "predicted", curves.predicted))
    return plots


def _curve(
    title: str, x: str, y: str, curve: Curve, *, diagonal: bool = False, dotted: bool = False
) -> Plot:
    line = " ".join(f"{a * SIDE:.1f},{SIDE - b * SIDE:.1f}" for a, b in curve)
    dots = tuple((a * SIDE, SIDE - b * SIDE, f"{a:.3g}: {b:.3g}") for a, b in curve)
    return Plot(title, x, y, line, dots if dotted else (), diagonal)


def _scaled(title: str, x: str, y: str, curve: Curve) -> Plot:
    """On equal axes that reach from the least to the largest of both."""
    values = [value for point in curve for value in point]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    scaled = tuple(((a - low) / span, (b - low) / span) for a, b in curve)
    plot = _curve(title, x, y, scaled, diagonal=True)
    dots = tuple(
        (a * SIDE, SIDE - b * SIDE, f"predicted {p:.4g}, actual {q:.4g}")
        for (a, b), (p, q) in zip(scaled, curve, strict=True)
    )
    return Plot(title, x, y, plot.line, dots, True, ends=(f"{low:.4g}", f"{high:.4g}"))


def _bars(title: str, x: str, counts: Mapping[str, int]) -> Plot:
    most, step = max(counts.values()) or 1, SIDE / len(counts)
    boxes = tuple(
        (i * step, SIDE - SIDE * n / most, step - 1, SIDE * n / most,
         f"{name}: {counted(n, 'row')}")
        for i, (name, n) in enumerate(counts.items())
    )  # fmt: skip
    names = list(counts)
    ends = names[0].partition(" to ")[0], names[-1].rpartition(" to ")[2]
    return Plot(title, x, "rows", boxes=boxes, ends=ends)


def _neighbours(
    case: UseCase, windows: Sequence[Window], window: Window, table: str
) -> dict[str, Any]:
    before, after = neighbours(windows, window)
    return {
        "before": before and _place(case, before, table),
        "after": after and _place(case, after, table),
    }


def _place(case: UseCase, window: Window, table: str) -> tuple[str, str]:
    key = case.calendar.key(window)
    return key, path_to(case, table, key)

"""What a use case was like over time: the diagrams of its page."""

from collections.abc import Sequence
from datetime import timedelta

from ml_platform.alerts.condition import counted
from ml_platform.monitoring.over_time import LabelDelay, PredictedWindow
from ml_platform.monitoring.series import DriftWindow, PerformanceWindow
from ml_platform.registry import Promotion, champion_periods
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.web.charts import Series, Value, diagram
from ml_platform.web.overview import drift_value, performance_value
from ml_platform.web.site import path_to

CONFIDENT = 1.96
"""Standard errors on each side that hold 95 in a hundred samples."""
UNITS = (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0), ("seconds", 1.0))


def performance_diagram(
    case: UseCase, windows: Sequence[PerformanceWindow], decisions: Sequence[Promotion] = ()
) -> Series | None:
    """The model's metric over time, as now known and as first reported, with promotions.

    The band around what is now known holds 95 in a hundred samples of as many rows.
    """
    metric = case.model.metric
    bounds = case.monitoring.performance.bounds_by(metric).get(metric)
    named = [("at least", bounds.min), ("at most", bounds.max)] if bounds else []
    return diagram(
        [performance_value(case, each) for each in windows],
        [(value, f"{word} {value:g}") for word, value in named if value is not None],
        dates=_dates(case, [each.window for each in windows]),
        marks=_marks(case, [each.window for each in windows], decisions),
        seconds=[[each.first.get(metric) for each in windows]],
        bands=[[_interval(each, metric) for each in windows]],
    )


def coverage_diagram(case: UseCase, windows: Sequence[PerformanceWindow]) -> Series | None:
    """The share of predictions whose label is known; None where it is all of them."""
    if all(each.coverage == 1 for each in windows):
        return None
    values = [
        Value(each.coverage, f"{case.calendar.key(each.window)}: {each.coverage:.1%} labelled")
        for each in windows
    ]
    return diagram(values, dates=_dates(case, [w.window for w in windows]), floor=0.0)


def drift_diagram(
    case: UseCase, windows: Sequence[DriftWindow], decisions: Sequence[Promotion] = ()
) -> Series | None:
    """The share of drifted columns over time, with promotions."""
    limit = case.monitoring.drift.share
    return diagram(
        [drift_value(case, each) for each in windows],
        [(limit, f"limit {limit:g}")],
        dates=_dates(case, [each.window for each in windows]),
        marks=_marks(case, [each.window for each in windows], decisions),
        floor=0.0,
    )


def _interval(each: PerformanceWindow, metric: str) -> tuple[float, float] | None:
    if metric not in each.current or metric not in each.errors:
        return None
    value, far = each.current[metric], CONFIDENT * each.errors[metric]
    return value - far, value + far


def predictions_diagram(
    case: UseCase, windows: Sequence[PredictedWindow], decisions: Sequence[Promotion] = ()
) -> Series | None:
    """How predictions are distributed over time.

    Of probabilities and numbers the median, with a band for the middle half and one for nine in
    ten; of classes the share of each, the most frequent as the line.
    """
    if not windows:
        return None
    spans = [each.window for each in windows]
    places = [(case.calendar.key(each.window), each) for each in windows]
    if names := list(windows[0].shares):
        first = names[0]
        values = [
            Value(
                each.shares[first],
                f"{key}: " + ", ".join(f"{n} {s:.1%}" for n, s in each.shares.items()),
                path_to(case, "drift", key),
            )
            for key, each in places
        ]
        return diagram(
            values, dates=_dates(case, spans), marks=_marks(case, spans, decisions), floor=0.0,
            seconds=[[each.shares[name] for each in windows] for name in names[1:]],
        )  # fmt: skip
    values = [
        Value(
            each.quantiles[2],
            f"{key}: median {each.quantiles[2]:.4g}, half within {each.quantiles[1]:.4g} and "
            f"{each.quantiles[3]:.4g}, of {counted(each.rows, 'prediction')}",
            path_to(case, "drift", key),
        )
        for key, each in places
    ]
    bands = [
        [(w.quantiles[low], w.quantiles[high]) for w in windows] for low, high in ((0, 4), (1, 3))
    ]
    return diagram(
        values, dates=_dates(case, spans), marks=_marks(case, spans, decisions), bands=bands
    )


def delay_diagram(case: UseCase, windows: Sequence[LabelDelay]) -> tuple[Series | None, str]:
    """How long after the event labels were known, and the unit: median, and nine in ten."""
    if not windows:
        return None, ""
    longest = max(each.most for each in windows)
    unit, seconds = next((u for u in UNITS if longest.total_seconds() >= 2 * u[1]), UNITS[-1])

    def shown(delay: timedelta) -> float:
        return delay.total_seconds() / seconds

    values = [
        Value(
            shown(each.median),
            f"{case.calendar.key(each.window)}: half within {shown(each.median):.3g} {unit}, nine "
            f"in ten within {shown(each.most):.3g}, of {counted(each.labels, 'label')}",
        )
        for each in windows
    ]
    return diagram(
        values, dates=_dates(case, [each.window for each in windows]), floor=0.0,
        seconds=[[shown(each.most) for each in windows]],
    ), unit  # fmt: skip


def _dates(case: UseCase, windows: Sequence[Window]) -> list[tuple[int, str]]:
    """About six labels below an axis."""
    step = max(1, -(-len(windows) // 6))
    return [(i, case.calendar.key(windows[i])) for i in range(0, len(windows), step)]


def _marks(
    case: UseCase, windows: Sequence[Window], decisions: Sequence[Promotion]
) -> list[tuple[int, str, str]]:
    """The first partition that each champion answers for."""
    if not windows:
        return []
    found = []
    for period in champion_periods(decisions):
        later = [i for i, window in enumerate(windows) if window.end > period.since]
        if later and windows[0].start <= period.since:
            page = path_to(case, "versions", period.version)
            found.append((later[0], f"version {period.version}", page))
    return found

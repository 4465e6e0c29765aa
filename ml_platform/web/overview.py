"""The first page: what needs somebody, then one line a use case."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ml_platform.alerts.condition import Kind, counted
from ml_platform.monitoring.series import DriftWindow, PerformanceWindow
from ml_platform.spec.use_case import UseCase
from ml_platform.status import AlertGroup, Health, grouped, owner_of, summed
from ml_platform.web.charts import Series, Value, sparkline
from ml_platform.web.observer import Observation, Observer
from ml_platform.web.site import Site, path_to, shown_moment

ORDER: tuple[Kind, ...] = (
    "approval", "failed_run", "quarantine", "drift", "performance", "freshness", "serving",
    "rollout", "rollback", "refused", "promotion",
)  # fmt: skip
"""What is shown first."""
NAMES: dict[Kind, str] = {
    "approval": "Waits for approval",
    "failed_run": "Failed",
    "quarantine": "Quarantine",
    "drift": "Drift",
    "performance": "Performance",
    "freshness": "Late",
    "serving": "Service",
    "rollout": "Rollout",
    "rollback": "Rolled back",
    "refused": "Refused",
    "promotion": "Promoted",
}


@dataclass(frozen=True)
class OpenIssue:
    """One matter that somebody should look at, of one cause."""

    kind: str
    severity: str
    use_case: str
    title: str
    what: str
    """The newest of its conditions in full."""
    done: str
    since: str
    link: str
    """Where Dagster or the service shows it."""
    page: str
    """The page of the use case."""


def overview(site: Site, observer: Observer) -> dict[str, Any]:
    """Values of the first page."""
    cases = list(site.loaded.use_cases.values())
    seen = [(case, observer.of(case)) for case in cases]
    needs = [need for case, each in seen if each for need in _needs(case, each)]
    waiting = [case.name for case, each in seen if each is None]
    names = [case.name for case in cases]
    dagster = observer.dagster
    fails = [] if dagster is None else list(dagster.failing)
    return {
        "needs": [need for _, need in sorted(needs, key=lambda each: each[0])],
        "lines": [_line(site, case, each) for case, each in seen],
        "broken": {name: str(errors) for name, errors in site.loaded.broken.items()},
        "waiting": waiting,
        "problem": observer.problem or (dagster and dagster.problem) or "",
        "fails": [(f, owner_of(f, names)) for f in fails],
        "dagster": site.settings.dagster_url,
        "crumbs": False,
    }


def _needs(case: UseCase, seen: Observation) -> Iterator[tuple[tuple[int, float], OpenIssue]]:
    """With what they are sorted by: kind, then the newest first."""
    if seen.health is None:
        problem = OpenIssue(
            "Unreadable", "critical", case.name, seen.problem.partition("\n")[0], seen.problem, "",
            shown_moment(case, seen.at), "", path_to(case, ""),
        )  # fmt: skip
        yield (-1, 0.0), problem
        return
    for group in grouped(seen.health.alerts):
        condition = group.newest.condition
        order = ORDER.index(condition.kind), -condition.since.timestamp()
        yield order, _need(case, group)


def _need(case: UseCase, group: AlertGroup) -> OpenIssue:
    condition = group.newest.condition
    return OpenIssue(
        NAMES[condition.kind], condition.severity, case.name, group.title, condition.what,
        condition.done, shown_moment(case, group.since), condition.link.split("\n")[0],
        path_to(case, ""),
    )  # fmt: skip


def _line(site: Site, case: UseCase, seen: Observation | None) -> dict[str, Any]:
    """What the table says of a use case; `health` is None where it has not been read."""
    health = seen.health if seen else None
    line: dict[str, Any] = {
        "case": case, "page": path_to(case, ""), "seen": seen, "health": health,
        "lineage": f"{site.settings.dagster_url.rstrip('/')}/asset-groups/{case.name}",
    }  # fmt: skip
    if seen is None or health is None:
        return line
    champion = health.champion
    newest = max((t.newest for t in health.tables if t.newest), key=lambda w: w.start, default=None)
    return line | {
        "champion": champion and {
            "version": champion.version,
            "page": path_to(case, "versions", champion.version),
            "age": counted(round(champion.age_days), "day"),
        },
        "performance": performance_sparkline(case, seen.performance),
        "performance_now": health.performance,
        "drift": drift_sparkline(case, seen.drift),
        "drift_now": health.drift,
        "newest": newest and case.calendar.key(newest),
        "cost": _cost(health),
        "seen_at": shown_moment(case, seen.at),
    }  # fmt: skip


def _cost(health: Health) -> str:
    """Seconds that tables took in the last seven days, in words; empty where none was computed."""
    seconds = sum(cost.seconds for cost in summed(health.costs))
    if not seconds:
        return ""
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def performance_sparkline(case: UseCase, windows: Sequence[PerformanceWindow]) -> Series | None:
    """The model's metric over some partitions, beside its bounds."""
    metric = case.model.metric
    bounds = case.monitoring.performance.bounds_by(metric).get(metric)
    limits = [b for b in (bounds.min, bounds.max) if b is not None] if bounds else []
    return sparkline([performance_value(case, each) for each in windows], limits)


def drift_sparkline(case: UseCase, windows: Sequence[DriftWindow]) -> Series | None:
    """The share of drifted columns over some partitions, beside the limit."""
    return sparkline([drift_value(case, w) for w in windows], [case.monitoring.drift.share])


def performance_value(case: UseCase, each: PerformanceWindow) -> Value:
    """The model's metric in one partition."""
    key = case.calendar.key(each.window)
    value = each.current.get(case.model.metric)
    said = each.status if value is None else f"{case.model.metric} {value:.4g}"
    if case.model.metric in each.errors:
        said += f" ± {each.errors[case.model.metric]:.2g}"
    label = f"{key}: {said}, {counted(each.labelled, 'labelled row')}"
    failed = case.model.metric in each.failing
    return Value(value, label, path_to(case, "performance", key), failed)


def drift_value(case: UseCase, each: DriftWindow) -> Value:
    """The share of drifted columns in one partition."""
    key = case.calendar.key(each.window)
    said = f"{each.drifted} of {counted(each.judged, 'column')} drifted"
    label = f"{key}: {said if each.judged else 'not judged'}"
    return Value(each.share, label, path_to(case, "drift", key), each.passed is False)

"""Conditions of drift and performance: the newest judged partition fails."""

from collections.abc import Sequence
from datetime import UTC
from typing import Literal

from ml_platform.alerts.condition import Condition, Found, asset_url, clock, counted
from ml_platform.monitoring import report_url
from ml_platform.monitoring.latest import (
    Latest,
    latest_drift,
    latest_performance,
)
from ml_platform.registry import Promotion
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake

MOST_COLUMNS = 5


def find_drift(lake: Lake, use_case: UseCase, decisions: Sequence[Promotion]) -> Found:
    """Drift, for as long as the newest judged partition has too many drifted columns."""
    latest = latest_drift(lake, use_case)
    if latest is None:
        return Found(())
    limit = use_case.monitoring.drift.share
    count = len(latest.columns)
    said = f"{count} of {latest.rows} columns have drifted"
    key = use_case.calendar.key(latest.window)
    if latest.passed:
        note = f"{said} in partition {key}: {latest.value:.0%}, the limit is {limit:.0%}."
        return Found((), {"drift": f"{note}\nDone: {_done(use_case, 'drift', latest, decisions)}"})
    farthest = ", ".join(str(column) for column in latest.columns[:MOST_COLUMNS])
    page = report_url(lake.settings, use_case, latest.window)
    condition = Condition(
        use_case=use_case.name,
        kind="drift",
        title=f"Drift in {use_case.name}: {count} of {latest.rows} columns, {latest.value:.0%}",
        what=(
            f"In partition {key} {said} from what version {latest.versions[0]} was trained on: "
            f"{latest.value:.0%}, the limit is {limit:.0%}.\n"
            f"Farthest: {farthest}{', …' if count > MOST_COLUMNS else ''}."
        ),
        since=latest.streak.since.start,
        since_text=_since(use_case, latest),
        done=_done(use_case, "drift", latest, decisions),
        link=f"{asset_url(lake.settings, use_case, 'drift_report', latest.window)}\n{page}",
    )
    return Found((condition,))


def find_performance(lake: Lake, use_case: UseCase, decisions: Sequence[Promotion]) -> Found:
    """Poor performance, for as long as the metric of the newest judged partition is too poor."""
    latest = latest_performance(lake, use_case)
    if latest is None:
        return Found(())
    metric, bounds = latest.metric, latest.bounds
    key = use_case.calendar.key(latest.window)
    said = (
        f"In partition {key} {metric} is {latest.value:.4f} on {latest.rows} labelled "
        f"predictions; it should be {bounds}."
    )
    done = _done(use_case, "performance", latest, decisions)
    if latest.passed:
        return Found((), {"performance": f"{said}\nDone: {done}"})
    versions = ", ".join(str(version) for version in latest.versions)
    condition = Condition(
        use_case=use_case.name,
        kind="performance",
        title=(
            f"Poor performance in {use_case.name}: {metric} {latest.value:.4f}, should be {bounds}"
        ),
        what=f"{said} Predicted by version {versions}.",
        since=latest.streak.since.start,
        since_text=_since(use_case, latest),
        done=done,
        link=asset_url(lake.settings, use_case, "performance_report", latest.window),
    )
    return Found((condition,))


def _since(use_case: UseCase, latest: Latest) -> str:
    first = latest.streak.since
    failed = counted(latest.streak.windows, "partition")
    begins = clock(first.start, use_case.calendar.timezone)
    return f"partition {use_case.calendar.key(first)}, which begins {begins}; {failed} in a row"


def _done(
    use_case: UseCase,
    cause: Literal["drift", "performance"],
    latest: Latest,
    decisions: Sequence[Promotion],
) -> str:
    begun = latest.streak.since.start.astimezone(UTC)
    since = [
        p for p in decisions
        if p.decision != "rolled back" and p.effective_from.astimezone(UTC) > begun
    ]  # fmt: skip
    if since:
        last = since[-1]
        cutoff = use_case.calendar.key(use_case.calendar.window_at(last.effective_from))
        outcome = "waits for approval" if last.decision == "waiting" else f"was {last.decision}"
        versions = len({p.version for p in since})
        more = f" ({counted(versions, 'challenger')} since then)" if versions > 1 else ""
        return f"version {last.version}, trained at cutoff {cutoff}, {outcome}{more}."
    if cause in use_case.retrain.on:
        return (
            f"no challenger yet; one is trained when {cause} fails in "
            f"{use_case.retrain.sustained} partitions."
        )
    return f"nothing; `retrain.on` of the use case does not name {cause}."

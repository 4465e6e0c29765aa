"""Conditions of drift and performance: the newest judged partition fails."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from ml_platform.alerts.condition import Condition, Findings, asset_url, clock, counted
from ml_platform.monitoring import report_url
from ml_platform.monitoring.latest import (
    Latest,
    latest_drift,
    latest_performance,
    named_unjudged,
)
from ml_platform.monitoring.segments import SegmentReport, latest_segments
from ml_platform.registry import Promotion
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake

MOST_COLUMNS = 5
NEVER = datetime.min.replace(tzinfo=UTC)


def find_drift(
    lake: Lake, use_case: UseCase, decisions: Sequence[Promotion], failed_training: str = ""
) -> Findings:
    """Drift, for as long as the newest judged partition has too many drifted columns.

    failed_training: what a run was to train that failed, in words; empty where none did.
    """
    latest = latest_drift(lake, use_case)
    if latest is None:
        return Findings((), judged={"drift": NEVER})
    limit = use_case.monitoring.drift.share
    count = len(latest.columns)
    said = f"{count} of {latest.rows} columns have drifted"
    key = use_case.calendar.key(latest.window)
    if latest.passed:
        note = f"{said} in partition {key}: {latest.value:.0%}, the limit is {limit:.0%}."
        done = _done(use_case, "drift", latest, decisions, failed_training)
        return Findings((), {"drift": f"{note}\nDone: {done}"}, {"drift": latest.window.start})
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
            f"{_not_judged(use_case, latest)}"
        ),
        since=latest.streak.since.start,
        since_text=_since(use_case, latest),
        done=_done(use_case, "drift", latest, decisions, failed_training),
        link=f"{asset_url(lake.settings, use_case, 'drift_report', latest.window)}\n{page}",
    )
    return Findings((condition,))


def find_segments(lake: Lake, use_case: UseCase) -> Findings:
    """Segments that fail in the newest reported partition, each by itself."""
    latest = latest_segments(lake, use_case)
    if latest is None:
        return Findings(())
    window, reports = latest
    key = use_case.calendar.key(window)
    # A segment that is not judged any more has not recovered.
    judged = {
        f"drift/{report.name}": window.start if report.failed is not None else NEVER
        for report in reports
    }
    return Findings(
        tuple(_segment(lake, use_case, window, key, r) for r in reports if r.failed),
        {f"drift/{r.name}": f"In partition {key}: {r}." for r in reports},
        judged,
    )


def _segment(
    lake: Lake, use_case: UseCase, window: Window, key: str, report: SegmentReport
) -> Condition:
    return Condition(
        use_case=use_case.name,
        kind="drift",
        subject=report.name,
        title=f"Segment {report.name} of {use_case.name} fails",
        what=(
            f"In partition {key}, {report}; {report.rows} rows trail up to it, against "
            f"{report.reference_rows} that the champion's reference has of this segment."
        ),
        since=window.start,
        since_text=f"seen in partition {key}",
        done="nothing; look at what fills this segment. The other segments may be well.",
        link=asset_url(lake.settings, use_case, "drift_report", window),
    )


def find_performance(
    lake: Lake, use_case: UseCase, decisions: Sequence[Promotion], failed_training: str = ""
) -> Findings:
    """Poor performance, for as long as the metric of the newest judged partition is too poor."""
    latest = latest_performance(lake, use_case)
    if latest is None:
        bounded = use_case.monitoring.performance.bounds_by(use_case.model.metric)
        return Findings((), judged={"performance": NEVER} if bounded else {})
    metric, bounds = latest.metric, latest.bounds
    key = use_case.calendar.key(latest.window)
    said = (
        f"In partition {key} {metric} is {latest.value:.4f} on {latest.rows} labelled "
        f"predictions; it should be {bounds}."
    )
    done = _done(use_case, "performance", latest, decisions, failed_training)
    if latest.passed:
        return Findings(
            (), {"performance": f"{said}\nDone: {done}"}, {"performance": latest.window.start}
        )
    versions = ", ".join(str(version) for version in latest.versions)
    condition = Condition(
        use_case=use_case.name,
        kind="performance",
        title=(
            f"Poor performance in {use_case.name}: {metric} {latest.value:.4f}, should be {bounds}"
        ),
        what=f"{said} Predicted by version {versions}.{_not_judged(use_case, latest)}",
        since=latest.streak.since.start,
        since_text=_since(use_case, latest),
        done=done,
        link=asset_url(lake.settings, use_case, "performance_report", latest.window),
    )
    return Findings((condition,))


def _not_judged(use_case: UseCase, latest: Latest) -> str:
    named = named_unjudged(use_case, latest.unjudged)
    return f"\n{named.capitalize()}: that is not a recovery." if named else ""


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
    failed_training: str,
) -> str:
    begun = latest.streak.since.start.astimezone(UTC)
    since = [
        p for p in decisions
        if p.decision != "rolled back" and p.effective_from.astimezone(UTC) > begun
    ]  # fmt: skip
    if since:
        last = since[-1]
        cutoff = use_case.calendar.key(use_case.calendar.window_at(last.effective_from))
        outcome = "waits for approval" if last.decision == "waiting" else f"was {last.outcome}"
        versions = len({p.version for p in since})
        more = f" ({counted(versions, 'challenger')} since then)" if versions > 1 else ""
        return f"version {last.version}, trained at cutoff {cutoff}, {outcome}{more}."
    if cause in use_case.retrain.on and failed_training:
        return f"a run that was to train a challenger failed ({failed_training}); it follows again."
    if cause in use_case.retrain.on:
        return (
            f"no challenger yet; one is trained when {cause} fails in "
            f"{use_case.retrain.sustained} partitions."
        )
    return f"nothing; `retrain.on` of the use case does not name {cause}."

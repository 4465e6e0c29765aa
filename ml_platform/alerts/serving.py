"""Conditions of the prediction service: a version that should serve cannot, a rollout ended."""

from collections.abc import Sequence
from datetime import datetime

from ml_platform.alerts.condition import Condition, Findings, asset_url, clock, counted
from ml_platform.registry import (
    Promotion,
    Rollout,
    ServingEvent,
    champion_if_any,
    failing,
    rollouts,
    serving_events,
    tried_now,
)
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake

SERVICE = "ml-platform serve"
"""Who decides where the service itself ends a rollout."""


def find_serving(
    lake: Lake, use_case: UseCase, decisions: Sequence[Promotion], now: datetime
) -> Findings:
    """Versions that hosts could not load or prove, for as long as they should serve or be tried."""
    trials = rollouts(lake, use_case, decisions)
    tried = tried_now(trials)
    wanted = [tried.version] if tried else []
    # Without a champion nothing can fail to serve but what is tried.
    champion = champion_if_any(decisions, now)
    if champion is not None:
        wanted.append(champion)
    events = serving_events(lake, use_case)
    conditions = [
        _failing(lake, use_case, version, found)
        for version in dict.fromkeys(wanted)
        if (found := failing(events, version))
    ]
    ended = [r for r in trials if r.mode == "ended" and r.decided_by == SERVICE]
    return Findings((*conditions, *(_ended(lake, use_case, rollout) for rollout in ended)))


def _failing(
    lake: Lake, use_case: UseCase, version: int, events: Sequence[ServingEvent]
) -> Condition:
    first = min(events, key=lambda event: event.happened_at)
    hosts = ", ".join(event.host for event in events)
    return Condition(
        use_case=use_case.name,
        kind="serving",
        subject=f"{version}",
        title=f"Version {version} of {use_case.name} cannot be served",
        what=f"It could not be loaded or proved on {counted(len(events), 'host')} ({hosts}): "
        f"{first.problem.rstrip('.')}.",
        since=first.happened_at,
        since_text=clock(first.happened_at, use_case.calendar.timezone),
        done="the version before it continues answering, and loading is tried again every few "
        f"minutes. `ml-platform rollback {use_case.name}` lets an earlier one serve.",
        link=asset_url(lake.settings, use_case, "promotions"),
    )


def _ended(lake: Lake, use_case: UseCase, rollout: Rollout) -> Condition:
    return Condition(
        use_case=use_case.name,
        kind="rollout",
        subject=f"{rollout.version}@{rollout.decided_at:%Y-%m-%dT%H:%M:%S.%f}",
        title=f"Version {rollout.version} of {use_case.name} is not tried any more",
        what=f"The service ended its rollout: {rollout.reason.rstrip('.')}.",
        since=rollout.decided_at,
        since_text=clock(rollout.decided_at, use_case.calendar.timezone),
        done="the champion answers every request.",
        link=asset_url(lake.settings, use_case, "promotions"),
    )

"""What the promotion history says: promotions, refusals, rollbacks, versions that wait."""

from collections.abc import Sequence

from ml_platform.alerts.condition import Condition, Findings, Kind, asset_url, clock
from ml_platform.registry import Promotion, latest_decision
from ml_platform.registry.promotions import Decision
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase

KINDS: dict[Decision, Kind] = {
    "promoted": "promotion",
    "refused": "refused",
    "rolled back": "rollback",
    "waiting": "approval",
}


def find_decided(settings: Settings, use_case: UseCase, decisions: Sequence[Promotion]) -> Findings:
    """Every decision as an event, and for each version that still waits a condition."""
    conditions = [
        _decided(settings, use_case, p)
        for p in decisions
        if p.decision != "waiting" or latest_decision(decisions, p.version) == p
    ]
    notes = {
        f"approval/{p.version}": f"Version {p.version} was {p.decision} by {p.decided_by}: "
        f"{p.reason.rstrip('.')}."
        for p in decisions
        if p.decision in {"promoted", "refused"}
    }
    return Findings(tuple(conditions), notes)


def _decided(settings: Settings, use_case: UseCase, p: Promotion) -> Condition:
    name, calendar = use_case.name, use_case.calendar
    window = calendar.window_at(p.effective_from)
    start = calendar.key(window)
    match p.decision:
        case "promoted":
            title = f"Version {p.version} of {name} was promoted"
            done = f"version {p.version} serves from partition {start} on."
        case "refused":
            title = f"Version {p.version} of {name} was {p.outcome}"
            done = f"the champion stays; the figures of version {p.version} are kept."
        case "rolled back":
            title = f"{name} was rolled back to version {p.version}"
            done = (
                f"version {p.version} serves from partition {start} on; what the replaced version "
                "wrote from there on is recomputed."
            )
        case "waiting":
            title = f"Version {p.version} of {name} waits for your approval"
            done = (
                "it passed the gate and does not serve yet. Look with "
                f"`ml-platform approvals {name}`, then `ml-platform approve {name} {p.version} "
                "--reason …`, or reject."
            )
    moment = f"@{p.decided_at:%Y-%m-%dT%H:%M:%S.%f}"
    return Condition(
        use_case=name,
        kind=KINDS[p.decision],
        subject=f"{p.version}" + ("" if p.decision == "waiting" else moment),
        title=title,
        what=f"Decided by {p.decided_by}: {p.reason.rstrip('.')}.",
        since=p.decided_at,
        since_text=clock(p.decided_at, calendar.timezone),
        done=done,
        link=asset_url(settings, use_case, "promotions", window),
    )

"""A rollback as it is shown before it is done, and the doing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ml_platform.errors import RollbackRefused
from ml_platform.registry import (
    ChampionPeriod,
    Promotion,
    Registry,
    champion_at,
    champion_periods,
    decision_tags,
    history,
    point_alias,
    record,
    rollouts,
    tried_now,
)
from ml_platform.rollback.affected import Affected, affected_by
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import utc
from ml_platform.storage import Commit, Lake


@dataclass(frozen=True)
class RollbackPlan:
    """What a rollback would do; it holds as long as no other decision is made."""

    promotion: Promotion
    """The row to be: version, from when on, by whom and why."""
    replaced: tuple[int, ...]
    """Versions that stop serving, from the one that served first on."""
    affected: Affected
    decisions: int
    """How many decisions had been made."""
    ends_canary: int | None = None
    """A version that answers a share of the requests, and then does no more."""
    is_decided: bool = False
    """Whether the version serves from that moment on already, and only partitions are left."""

    def __bool__(self) -> bool:
        """Whether it changes anything.

        Where an earlier rollback was interrupted there is still something to recompute.
        """
        return bool(self.replaced or self.affected)


def plan_rollback(
    lake: Lake,
    registry: Registry,
    use_case: UseCase,
    *,
    decided_by: str,
    reason: str,
    to: int | None = None,
    since: datetime | None = None,
    serving: int | None = None,
) -> RollbackPlan:
    """What letting an earlier version serve again would change.

    to: by default the champion before the present one; since: by default the start of the first
    partition that the present one serves; serving: the present one, as far as the caller knows.
    Raises ModelNotFound, or RollbackRefused where another one than `serving` serves, or the version
    never served, has seen what comes after that moment, or serves already.
    """
    decisions = history(lake, use_case)
    served = champion_periods(decisions)
    if not served:
        raise RollbackRefused(f"{use_case.name} has no champion to roll back from")
    if serving not in {None, served[-1].version}:
        raise RollbackRefused(
            f"version {served[-1].version} of {use_case.name} serves now, not version {serving}"
        )
    version, moment = _chosen(use_case, served, to, since)
    cutoff = registry.load(use_case, version).cutoff
    if version not in {p.version for p in decisions if p.serves}:
        raise RollbackRefused(f"version {version} of {use_case.name} never served")

    def plan(moment: datetime) -> RollbackPlan:
        replaced = _replaced(decisions, served, version, moment)
        promotion = Promotion(version, moment, datetime.now(UTC), decided_by, "rolled back", reason)
        affected = affected_by(lake, use_case, [*decisions, promotion], moment)
        is_decided = not replaced and served[0].since <= moment.astimezone(UTC)
        ends = None if is_decided else _canary(lake, use_case, decisions)
        return RollbackPlan(promotion, replaced, affected, len(decisions), ends, is_decided)

    if utc(moment) < utc(cutoff):
        earliest = plan(_first_from(use_case, cutoff))
        raise RollbackRefused(
            f"version {version} of {use_case.name} was trained on what was known before "
            f"{cutoff.isoformat()}; it cannot serve from {moment.isoformat()} on: "
            f"{_instead(use_case, earliest)}"
        )
    found = plan(moment)
    if not found:
        raise RollbackRefused(
            f"version {version} of {use_case.name} serves from {moment.isoformat()} on already"
        )
    return found


def roll_back(
    lake: Lake, registry: Registry, use_case: UseCase, plan: RollbackPlan, commit: Commit
) -> Promotion:
    """Append the rollback to the history and point the alias back.

    What is stored stays until it is recomputed, as `plan.affected` says. Raises RollbackRefused
    where another decision was made since the plan: it may have changed what there is to do.
    """
    if not record(lake, use_case, plan.promotion, commit, seen=plan.decisions):
        serving = champion_periods(history(lake, use_case))[-1].version
        raise RollbackRefused(
            f"{use_case.name}: another decision was made in the meantime, and version {serving} "
            "serves now; look, and roll back again"
        )
    point_alias(lake, registry, use_case)
    registry.describe(use_case, plan.promotion.version, decision_tags(plan.promotion))
    return plan.promotion


def after_decision(lake: Lake, use_case: UseCase, plan: RollbackPlan) -> RollbackPlan:
    """The plan once it is in the history: what the replaced version wrote since it was made too."""
    since = plan.promotion.effective_from
    return replace(plan, affected=affected_by(lake, use_case, history(lake, use_case), since))


def _canary(lake: Lake, use_case: UseCase, decisions: Sequence[Promotion]) -> int | None:
    tried = tried_now(rollouts(lake, use_case, decisions))
    return tried.version if tried is not None and tried.mode == "canary" else None


def _first_from(use_case: UseCase, moment: datetime) -> datetime:
    """Start of the first partition that begins at a moment or later."""
    window = use_case.calendar.window_at(moment)
    return window.start if utc(window.start) == utc(moment) else window.end


def _instead(use_case: UseCase, earliest: RollbackPlan) -> str:
    """What to ask for by one who wanted a version to serve earlier than it can."""
    since, end = earliest.promotion.effective_from, use_case.partitions.closes_at
    if end is not None and utc(since) >= utc(end):
        return f"the history of {use_case.name} ends before it may"
    key = use_case.calendar.key(use_case.calendar.window_at(since))
    if not earliest:
        return f"from the partition {key} on it serves already"
    return f'let it serve from the partition {key} on (`--from {key}`, over HTTP "from")'


def _chosen(
    use_case: UseCase, served: Sequence[ChampionPeriod], to: int | None, since: datetime | None
) -> tuple[int, datetime]:
    if to is None and len(served) == 1:
        raise RollbackRefused(
            f"version {served[0].version} of {use_case.name} is the first that serves; name the "
            "version to roll back to"
        )
    moment = served[-1].since if since is None else since
    aligned = use_case.calendar.window_at(moment).start
    return served[-2].version if to is None else to, aligned


def _replaced(
    decisions: Sequence[Promotion], served: Sequence[ChampionPeriod], version: int, moment: datetime
) -> tuple[int, ...]:
    at = moment.astimezone(UTC)
    later = [period.version for period in served if period.since > at]
    first = [champion_at(decisions, at)] if served[0].since <= at else []
    return tuple(dict.fromkeys(v for v in [*first, *later] if v != version))

"""How one use case is, read from the lake alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import duckdb

from ml_platform.alerts import Condition, FailedRun, Ledger, find_conditions
from ml_platform.alerts.failures import find_failures
from ml_platform.alerts.freshness import Freshness, is_over, read_freshness
from ml_platform.alerts.ledger import LedgerState
from ml_platform.errors import LakeError, LakeUnavailable
from ml_platform.features import Coverage, read_coverage
from ml_platform.monitoring.latest import Latest, latest_drift, latest_performance
from ml_platform.monitoring.quarantined import Quarantined, read_quarantine
from ml_platform.registry import (
    MirrorDifference,
    Promotion,
    Registry,
    champion_periods,
    differences,
    history,
    waiting,
)
from ml_platform.spec.environments import Environment, environment_of
from ml_platform.spec.use_case import UseCase
from ml_platform.status.costs import Cost, read_costs
from ml_platform.storage import Lake, require_calendar

COSTS_OF = timedelta(days=7)


@dataclass(frozen=True)
class Champion:
    """The version that serves now; where a history is over, the one that served at its end."""

    version: int
    cutoff: datetime
    """Before which its training data was known."""
    effective_from: datetime
    """Event time from which on it serves."""
    decided_by: str
    age_days: float
    """Days since its cutoff; where a history is over, up to its end."""
    left_out: tuple[str, ...] = ()
    """Columns that it was trained without, since none of its rows had a value."""
    too_good: str = ""
    """Why its holdout metric is too good to be true; empty where it is not."""


@dataclass(frozen=True)
class OpenAlert:
    """A condition that holds now."""

    condition: Condition
    noted_at: datetime | None
    """When the alerts sensor noted it; None where none has seen it yet."""
    notified_at: datetime | None
    """When the first channel took the message; None where none has."""
    on_its_way: bool = False
    """Whether a channel is still to take the message."""


@dataclass(frozen=True)
class Undelivered:
    """A message that one channel has not taken yet."""

    title: str
    attempts: int
    next_at: datetime
    said: str
    """Why the last attempt failed; empty before the first."""


@dataclass(frozen=True)
class Health:
    """How one use case is."""

    use_case: UseCase
    at: datetime
    tables: tuple[Freshness, ...]
    champion: Champion | None
    drift: Latest | None
    performance: Latest | None
    quarantine: tuple[Quarantined, ...]
    """Partitions with rows that broke a contract, in order of source and time."""
    approvals: tuple[Promotion, ...]
    alerts: tuple[OpenAlert, ...]
    leak_checks: tuple[Coverage, ...] = ()
    """How much of each feature table, and of the labels, has been checked for leaks."""
    mirrors: tuple[MirrorDifference, ...] = ()
    """What shows something else than the lake: MLflow's alias, the online store."""
    costs: tuple[Cost, ...] = ()
    """What tables took in the last seven days, by day. What training took is asked of MLflow, which
    takes seconds to import: `training_costs`."""
    environment: Environment | None = None
    """Its Python environment, where it has one of its own."""

    @property
    def is_over(self) -> bool:
        """Whether the history has ended."""
        return is_over(self.use_case, self.at)

    @property
    def too_much_quarantined(self) -> tuple[Quarantined, ...]:
        watched = self.use_case.monitoring.quarantine
        return tuple(q for q in self.quarantine if watched.is_too_much(q.rows, q.landed))


def read_health(
    lake: Lake, use_case: UseCase, now: datetime, failed: Sequence[FailedRun] = ()
) -> Health:
    """Look at everything that is known of a use case.

    failed: runs that Dagster says have failed, of which the lake knows nothing by itself. Raises
    LakeError, also where its tables were written by older code and lack a column, and
    CalendarChanged where they were written by another calendar.
    """
    with lake.cursor() as cursor:
        require_calendar(cursor, use_case.name, use_case.calendar)
    try:
        return _read_health(lake, use_case, now, failed)
    except LakeUnavailable:
        # Nothing is known of what cannot be reached.
        raise
    except LakeError as error:
        # Whether it is the table that has another shape.
        if not isinstance(error.__cause__, duckdb.BinderException):
            raise
        raise LakeError(
            f"the tables of {use_case.name} cannot be read: {error}. Where older code wrote them, "
            f"writing them again adds what they lack: `ml-platform backfill {use_case.name}`"
        ) from error


def _read_health(
    lake: Lake, use_case: UseCase, now: datetime, failed: Sequence[FailedRun]
) -> Health:
    decisions = history(lake, use_case)
    tables = tuple(read_freshness(lake, use_case, now))
    return Health(
        use_case=use_case,
        at=now,
        tables=tables,
        champion=_champion(use_case, decisions, now),
        drift=latest_drift(lake, use_case),
        performance=latest_performance(lake, use_case),
        quarantine=tuple(read_quarantine(lake, use_case)),
        approvals=tuple(waiting(lake, use_case)),
        alerts=open_alerts(lake, use_case, now, failed, tables),
        leak_checks=read_coverage(lake, use_case),
        mirrors=tuple(differences(lake, Registry(lake.settings), use_case)),
        costs=read_costs(lake, use_case, now - COSTS_OF),
        environment=environment_of(lake.settings, use_case.name, use_case.folder),
    )


def open_alerts(
    lake: Lake,
    use_case: UseCase,
    now: datetime,
    failed: Sequence[FailedRun] = (),
    tables: Sequence[Freshness] | None = None,
) -> tuple[OpenAlert, ...]:
    """Conditions that hold now, whether they have been reported or not.

    tables: how far they have come, where that has been read already. failed: runs that Dagster says
    have failed; those that the alerts sensor has noted are reported as it noted them.
    """
    with lake.cursor() as cursor:
        state = Ledger(lake, use_case).read(cursor)
    # The lake knows nothing of runs: what the sensor has noted of them holds until it is over.
    noted = [
        entry.condition(use_case.name)
        for entry in state.open.values()
        if entry.kind == "failed_run"
    ]
    trains = [c.title for c in noted if c.title.partition(": ")[2].startswith("model")]
    runs = [FailedRun("", title.partition(": ")[2], "", now, trains=True) for title in trains]
    found = find_conditions(lake, use_case, now, [*runs, *failed], tables).conditions
    lasting = [c for c in found if c.lasts and c.kind != "failed_run"]
    news = find_failures(lake.settings, use_case, failed).conditions
    unnoted = [c for c in news if c.key not in state.open]
    return tuple(_open_alert(c, state) for c in (*lasting, *noted, *unnoted))


def _open_alert(condition: Condition, state: LedgerState) -> OpenAlert:
    entry = state.open.get(condition.key)
    if entry is None:
        return OpenAlert(condition, None, None)
    steps = state.deliveries.get(entry.message, ())
    taken = [step.taken_at for step in steps if step.step == "sent"]
    waits = any(step.step not in {"sent", "expired"} for step in steps)
    return OpenAlert(condition, entry.seen_at, min(taken, default=None), waits)


def undelivered(lake: Lake, use_case: UseCase) -> tuple[Undelivered, ...]:
    """Messages that have not arrived at some channel yet."""
    with lake.cursor() as cursor:
        state = Ledger(lake, use_case).read(cursor)
    return tuple(
        Undelivered(state.entries[d.message][0].title, d.attempts, d.next_at, d.said)
        for d in state.pending
    )


def _champion(use_case: UseCase, decisions: Sequence[Promotion], now: datetime) -> Champion | None:
    closes = use_case.partitions.closes_at
    moment = min(now, closes, key=lambda each: each.astimezone(UTC)) if closes else now
    served = [
        period for period in champion_periods(decisions) if period.since <= moment.astimezone(UTC)
    ]
    if not served:
        return None
    version, since = served[-1].version, served[-1].since
    of_version = [p for p in decisions if p.version == version]
    # The gate decides from the cutoff on; answers and rollbacks come after it.
    cutoff = of_version[0].effective_from
    left_out = next((p.left_out for p in of_version if p.left_out), ())
    decided_by = [p for p in of_version if p.serves][-1].decided_by
    age = moment.astimezone(UTC) - cutoff.astimezone(UTC)
    too_good = next((p.too_good for p in of_version if p.too_good), "")
    days = age.total_seconds() / 86_400
    return Champion(version, cutoff, since, decided_by, days, left_out, too_good)

"""A rollback becomes runs that recompute exactly what the replaced version had written."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from ml_platform.registry import Promotion, history, repair
from ml_platform.rollback import RollbackStep, affected_by
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase, published_table
from ml_platform_dagster.resources import LakeResource, RegistryResource, range_tags
from ml_platform_dagster.sensors.attempts import retrier_of, tags_of_retried

TABLES = ("predictions", "drift_report", "performance_report")
ROLLED_BACK = "rolled back"


@dataclass(frozen=True)
class _Run:
    """A run of some tables over a range, first and last partition."""

    tables: tuple[str, ...]
    first: str
    last: str


@dataclass(frozen=True)
class _Cursor:
    """Up to which rollback all was asked for, and what waits for predictions to be made."""

    seen: str = ""
    """When the newest rollback was decided, in UTC."""
    since: str = ""
    """From when on predictions have to be right before `later` can run."""
    later: tuple[_Run, ...] = ()

    @classmethod
    def read(cls, text: str | None) -> "_Cursor":
        if not text:
            return cls()
        stored = json.loads(text)
        later = tuple(_Run(tuple(t), first, last) for t, first, last in stored["later"])
        return cls(stored["seen"], stored["since"], later)

    def write(self) -> str:
        later = [(run.tables, run.first, run.last) for run in self.later]
        return json.dumps({"seen": self.seen, "since": self.since, "later": later})


def build_rollback(use_case: UseCase, settings: Settings) -> list[dg.SensorDefinition]:
    """The sensor that follows rollbacks of a use case, whoever requested them."""
    tables = (*TABLES, *map(published_table, use_case.publish))

    @dg.sensor(
        name=f"{use_case.name}_rollback",
        target=dg.AssetSelection.assets(*([use_case.name, table] for table in tables)),
        minimum_interval_seconds=30,
        # On in every deployment: it does nothing until a person has requested a rollback.
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Repairs what mirrors the promotion history: MLflow's alias, the online store. After a "
            "rollback, recomputes the predictions that the replaced version wrote, and then what "
            "reads them: reports, tables of others. A run that fails, or never "
            f"starts, is asked for again by `{retrier_of(use_case)}`."
        ),
    )
    def sensor(
        context: dg.SensorEvaluationContext, lake: LakeResource, registry: RegistryResource
    ) -> dg.SensorResult:
        for difference in repair(lake.lake, registry.registry, use_case):
            context.log.warning(str(difference))
        cursor = _Cursor.read(context.cursor)
        decisions = history(lake.lake, use_case)
        rollbacks = [p for p in decisions if p.decision == ROLLED_BACK]
        requested = [p for p in rollbacks if _stamp(p.decided_at) > cursor.seen]
        runs: list[_Run] = []
        if requested:
            starts = [_stamp(p.effective_from) for p in requested]
            since = min([*starts, *([cursor.since] if cursor.later else [])])
            affected = affected_by(lake.lake, use_case, decisions, datetime.fromisoformat(since))
            first, later = affected.steps(use_case)
            runs = _runs(use_case, first)
            kept = dict.fromkeys([*cursor.later, *_runs(use_case, later)])
            seen = _stamp(requested[-1].decided_at)
            cursor = _Cursor(seen, since, tuple(run for run in kept if run not in runs))
        elif cursor.later:
            moment = datetime.fromisoformat(cursor.since)
            if not affected_by(lake.lake, use_case, decisions, moment).predictions:
                runs, cursor = list(cursor.later), _Cursor(cursor.seen)
        return dg.SensorResult(
            run_requests=[_request(use_case, run, cursor.seen, rollbacks[-1]) for run in runs],
            skip_reason=None if runs else dg.SkipReason(_why(cursor)),
            cursor=cursor.write(),
        )

    return [sensor]


def _runs(use_case: UseCase, steps: Iterable[RollbackStep]) -> list[_Run]:
    return [_Run(step.tables, *use_case.calendar.keys(step.range)) for step in steps]


def _request(use_case: UseCase, run: _Run, seen: str, rollback: Promotion) -> dg.RunRequest:
    # Partitions may be rolled back more than once: the decision distinguishes the runs.
    key = f"{seen}-{run.first}-{run.last}-{'-'.join(run.tables)}"
    return dg.RunRequest(
        run_key=key,
        asset_selection=[dg.AssetKey([use_case.name, table]) for table in run.tables],
        tags={
            **range_tags([run.first, run.last]),
            **tags_of_retried(use_case, key, f"{use_case.name}_rollback"),
            "ml_platform/cause": "rollback",
            "ml_platform/reason": rollback.reason,
            "ml_platform/rolled_back_to": str(rollback.version),
        },
    )


def _why(cursor: _Cursor) -> str:
    return "reports wait for predictions" if cursor.later else "no rollback was requested"


def _stamp(moment: datetime) -> str:
    # Of one form, so that texts are in the order of the moments.
    return moment.astimezone(UTC).isoformat(timespec="microseconds")

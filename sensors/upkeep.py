"""Regularly: the newest complete window is scored, and what was left behind is caught up with."""

from collections.abc import Sequence

import dagster as dg

from ml_platform.backfill import Chunk
from ml_platform.backfill.upkeep import catch_up, scoring_due
from ml_platform.settings import Settings
from ml_platform.spec.tables import computed_tables, tables_of
from ml_platform.spec.use_case import UseCase
from ml_platform_dagster.resources import LakeResource
from ml_platform_dagster.resources.ranges import UPKEEP, range_tags
from ml_platform_dagster.sensors.circumstances import CODE, SNAPSHOT, circumstances_of
from ml_platform_dagster.sensors.launching import IN_PROCESS
from ml_platform_dagster.sensors.status import schedule_status


def build_upkeep(use_case: UseCase, settings: Settings) -> list[dg.ScheduleDefinition]:
    """The schedules that keep a use case up to date without a person."""
    return [_build_scoring(use_case, settings), _build_catch_up(use_case, settings)]


def _build_scoring(use_case: UseCase, settings: Settings) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{use_case.name}_scoring",
        cron_schedule=use_case.schedules.scoring_of(use_case.partitions.cadence),
        execution_timezone=use_case.timezone,
        default_status=schedule_status(settings),
        target=_selection(use_case, computed_tables(use_case)),
        description=(
            "Scores the newest complete partition, with the features that it needs, also where "
            "its examples landed long before and no file has arrived since."
        ),
    )
    def schedule(
        context: dg.ScheduleEvaluationContext, lake: LakeResource
    ) -> Sequence[dg.RunRequest] | dg.SkipReason:
        now = context.scheduled_execution_time
        found = scoring_due(lake.lake, use_case, now, circumstances_of(context, use_case))
        if isinstance(found, str):
            return dg.SkipReason(found)
        return [_request(context, use_case, found, lake)]

    return schedule


def _build_catch_up(use_case: UseCase, settings: Settings) -> dg.ScheduleDefinition:
    schedules = use_case.schedules

    @dg.schedule(
        name=f"{use_case.name}_catch_up",
        cron_schedule=schedules.catch_up,
        execution_timezone=use_case.timezone,
        default_status=schedule_status(settings),
        target=_selection(use_case, tables_of(use_case)),
        description=(
            f"Computes what is missing, failed or stale in the last {schedules.horizon}, newest "
            f"first, at most {schedules.budget} partitions at a time."
        ),
    )
    def schedule(
        context: dg.ScheduleEvaluationContext, lake: LakeResource
    ) -> Sequence[dg.RunRequest] | dg.SkipReason:
        now = context.scheduled_execution_time
        found = catch_up(lake.lake, use_case, now, circumstances_of(context, use_case))
        if not found:
            return dg.SkipReason("nothing is missing, failed or stale that can be computed now")
        return [_request(context, use_case, chunk, lake) for chunk in found]

    return schedule


def _selection(use_case: UseCase, tables: Sequence[str]) -> dg.AssetSelection:
    return dg.AssetSelection.assets(*([use_case.name, table] for table in tables))


def _request(
    context: dg.ScheduleEvaluationContext, use_case: UseCase, chunk: Chunk, lake: LakeResource
) -> dg.RunRequest:
    keys = chunk.keys(use_case.calendar)
    with lake.get_connection() as cursor:
        snapshot = lake.lake.snapshot(cursor)
    # A tick that is evaluated again, since its daemon died, does not ask for a second run.
    key = f"{context.scheduled_execution_time.isoformat()} {keys[0]}...{keys[1]}"
    return dg.RunRequest(
        run_key=key,
        asset_selection=[dg.AssetKey([use_case.name, table]) for table in chunk.tables],
        run_config=IN_PROCESS,
        tags={
            **range_tags(keys),
            UPKEEP: use_case.name,
            SNAPSHOT: str(snapshot),
            CODE: use_case.code_version,
        },
    )

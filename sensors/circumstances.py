"""What Dagster knows and the lake does not: runs under way, runs that failed, failed checks."""

from collections.abc import Iterator

import dagster as dg

from ml_platform.backfill.upkeep import Circumstances, FailedAttempt
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform_dagster.resources.private import BulkActionsFilter, BulkActionStatus
from ml_platform_dagster.resources.ranges import UPKEEP, partitions_in
from ml_platform_dagster.sensors.running import UNFINISHED

SNAPSHOT = "ml_platform/snapshot"
CODE = "ml_platform/code"

FAILURES_LOOKED_AT = 200


def circumstances_of(context: dg.ScheduleEvaluationContext, use_case: UseCase) -> Circumstances:
    """The circumstances of one use case at the moment."""
    instance = context.instance
    under_way: dict[str, set[Window]] = {}
    for table, window in [*windows_in_runs(instance, use_case), *_in_backfills(instance, use_case)]:
        under_way.setdefault(table, set()).add(window)
    graph = context.repository_def.asset_graph if context.repository_def else None
    checks = [] if graph is None else [k for k in graph.asset_check_keys if graph.get(k).blocking]
    return Circumstances(
        under_way=under_way,
        attempts=list(_attempts(instance, use_case)),
        held=_failed_checks(instance, use_case, checks),
    )


def windows_in_runs(
    instance: dg.DagsterInstance, use_case: UseCase
) -> Iterator[tuple[str, Window]]:
    """Tables and windows of runs that wait or are being made."""
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        window_range = _range(use_case, run)
        for table in _tables(use_case, run) if window_range else ():
            assert window_range is not None
            for window in use_case.calendar.windows(window_range):
                yield table, window


def _in_backfills(instance: dg.DagsterInstance, use_case: UseCase) -> Iterator[tuple[str, Window]]:
    asked = BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED])
    for backfill in instance.get_backfills(filters=asked):
        data = backfill.asset_backfill_data
        for each in data.target_subset.iterate_asset_partitions() if data else ():
            if each.asset_key.path[0] == use_case.name and each.partition_key:
                yield each.asset_key.path[-1], use_case.calendar.window_listed(each.partition_key)


def _attempts(instance: dg.DagsterInstance, use_case: UseCase) -> Iterator[FailedAttempt]:
    failed = dg.RunsFilter(tags={UPKEEP: use_case.name}, statuses=[dg.DagsterRunStatus.FAILURE])
    for record in instance.get_run_records(failed, limit=FAILURES_LOOKED_AT):
        run = record.dagster_run
        window_range = _range(use_case, run)
        # One that never started says nothing about its partitions.
        if window_range is not None and record.start_time is not None:
            tables = frozenset(_tables(use_case, run))
            yield FailedAttempt(tables, window_range, int(run.tags[SNAPSHOT]), run.tags[CODE])


def _failed_checks(
    instance: dg.DagsterInstance, use_case: UseCase, checks: list[dg.AssetCheckKey]
) -> frozenset[str]:
    ours = [check for check in checks if check.asset_key.path[0] == use_case.name]
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(ours)
    return frozenset(
        key.asset_key.path[-1]
        for key, record in records.items()
        if record.event is not None
        and record.event.dagster_event is not None
        and isinstance(
            found := record.event.dagster_event.event_specific_data, dg.AssetCheckEvaluation
        )
        and not found.passed
        and found.severity is dg.AssetCheckSeverity.ERROR
    )


def _tables(use_case: UseCase, run: dg.DagsterRun) -> list[str]:
    return [key.path[-1] for key in run.asset_selection or () if key.path[0] == use_case.name]


def _range(use_case: UseCase, run: dg.DagsterRun) -> Window | None:
    partitions = partitions_in(run.tags)
    if partitions is None or not _tables(use_case, run):
        return None
    first, last = map(use_case.calendar.window, partitions)
    return Window(first.start, last.end)

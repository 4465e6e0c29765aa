"""What keeps a lake usable: expiry, compaction and clean-up, one after the other."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import duckdb

from ml_platform.errors import LakeUnavailable, PlatformError
from ml_platform.registry import delete_runs, unnamed_runs
from ml_platform.settings import Settings
from ml_platform.spec.duration import Duration
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Commit, Lake
from ml_platform.storage.orphans import LEFT_AFTER, sweep_orphans
from ml_platform.upkeep.cleanup import Cleaned, delete_scheduled, find_files
from ml_platform.upkeep.compaction import Compacted, Files, compact, read_files
from ml_platform.upkeep.expiry import ExpiryPlan, carry_out, plan_expiry
from ml_platform.upkeep.landed_logs import OldLog, delete_old_logs, find_old_logs
from ml_platform.upkeep.names import Tables, collect_names, named_in_lake
from ml_platform.upkeep.retention import (
    Surplus,
    drop_surplus,
    find_surplus,
    snapshots_kept_for,
)

T = TypeVar("T")


@dataclass(frozen=True)
class LakeUpkeep:
    """What was done to a lake, or would be."""

    expiry: ExpiryPlan | None
    """None where it could not be found out what may expire."""
    expired: int
    """Snapshots that expired."""
    files: tuple[Files, ...]
    """The files of every table before."""
    compacted: tuple[Compacted, ...]
    cleaned: Cleaned | None
    problems: tuple[str, ...]
    """What could not be done; the rest was."""
    dropped: tuple[Surplus, ...] = ()
    """Rows that were deleted since they are older than their use case keeps them."""
    mlflow_runs: tuple[str, ...] = ()
    """Runs of MLflow that were deleted, since they ended long ago and no version names them."""
    old_logs: tuple[OldLog, ...] = ()
    """Landing files of the service that were deleted: their rows are in the lake, or too old."""


def plan_upkeep(lake: Lake, use_cases: Iterable[UseCase], now: datetime) -> LakeUpkeep:
    """What `keep_up` would do; nothing is written. Files that expiry frees are not counted yet."""
    attempts, cases = _Attempts(), list(use_cases)
    surplus = attempts(lambda: find_surplus(lake, cases, now)) or []
    plan = attempts(lambda: _planned(lake, snapshots_kept_for(cases), now))
    files = tuple(read_files(lake))
    cleaned = attempts(lambda: find_files(lake, now - LEFT_AFTER))
    runs = attempts(lambda: _old_runs(lake.settings, cases, now)) or ()
    logs = tuple(attempts(lambda: find_old_logs(lake, cases, now)) or ())
    problems = tuple(attempts.problems)
    return LakeUpkeep(plan, 0, files, (), cleaned, problems, tuple(surplus), runs, logs)


def keep_up(lake: Lake, use_cases: Iterable[UseCase], commit: Commit, now: datetime) -> LakeUpkeep:
    """Delete old rows, expire what nothing names, compact tables, delete files nothing needs.

    What cannot be done is a problem of the report and does not keep the rest from being done.
    The lake is closed and opened again, which ends its open cursors. Raises LakeUnavailable.
    """
    attempts, cases = _Attempts(), list(use_cases)
    files = tuple(read_files(lake))
    surplus = attempts(lambda: find_surplus(lake, cases, now)) or []
    dropped = [attempts(partial(drop_surplus, lake, each, commit)) for each in surplus]
    kept_for = snapshots_kept_for(cases)
    plan = attempts(lambda: _planned(lake, kept_for, now))
    expired = attempts(lambda: _carried_out(lake, plan, kept_for, commit)) if plan else None
    compacted = tuple(compact(lake, commit))
    attempts.problems += [f"{c.before.name}: {c.problem}" for c in compacted if c.problem]
    older_than = now - LEFT_AFTER
    scheduled = attempts(lambda: delete_scheduled(lake, older_than))
    orphans = attempts(lambda: sweep_orphans(lake, older_than))
    cleaned = Cleaned(scheduled or (), orphans) if orphans else None
    runs = attempts(lambda: _without_old_runs(lake.settings, cases, now)) or ()
    logs = tuple(attempts(lambda: delete_old_logs(lake, cases, now)) or ())
    return LakeUpkeep(
        plan, expired or 0, files, compacted, cleaned, tuple(attempts.problems),
        tuple(each for each in dropped if each is not None), runs, logs,
    )  # fmt: skip


def upkeep_document(report: LakeUpkeep) -> dict[str, Any]:
    """Plain data with keys that stay."""
    plan, cleaned = report.expiry, report.cleaned
    return {
        "snapshots": plan
        and {
            "kept": plan.kept,
            "kept_by": dict(plan.reasons),
            "may_expire": len(plan.expired),
            "expired": report.expired,
        },
        "files": {each.name: each.files for each in report.files},
        "compacted": {
            each.before.name: {"before": each.before.files, "after": each.after.files}
            for each in report.compacted
        },
        "rows_deleted": {
            f"{each.use_case.name}.{each.table}": {
                "rows": each.rows,
                "windows": each.windows,
                "before": f"{each.before.isoformat()}Z",
            }
            for each in report.dropped
        },
        "files_deleted": cleaned
        and {"not_needed": list(cleaned.scheduled), "orphans": list(cleaned.orphans.files)},
        "mlflow_runs_deleted": list(report.mlflow_runs),
        "landing_files_deleted": [each.file.path for each in report.old_logs],
        "problems": list(report.problems),
    }


def retention_of(setting: str | None) -> timedelta | None:
    """A length of time as a setting says it; None where it sets none."""
    return None if setting is None else timedelta(seconds=Duration.parse(setting).seconds)


def _old_runs(settings: Settings, use_cases: Iterable[UseCase], now: datetime) -> tuple[str, ...]:
    kept = retention_of(settings.keep_mlflow_runs)
    return () if kept is None else unnamed_runs(settings, use_cases, now - kept)


def _without_old_runs(
    settings: Settings, use_cases: Iterable[UseCase], now: datetime
) -> tuple[str, ...]:
    found = _old_runs(settings, use_cases, now)
    if found:
        delete_runs(settings, found)
    return found


def _planned(lake: Lake, kept_for: Tables, now: datetime) -> ExpiryPlan:
    with lake.cursor() as cursor:
        named = collect_names(lake, cursor, kept_for)
        retention = retention_of(lake.settings.keep_snapshots)
        return plan_expiry(lake, cursor, named, retention, now)


def _carried_out(lake: Lake, plan: ExpiryPlan, kept_for: Tables, commit: Commit) -> int:
    def named_since(transaction: duckdb.DuckDBPyConnection, snapshot: int) -> set[int]:
        found = named_in_lake(lake, transaction, kept_for, since=snapshot)
        return {snapshot for each in found for snapshot in each.snapshots}

    with lake.cursor() as cursor:
        return carry_out(lake, cursor, plan, commit, named_since)


class _Attempts:
    """Does things of which one that fails keeps no other from being done."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def __call__(self, work: Callable[[], T]) -> T | None:
        try:
            return work()
        except LakeUnavailable:
            raise
        except PlatformError as error:
            self.problems.append(str(error))
            return None

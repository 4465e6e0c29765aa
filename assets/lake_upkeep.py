"""A job that keeps the lake of a deployment usable, whatever its use cases."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from ml_platform.access import Action, Audit
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_cases
from ml_platform.storage import Commit, Lake
from ml_platform.upkeep import LakeUpkeep, keep_up, retention_of
from ml_platform_dagster.resources import LakeResource
from ml_platform_dagster.resources.private import SCHEDULE_NAME, USER

JOB = "lake_upkeep"
SOMEBODY = "somebody in Dagster"
WITHOUT_SUCCESS = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
MOST_RUNS = 10_000


def build_lake_upkeep(settings: Settings) -> list[dg.JobDefinition]:
    """The job that does what `ml-platform upkeep` does."""

    @dg.op(
        name="keep_up_lake",
        out=dg.Out(dg.Nothing),
        description=(
            "Expires snapshots that nothing names and merges and deletes files; every snapshot "
            "that a model version, a row of the lake or the audit names reads back the same."
        ),
    )
    def keep_up_op(context: dg.OpExecutionContext, lake: LakeResource) -> None:
        commit = record_run(lake.lake, context.run, "upkeep", "lake", "platform/upkeep")
        use_cases = load_use_cases(settings.use_cases, settings.databases).use_cases
        report = keep_up(lake.lake, use_cases.values(), commit, datetime.now(UTC))
        runs = delete_failed_runs(context.instance, retention_of(settings.keep_failed_runs))
        context.add_output_metadata(
            {**_metadata(report), "runs deleted": dg.MetadataValue.int(runs)}
        )
        if report.problems:
            raise dg.Failure("the rest was done:\n" + "\n".join(report.problems))

    @dg.job(
        name=JOB,
        description="Keeps the lake usable for years: expiry, compaction, clean-up of files.",
    )
    def job() -> None:
        keep_up_op()

    return [job]


def record_run(lake: Lake, run: dg.DagsterRun, what: str, changed: str, message: str) -> Commit:
    """Record in the audit what a run of a job is about to do; the commit of what it writes."""
    who = run.tags.get(SCHEDULE_NAME) or run.tags.get(USER, SOMEBODY)
    commit = Commit(run.run_id, "", message)
    action = Action(who, "dagster", what, "", changed, {"run": run.run_id})
    Audit(lake).record(action, commit)
    return commit


def delete_failed_runs(instance: dg.DagsterInstance, kept: timedelta | None) -> int:
    """Delete runs that ended without success longer ago and materialised nothing; how many.

    The events of others say which partitions there are. kept: None keeps all.
    """
    if kept is None:
        return 0
    old = dg.RunsFilter(statuses=WITHOUT_SUCCESS, created_before=datetime.now(UTC) - kept)
    deleted = 0
    for run in instance.get_runs(old, limit=MOST_RUNS, ascending=True):
        stats = instance.get_run_stats(run.run_id)
        if not stats.materializations:
            instance.delete_run(run.run_id)
            deleted += 1
    return deleted


def _metadata(report: LakeUpkeep) -> dict[str, dg.MetadataValue]:
    found: dict[str, dg.MetadataValue] = {
        "snapshots expired": dg.MetadataValue.int(report.expired),
        "rows deleted": dg.MetadataValue.int(sum(each.rows for each in report.dropped)),
        "tables with merged files": dg.MetadataValue.int(
            sum(each.after.files < each.before.files for each in report.compacted)
        ),
    }
    if report.expiry is not None:
        found["snapshots kept"] = dg.MetadataValue.int(report.expiry.kept)
        found["kept by"] = dg.MetadataValue.json(dict(report.expiry.reasons))
    if report.cleaned is not None:
        found["files deleted"] = dg.MetadataValue.int(
            len(report.cleaned.scheduled) + len(report.cleaned.orphans.files)
        )
    return found

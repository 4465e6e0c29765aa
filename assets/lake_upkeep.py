"""A job that keeps the lake of a deployment usable, whatever its use cases."""

from datetime import UTC, datetime

import dagster as dg

from ml_platform.access import Action, Audit
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_cases
from ml_platform.storage import Commit
from ml_platform.upkeep import LakeUpkeep, keep_up
from ml_platform_dagster.resources import LakeResource
from ml_platform_dagster.resources.private import SCHEDULE_NAME, USER

JOB = "lake_upkeep"
SOMEBODY = "somebody in Dagster"


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
        run = context.run
        who = run.tags.get(SCHEDULE_NAME) or run.tags.get(USER, SOMEBODY)
        commit = Commit(run.run_id, "", "platform/upkeep")
        action = Action(who, "dagster", "upkeep", "", "lake", {"run": run.run_id})
        Audit(lake.lake).record(action, commit)
        use_cases = load_use_cases(settings.use_cases, settings.databases).use_cases
        report = keep_up(lake.lake, use_cases.values(), commit, datetime.now(UTC))
        context.add_output_metadata(_metadata(report))
        if report.problems:
            raise dg.Failure("the rest was done:\n" + "\n".join(report.problems))

    @dg.job(
        name=JOB,
        description="Keeps the lake usable for years: expiry, compaction, clean-up of files.",
    )
    def job() -> None:
        keep_up_op()

    return [job]


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

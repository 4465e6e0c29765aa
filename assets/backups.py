"""A job that backs up all that a deployment keeps, where a setting says to which place."""

import dagster as dg

from ml_platform.settings import Settings
from ml_platform.upkeep.backup import make_backup, opened_archive
from ml_platform_dagster.assets.lake_upkeep import record_run
from ml_platform_dagster.resources import LakeResource

JOB = "backup"


def build_backup(settings: Settings) -> list[dg.JobDefinition]:
    """The job that does what `ml-platform backup` does; none where no place is set."""
    target = settings.backups
    if target is None:
        return []

    @dg.op(
        name="make_backup",
        out=dg.Out(dg.Nothing),
        description="Copies lake, models, runs, online store and audit, while they are used.",
    )
    def make_backup_op(context: dg.OpExecutionContext, lake: LakeResource) -> None:
        # Before it is made: so it stands in the audit that is part of it.
        record_run(lake.lake, context.run, "backup", target, "platform/audit")
        made = make_backup(lake.lake, target, context.log.info)
        metadata: dict[str, dg.MetadataValue] = {
            "backup": dg.MetadataValue.text(made.name),
            "up to snapshot": dg.MetadataValue.int(made.snapshot),
            "files": dg.MetadataValue.int(len(made.entries)),
            "MiB": dg.MetadataValue.float(round(made.bytes / 2**20, 1)),
            "not in it": dg.MetadataValue.text("; ".join(made.left_out) or "nothing is missing"),
        }
        if settings.backups_kept is not None:
            with lake.lake.cursor() as cursor:
                dropped = opened_archive(cursor, target).drop(settings.backups_kept)
            metadata["deleted"] = dg.MetadataValue.text(", ".join(dropped) or "no older backup")
        context.add_output_metadata(metadata)

    @dg.job(name=JOB, description=f"Backs everything up to {target}.")
    def job() -> None:
        make_backup_op()

    return [job]

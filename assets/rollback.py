"""A job for the launchpad: let an earlier version serve again."""

import dagster as dg
from pydantic import Field

from ml_platform.access import Action, Audit
from ml_platform.rollback import RollbackPlan, plan_rollback, roll_back
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Commit
from ml_platform_dagster.resources import LakeResource, RegistryResource


class RollbackConfig(dg.Config):
    """What the launchpad asks for."""

    reason: str = Field(description="Why; kept in the promotion history.")
    version: int | None = Field(
        default=None,
        description="Version that is to serve again; by default the champion before this one.",
    )
    from_partition: str | None = Field(
        default=None,
        description="Partition from which on it serves; by default the first of this champion.",
    )
    serving: int | None = Field(
        default=None,
        description="Version that serves now, as far as you know; refused where another one does.",
    )
    decided_by: str = Field(default="Dagster UI", description="Who decides; kept in the history.")


def build_rollback_job(use_case: UseCase, settings: Settings) -> list[dg.JobDefinition]:
    """The job that rolls a use case back; its sensor of the same name recomputes the partitions.

    It does what `ml-platform rollback` does.
    """
    name = f"{use_case.name}_rollback"

    @dg.op(
        name=f"{use_case.name}_roll_back",
        out=dg.Out(dg.Nothing),
        description="Appends the rollback to the promotion history and points the alias back.",
    )
    def roll_back_op(
        context: dg.OpExecutionContext,
        config: RollbackConfig,
        lake: LakeResource,
        registry: RegistryResource,
    ) -> None:
        since = config.from_partition and use_case.calendar.window(config.from_partition).start
        plan = plan_rollback(
            lake.lake, registry.registry, use_case, decided_by=config.decided_by,
            reason=config.reason, to=config.version, since=since or None, serving=config.serving,
        )  # fmt: skip
        action = Action(
            config.decided_by, "ui", "roll back", use_case.name,
            f"version {plan.promotion.version}",
            {"reason": config.reason, "run": context.run.run_id},
        )  # fmt: skip
        commit = Commit(
            context.run.run_id, use_case.code_version, f"{use_case.name}/promotions",
            also=Audit(lake.lake).along(action),
        )  # fmt: skip
        roll_back(lake.lake, registry.registry, use_case, plan, commit)
        context.instance.add_run_tags(context.run.run_id, _tags(use_case, plan))
        context.add_output_metadata(_metadata(use_case, plan))

    @dg.job(
        name=name,
        description=(
            f"Lets an earlier version of {use_case.name} serve again. The sensor `{name}` then "
            "recomputes exactly the predictions and reports that the replaced version wrote."
        ),
    )
    def job() -> None:
        roll_back_op()

    return [job]


def _tags(use_case: UseCase, plan: RollbackPlan) -> dict[str, str]:
    return {
        "ml_platform/rolled_back_to": str(plan.promotion.version),
        "ml_platform/from_partition": _since(use_case, plan),
        "ml_platform/replaced": ", ".join(str(version) for version in plan.replaced),
    }


def _metadata(use_case: UseCase, plan: RollbackPlan) -> dict[str, dg.MetadataValue]:
    key = use_case.calendar.key
    return {
        "version": dg.MetadataValue.int(plan.promotion.version),
        "from": dg.MetadataValue.text(_since(use_case, plan)),
        "replaced": dg.MetadataValue.text(", ".join(str(version) for version in plan.replaced)),
        "reason": dg.MetadataValue.text(plan.promotion.reason),
        **{
            f"{name} to recompute": dg.MetadataValue.json([key(window) for window in windows])
            for name, windows in plan.affected.tables
        },
    }


def _since(use_case: UseCase, plan: RollbackPlan) -> str:
    return use_case.calendar.key(use_case.calendar.window_at(plan.promotion.effective_from))

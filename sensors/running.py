"""Whether a use case is being trained at the moment."""

import dagster as dg

from ml_platform.spec.use_case import UseCase

UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def training_under_way(instance: dg.DagsterInstance, use_case: UseCase) -> dg.DagsterRun | None:
    """A run that is queued or running and trains a model of a use case, if there is one."""
    model = dg.AssetKey([use_case.name, "model"])
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        if model in (run.asset_selection or _planned(instance, run)):
            return run
    return None


def _planned(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[dg.AssetKey]:
    # A run of a whole job names no assets; what it is going to make was recorded as it was created.
    planned = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    entries = instance.get_records_for_run(run.run_id, of_type=planned).records
    return {key for entry in entries if (key := entry.asset_key) is not None}

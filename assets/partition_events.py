"""What a run reports to Dagster about each of its partitions.

A range run is one step with many partitions. Dagster copies one result to all of them; these
functions say what holds for each.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from ml_platform.errors import PlatformError
from ml_platform_dagster.resources.private import (
    CODE_VERSION,
    DATA_VERSION,
    OBSERVATION,
    AssetCheckEvaluationTargetMaterializationData,
    DagsterEventBatchMetadata,
)
from ml_platform_dagster.resources.ranges import is_unattended

WHOLE_RUN = "all"
"""Stands for the partition of a verdict on everything that a run computed."""


@dataclass(frozen=True)
class CheckOutcome:
    """The outcome of a check for one partition."""

    passed: bool
    description: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR


def materialized(
    context: dg.AssetExecutionContext,
    by_partition: Mapping[str, Mapping[str, Any]],
    skipped: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
) -> Iterator[Any]:
    """Record a materialisation with metadata of its own for each partition that was computed.

    versions: what each partition holds, as a digest: Dagster's data version.
    Partitions in `skipped` stay as they were; their reasons are logged.
    """
    for key, reason in (skipped or {}).items():
        context.log.warning(f"{key} skipped: {reason}")
    if not by_partition and not is_unattended(context.run.tags):
        return
    if versions is None and by_partition.keys() == set(context.partition_keys):
        for key, metadata in by_partition.items():
            context.add_asset_metadata(metadata, partition_key=key)
        yield dg.MaterializeResult()
        return
    version = context.assets_def.code_versions_by_key.get(context.asset_key)
    code = {CODE_VERSION: version} if version else {}
    step = context.get_step_execution_context()
    for (key, metadata), place in zip(
        by_partition.items(), _batched(len(by_partition)), strict=True
    ):
        held = {DATA_VERSION: versions[key]} if versions else {}
        materialization = dg.AssetMaterialization(
            context.asset_key, partition=key, metadata=metadata, tags={**code, **held}
        )
        dg.DagsterEvent.asset_materialization(step, materialization, place)
    # The step needs an output for what comes after it in the run, which may have more to compute,
    # but not one that records the other partitions of its range as materialised, or all alike.
    yield dg.Output(None, metadata={OBSERVATION: True})


def left_out(
    context: dg.AssetExecutionContext, error: PlatformError, *checks: str
) -> Iterator[Any]:
    """Continue without a table for which there is nothing to compute, in a run that nobody watches.

    Where a person asks for it the error is raised. checks: those of the asset, which
    judge nothing.
    """
    if not is_unattended(context.run.tags):
        raise error
    context.log.warning(f"nothing to compute: {error}")
    yield from materialized(context, {})
    for name in checks:
        yield from checked(context, name, {})


def withheld(
    context: dg.AssetExecutionContext, by_partition: Mapping[str, Mapping[str, Any]]
) -> Iterator[Any]:
    """Record materialisations as `materialized` does, but let no later step of the run start.

    There is no output, so the steps that need it are skipped, and the run does not fail.
    """
    version = context.assets_def.code_versions_by_key.get(context.asset_key)
    for key, metadata in by_partition.items():
        yield dg.AssetMaterialization(
            context.asset_key,
            partition=key,
            metadata=metadata,
            tags={CODE_VERSION: version} if version else None,
        )


def checked(
    context: dg.AssetExecutionContext, name: str, verdicts: Mapping[str, CheckOutcome]
) -> Iterator[Any]:
    """Record a check's outcome for each partition, and then for the run as a whole.

    Comes after `materialized`, since each outcome names the materialisation that it judges. Every
    run records one, also where no partition could be judged: Dagster asks for it.
    """
    failed = {key: verdict for key, verdict in verdicts.items() if not verdict.passed}
    if len(verdicts) > 1:
        _record_each(context, name, verdicts)
    newest = list(failed or verdicts)[-1:]
    described = [verdicts[key] for key in newest]
    yield dg.AssetCheckResult(
        check_name=name,
        passed=not failed,
        severity=max(
            (v.severity for v in failed.values()), key=_weight, default=dg.AssetCheckSeverity.WARN
        ),
        description=_in_words(newest, verdicts, len(failed)),
        metadata={
            **(described[0].metadata if described else {}),
            "partitions judged": len(verdicts),
            "partitions failed": len(failed),
            **({"failed": ", ".join(_abridged(list(failed)))} if failed else {}),
        },
    )


def _in_words(newest: Sequence[str], verdicts: Mapping[str, CheckOutcome], failed: int) -> str:
    if not newest:
        return "nothing to judge"
    (key,) = newest
    said = _named(key, verdicts[key])
    if not failed or len(verdicts) == 1:
        return said
    return f"{failed} of {len(verdicts)} partitions failed, the newest of them {said}"


def _named(key: str, verdict: CheckOutcome) -> str:
    """What a check says, with the name of the partition that it says it of."""
    return verdict.description if key == WHOLE_RUN else f"{key}: {verdict.description}"


def _record_each(
    context: dg.AssetExecutionContext, name: str, verdicts: Mapping[str, CheckOutcome]
) -> None:
    storage = context.instance.event_log_storage
    ids = storage.get_latest_storage_id_by_partition(
        context.asset_key, dg.DagsterEventType.ASSET_MATERIALIZATION, set(verdicts)
    )
    now = context.instance.get_run_record_by_id(context.run.run_id)
    timestamp = now.update_timestamp.timestamp() if now else 0.0
    step = context.get_step_execution_context()
    for (key, verdict), place in zip(verdicts.items(), _batched(len(verdicts)), strict=True):
        target = (
            AssetCheckEvaluationTargetMaterializationData(
                storage_id=ids[key], run_id=context.run.run_id, timestamp=timestamp
            )
            if key in ids
            else None
        )
        evaluation = dg.AssetCheckEvaluation(
            asset_key=context.asset_key,
            check_name=name,
            partition=key,
            passed=verdict.passed,
            severity=verdict.severity,
            description=_named(key, verdict),
            metadata=dg.AssetCheckResult(passed=True, metadata=verdict.metadata).metadata,
            target_materialization_data=target,
        )
        said = "passed" if verdict.passed else "did not pass"
        dg.DagsterEvent.from_step(
            dg.DagsterEventType.ASSET_CHECK_EVALUATION,
            step,
            evaluation,
            f"Asset check '{name}' {said}: {_named(key, verdict)}",
            place,
        )


def _batched(count: int) -> Iterator[DagsterEventBatchMetadata]:
    """Places of so many events in one batch; yielded as results, each would be stored by itself."""
    batch = uuid.uuid4().hex
    return (DagsterEventBatchMetadata(batch, number == count) for number in range(1, count + 1))


def _weight(severity: dg.AssetCheckSeverity) -> int:
    return int(severity is dg.AssetCheckSeverity.ERROR)


def _abridged(keys: Sequence[str], most: int = 12) -> list[str]:
    return [*keys[:most], f"… {len(keys) - most} more"] if len(keys) > most else list(keys)

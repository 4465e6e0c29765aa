"""Reports on what was predicted on request, and whether it was given what the join yields."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from assets.events import Verdict, checked, materialized
from assets.metadata import asset_key, common, table_metadata
from assets.monitoring import (
    NO_DRIFT,
    WITHIN_BOUNDS,
    bounds_of,
    drift_metadata,
    drift_verdict,
    performance_metadata,
    performance_verdict,
    reasons_of,
)
from assets.partitions import backfill_policy, looking_back, partitions_of, stretch_of, trailing
from ml_platform.backfill import computing
from ml_platform.monitoring import (
    compare_online,
    drift_table,
    performance_table,
    report_drift,
    report_performance,
)
from ml_platform.settings import Settings
from ml_platform.spec.tables import code_version
from ml_platform.spec.use_case import FEEDBACK, LIVE_REPORTS, REQUESTS, UseCase
from ml_platform.spec.windows import Duration
from resources import LakeResource, RegistryResource

DRIFT, PERFORMANCE = LIVE_REPORTS
SAME_ONLINE = "online_features_equal_the_join"


def build_live(use_case: UseCase, settings: Settings) -> list[dg.AssetsDefinition]:
    """The reports of a use case whose requests are logged; none where they are not."""
    if REQUESTS not in use_case.sources:
        return []
    return [_build_drift(use_case, settings), _build_performance(use_case, settings)]


def _build_drift(use_case: UseCase, settings: Settings) -> dg.AssetsDefinition:
    key, partitions = asset_key(use_case, DRIFT), partitions_of(use_case)
    mapping = trailing(use_case, use_case.monitoring.window)
    share = use_case.monitoring.drift.share

    @dg.asset(
        key=key,
        deps=[
            dg.AssetDep(asset_key(use_case, table), partition_mapping=mapping)
            for table in (REQUESTS, "labels")
        ],
        partitions_def=partitions,
        backfill_policy=backfill_policy(settings),
        code_version=code_version(use_case, DRIFT),
        description=(
            f"Requests that were answered in the {use_case.monitoring.window} that trail up to "
            "each partition's end, against what its champion was trained on. Columns that are "
            "hashed or left out of the log are not compared."
        ),
        metadata=table_metadata(drift_table(use_case, live=True)),
        check_specs=[
            dg.AssetCheckSpec(
                NO_DRIFT,
                asset=key,
                partitions_def=partitions,
                description=f"Fails when {share:.0%} of the columns drift or more.",
            )
        ],
        output_required=False,
        **common(use_case, "ducklake"),
    )
    def live_drift(
        context: dg.AssetExecutionContext, lake: LakeResource, registry: RegistryResource
    ) -> Iterator[Any]:
        stretch, run_id = stretch_of(context, use_case), context.run.run_id
        with computing(lake.lake, use_case, DRIFT, stretch, run_id) as commit:
            run = report_drift(lake.lake, registry.registry, use_case, stretch, commit, live=True)
        found = {use_case.calendar.key(window): drift for window, drift in run.windows.items()}
        rows = {key: drift_metadata(drift, None, run.snapshot) for key, drift in found.items()}
        yield from materialized(context, rows, reasons_of(use_case, run.skipped))
        verdicts = {key: drift_verdict(drift, None) for key, drift in found.items()}
        yield from checked(context, NO_DRIFT, verdicts)

    return live_drift


def _build_performance(use_case: UseCase, settings: Settings) -> dg.AssetsDefinition:
    key, partitions = asset_key(use_case, PERFORMANCE), partitions_of(use_case)
    mapping = looking_back(use_case, Duration(0, "d"))

    @dg.asset(
        key=key,
        deps=[
            dg.AssetDep(asset_key(use_case, table), partition_mapping=mapping)
            for table in (REQUESTS, "labels", FEEDBACK)
        ],
        partitions_def=partitions,
        backfill_policy=backfill_policy(settings),
        code_version=code_version(use_case, PERFORMANCE),
        description="Predictions made on request against the labels that have arrived.",
        metadata=table_metadata(performance_table(use_case, live=True)),
        check_specs=[
            dg.AssetCheckSpec(
                WITHIN_BOUNDS,
                asset=key,
                partitions_def=partitions,
                description=bounds_of(use_case),
            ),
            dg.AssetCheckSpec(
                SAME_ONLINE,
                asset=key,
                description=(
                    "What the model was given for rows by key is, to the bit, what the "
                    "point-in-time join yields for the same examples."
                ),
            ),
        ],
        output_required=False,
        **common(use_case, "ducklake"),
    )
    def live_performance(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Any]:
        stretch, run_id = stretch_of(context, use_case), context.run.run_id
        # What was given online is told also where no label has arrived yet.
        yield from checked(context, SAME_ONLINE, {"all": _agreement(lake, use_case, stretch)})
        now = datetime.now(UTC)
        with computing(lake.lake, use_case, PERFORMANCE, stretch, run_id) as commit:
            run = report_performance(lake.lake, use_case, stretch, commit, now=now, live=True)
        found = {use_case.calendar.key(window): each for window, each in run.windows.items()}
        rows = {key: performance_metadata(each, run) for key, each in found.items()}
        yield from materialized(context, rows, reasons_of(use_case, run.skipped))
        verdicts = {
            key: performance_verdict(use_case, each)
            for key, each in found.items()
            if each.passed is not None
        }
        yield from checked(context, WITHIN_BOUNDS, verdicts)

    return live_performance


def _agreement(lake: LakeResource, use_case: UseCase, stretch: Any) -> Verdict:
    skew = compare_online(lake.lake, use_case, stretch)
    said = f"{skew.compared} rows by key compared"
    differing = ", ".join(f"{name} in {count}" for name, count in skew.differing.items())
    return Verdict(
        passed=not skew.differing,
        description=f"{said}; other values of {differing}" if differing else said,
        metadata={"compared": skew.compared, **dict(skew.differing)},
        severity=dg.AssetCheckSeverity.WARN,
    )

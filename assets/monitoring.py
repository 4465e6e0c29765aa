"""Drift and performance reports, with a check that has a status for each partition.

There are two of each where requests are logged: of the prediction table, and of what was predicted
on request.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from ml_platform.backfill import NOTHING_TO_COMPUTE, computing
from ml_platform.errors import PlatformError
from ml_platform.monitoring import (
    DriftRun,
    compare_online,
    drift_table,
    drift_trend,
    performance_table,
    performance_trend,
    render_drift_html,
    report_drift,
    report_performance,
    report_url,
)
from ml_platform.orchestrator.parameters import described_by
from ml_platform.settings import Settings
from ml_platform.spec.duration import Duration
from ml_platform.spec.tables import code_version, reads_of
from ml_platform.spec.use_case import REQUESTS, UseCase
from ml_platform_dagster.assets.automation import follows
from ml_platform_dagster.assets.metadata import asset_key, common, table_metadata
from ml_platform_dagster.assets.partition_events import WHOLE_RUN, checked, left_out, materialized
from ml_platform_dagster.assets.partitions import (
    backfill_policy,
    looking_back,
    partitions_of,
    range_of,
    trailing,
)
from ml_platform_dagster.assets.reports import (
    agreement_verdict,
    bounds_of,
    drift_metadata,
    drift_verdict,
    performance_metadata,
    performance_verdict,
    reasons_of,
    with_trend,
)
from ml_platform_dagster.resources import LakeResource, RegistryResource

NO_DRIFT = "no_drift"
WITHIN_BOUNDS = "performance_within_bounds"
SAME_ONLINE = "online_features_equal_the_join"


def build_monitoring(use_case: UseCase, settings: Settings) -> list[dg.AssetsDefinition]:
    """The assets of a use case's drift and performance reports."""
    kinds = (False, True) if REQUESTS in use_case.sources else (False,)
    return [
        build(use_case, settings, live)
        for live in kinds
        for build in (_build_drift, _build_performance)
    ]


def _build_drift(use_case: UseCase, settings: Settings, live: bool) -> dg.AssetsDefinition:
    spec, table = use_case.monitoring, drift_table(use_case, live=live)
    key, partitions = asset_key(use_case, table.name), partitions_of(use_case)

    @dg.asset(
        key=key,
        deps=_deps(use_case, table.name, trailing(use_case, spec.window)),
        partitions_def=partitions,
        backfill_policy=backfill_policy(settings),
        automation_condition=follows(use_case, table.name, _predicted(use_case, live)),
        code_version=code_version(use_case, table.name),
        description=(
            f"{_what(live)} in the {spec.window} that trail up to each partition's end, against "
            "what its champion was trained on: a score for each column. "
            + (
                "Columns that are hashed or left out of the log are not compared."
                if live
                else "`report` opens Evidently's page of the partition."
            )
        ),
        metadata=table_metadata(table),
        check_specs=[
            dg.AssetCheckSpec(
                NO_DRIFT,
                asset=key,
                partitions_def=partitions,
                description=f"Fails where {spec.drift.share:.0%} of the columns or more drift.",
            )
        ],
        output_required=False,
        **common(use_case, "ducklake", *(() if live else ("evidently",))),
    )
    def drift_report(
        context: dg.AssetExecutionContext, lake: LakeResource, registry: RegistryResource
    ) -> Iterator[Any]:
        window_range, run_id = range_of(context, use_case), context.run.run_id
        asked = described_by(context.run.tags)
        try:
            with computing(lake.lake, use_case, table.name, window_range, run_id, asked) as commit:
                run = report_drift(
                    lake.lake, registry.registry, use_case, window_range, commit, live=live
                )
        except NOTHING_TO_COMPUTE as error:
            yield from left_out(context, error, NO_DRIFT)
            return
        if not live:
            _draw_failure(context, lake, registry, use_case, run)
        found = {
            use_case.calendar.key(window): (
                drift,
                None if live else report_url(settings, use_case, window),
            )
            for window, drift in run.windows.items()
        }
        rows = {key: drift_metadata(*each, run.snapshot) for key, each in found.items()}
        for key in list(rows)[-1:]:
            rows[key] = with_trend(rows[key], drift_trend(lake.lake, use_case, live=live))
        yield from materialized(context, rows, reasons_of(use_case, run.skipped))
        verdicts = {key: drift_verdict(*each) for key, each in found.items()}
        yield from checked(context, NO_DRIFT, verdicts)

    return drift_report


def _build_performance(use_case: UseCase, settings: Settings, live: bool) -> dg.AssetsDefinition:
    table = performance_table(use_case, live=live)
    key, partitions = asset_key(use_case, table.name), partitions_of(use_case)
    agreement = dg.AssetCheckSpec(
        SAME_ONLINE,
        asset=key,
        description=(
            "What the model was given for rows by key is, to the bit, what the point-in-time join "
            "yields for the same examples."
        ),
    )

    @dg.asset(
        key=key,
        deps=_deps(use_case, table.name, looking_back(use_case, Duration(0, "d"))),
        partitions_def=partitions,
        backfill_policy=backfill_policy(settings),
        automation_condition=follows(use_case, table.name, _predicted(use_case, live)),
        code_version=code_version(use_case, table.name),
        description=(
            f"{_what(live)} against the labels that have arrived: what was reported first, and "
            "what is known now."
        ),
        metadata=table_metadata(table),
        check_specs=[
            dg.AssetCheckSpec(
                WITHIN_BOUNDS,
                asset=key,
                partitions_def=partitions,
                description=bounds_of(use_case),
            ),
            *([agreement] if live else []),
        ],
        output_required=False,
        **common(use_case, "ducklake"),
    )
    def performance(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Any]:
        window_range, run_id = range_of(context, use_case), context.run.run_id
        asked = described_by(context.run.tags)
        if live:
            # What was given online is reported also where no label has arrived yet.
            skew = compare_online(lake.lake, use_case, window_range)
            yield from checked(context, SAME_ONLINE, {WHOLE_RUN: agreement_verdict(skew)})
        now = datetime.now(UTC)
        try:
            with computing(lake.lake, use_case, table.name, window_range, run_id, asked) as commit:
                run = report_performance(
                    lake.lake, use_case, window_range, commit, now=now, live=live
                )
        except NOTHING_TO_COMPUTE as error:
            yield from left_out(context, error, WITHIN_BOUNDS)
            return
        found = {use_case.calendar.key(window): each for window, each in run.windows.items()}
        rows = {key: performance_metadata(use_case, each, run) for key, each in found.items()}
        for key in list(rows)[-1:]:
            rows[key] = with_trend(rows[key], performance_trend(lake.lake, use_case, live=live))
        yield from materialized(context, rows, reasons_of(use_case, run.skipped))
        verdicts = {
            key: performance_verdict(use_case, each)
            for key, each in found.items()
            if each.passed is not None
        }
        yield from checked(context, WITHIN_BOUNDS, verdicts)

    return performance


def _deps(
    use_case: UseCase, table: str, mapping: dg.TimeWindowPartitionMapping
) -> list[dg.AssetDep]:
    return [
        dg.AssetDep(asset_key(use_case, read.table), partition_mapping=mapping)
        for read in reads_of(use_case, table)
    ]


def _predicted(use_case: UseCase, live: bool) -> str:
    """The source without which a partition has nothing to report on."""
    return REQUESTS if live else use_case.examples.source


def _what(live: bool) -> str:
    return "Rows that were predicted on request" if live else "Predictions"


def _draw_failure(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    registry: RegistryResource,
    use_case: UseCase,
    run: DriftRun,
) -> None:
    # A page takes seconds: a range leaves it to whoever follows the link of a partition.
    failed = [window for window, drift in run.windows.items() if drift.failed]
    if not failed or len(context.partition_keys) > 1:
        return
    try:
        path = render_drift_html(lake.lake, registry.registry, use_case, failed[0])
    except PlatformError as error:
        # The scores are what counts; they are stored, and the page can be drawn later.
        context.log.error(f"no page for {context.partition_key}: {error}")
    else:
        context.log.info(f"drew {path}")

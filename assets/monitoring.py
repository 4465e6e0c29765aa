"""Drift and performance reports, with a check that has a status for each partition."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from assets.automation import follows
from assets.events import Verdict, checked, left_out, materialized
from assets.metadata import asset_key, common, table_metadata
from assets.partitions import (
    backfill_policy,
    looking_back,
    partitions_of,
    stretch_of,
    trailing,
)
from ml_platform.backfill import NOTHING_TO_COMPUTE, computing
from ml_platform.errors import PlatformError
from ml_platform.monitoring import (
    DriftRun,
    Performance,
    PerformanceRun,
    WindowDrift,
    drift_table,
    performance_table,
    render_drift_html,
    report_drift,
    report_performance,
    report_url,
)
from ml_platform.settings import Settings
from ml_platform.spec.tables import code_version
from ml_platform.spec.use_case import UseCase, feature_table
from ml_platform.spec.windows import Duration, Window
from resources import LakeResource, RegistryResource

NO_DRIFT = "no_drift"
WITHIN_BOUNDS = "performance_within_bounds"


def build_monitoring(use_case: UseCase, settings: Settings) -> list[dg.AssetsDefinition]:
    """The assets of a use case's drift and performance reports."""
    return [_build_drift(use_case, settings), _build_performance(use_case, settings)]


def _build_drift(use_case: UseCase, settings: Settings) -> dg.AssetsDefinition:
    spec = use_case.monitoring
    key = asset_key(use_case, "drift_report")
    partitions = partitions_of(use_case)
    watched = ["predictions", *(feature_table(v) for v in use_case.model_views), "labels"]
    mapping = trailing(use_case, spec.window)

    @dg.asset(
        key=key,
        deps=[dg.AssetDep(asset_key(use_case, t), partition_mapping=mapping) for t in watched],
        partitions_def=partitions,
        backfill_policy=backfill_policy(settings),
        automation_condition=follows(use_case, use_case.examples.source),
        code_version=code_version(use_case, "drift_report"),
        description=(
            f"Features, predictions and labels of the {spec.window} that trail up to each "
            "partition's end, against what its champion was trained on: a score for each column. "
            "`report` opens Evidently's page of the partition."
        ),
        metadata=table_metadata(drift_table(use_case)),
        check_specs=[
            dg.AssetCheckSpec(
                NO_DRIFT,
                asset=key,
                partitions_def=partitions,
                description=f"Fails when {spec.drift.share:.0%} of the columns drift or more.",
            )
        ],
        output_required=False,
        **common(use_case, "ducklake", "evidently"),
    )
    def drift_report(
        context: dg.AssetExecutionContext, lake: LakeResource, registry: RegistryResource
    ) -> Iterator[Any]:
        stretch = stretch_of(context, use_case)
        run_id = context.run.run_id
        try:
            with computing(lake.lake, use_case, "drift_report", stretch, run_id) as commit:
                run = report_drift(lake.lake, registry.registry, use_case, stretch, commit)
        except NOTHING_TO_COMPUTE as error:
            yield from left_out(context, error, NO_DRIFT)
            return
        _draw_failure(context, lake, registry, use_case, run)
        links = {window: report_url(settings, use_case, window) for window in run.windows}
        rows = {
            use_case.calendar.key(window): drift_metadata(drift, links[window], run.snapshot)
            for window, drift in run.windows.items()
        }
        yield from materialized(context, rows, reasons_of(use_case, run.skipped))
        verdicts = {
            use_case.calendar.key(window): drift_verdict(drift, links[window])
            for window, drift in run.windows.items()
        }
        yield from checked(context, NO_DRIFT, verdicts)

    return drift_report


def _build_performance(use_case: UseCase, settings: Settings) -> dg.AssetsDefinition:
    key = asset_key(use_case, "performance_report")
    partitions = partitions_of(use_case)
    mapping = looking_back(use_case, Duration(0, "d"))

    @dg.asset(
        key=key,
        deps=[
            dg.AssetDep(asset_key(use_case, table), partition_mapping=mapping)
            for table in ("predictions", "labels")
        ],
        partitions_def=partitions,
        backfill_policy=backfill_policy(settings),
        automation_condition=follows(use_case, use_case.examples.source),
        code_version=code_version(use_case, "performance_report"),
        description=(
            "Predictions against the labels that have arrived: what was reported first, and what "
            "is known now."
        ),
        metadata=table_metadata(performance_table(use_case)),
        check_specs=[
            dg.AssetCheckSpec(
                WITHIN_BOUNDS,
                asset=key,
                partitions_def=partitions,
                description=bounds_of(use_case),
            )
        ],
        output_required=False,
        **common(use_case, "ducklake"),
    )
    def performance(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Any]:
        stretch = stretch_of(context, use_case)
        run_id = context.run.run_id
        now = datetime.now(UTC)
        try:
            with computing(lake.lake, use_case, "performance_report", stretch, run_id) as commit:
                run = report_performance(lake.lake, use_case, stretch, commit, now=now)
        except NOTHING_TO_COMPUTE as error:
            yield from left_out(context, error, WITHIN_BOUNDS)
            return
        rows = {
            use_case.calendar.key(window): performance_metadata(found, run)
            for window, found in run.windows.items()
        }
        yield from materialized(context, rows, reasons_of(use_case, run.skipped))
        verdicts = {
            use_case.calendar.key(window): performance_verdict(use_case, found)
            for window, found in run.windows.items()
            if found.passed is not None
        }
        yield from checked(context, WITHIN_BOUNDS, verdicts)

    return performance


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


def drift_metadata(drift: WindowDrift, link: str | None, snapshot: int) -> dict[str, Any]:
    """What the UI shows of a drift report; link: its page, if it has one."""
    return {
        **({"report": dg.MetadataValue.url(link)} if link else {}),
        **({} if drift.share is None else {"share drifted": drift.share}),
        **({} if drift.largest_score is None else {"largest score": drift.largest_score}),
        "columns drifted": len(drift.drifted),
        "columns judged": drift.judged,
        "champion": drift.version,
        "snapshot": snapshot,
        "scores": _score_table(drift),
        **{f"score {c.column}": c.score for c in drift.columns if c.score is not None},
    }


def _score_table(drift: WindowDrift) -> dg.MetadataValue:
    ordered = sorted(drift.columns, key=lambda c: -1.0 if c.score is None else -c.score)
    lines = [
        f"| {f'**{c.column}**' if c.drifted else c.column} | {c.kind} | {c.method} "
        f"| {'' if c.score is None else f'{c.score:.3f}'} | {c.status} |"
        for c in ordered
    ]
    return dg.MetadataValue.md(
        "\n".join(
            [
                "| column | kind | method | score | status |",
                "| --- | --- | --- | --- | --- |",
                *lines,
            ]
        )
    )


def drift_verdict(drift: WindowDrift, link: str | None) -> Verdict:
    """Whether too many columns drifted."""
    if drift.share is None:
        return Verdict(
            True, "too few rows to judge any column", severity=dg.AssetCheckSeverity.WARN
        )
    said = f"{len(drift.drifted)} of {drift.judged} columns drifted"
    return Verdict(
        passed=not drift.failed,
        description=f"{said}: {', '.join(drift.drifted)}" if drift.drifted else said,
        metadata={
            "share drifted": drift.share,
            **({"report": dg.MetadataValue.url(link)} if link else {}),
        },
        severity=dg.AssetCheckSeverity.WARN,
    )


def performance_metadata(found: Performance, run: PerformanceRun) -> dict[str, Any]:
    """What the UI shows of a performance report."""
    return {
        "dagster/partition_row_count": found.rows,
        "labelled": found.labelled,
        "coverage": found.coverage,
        "status": found.status,
        "model versions": ", ".join(str(version) for version in found.versions),
        "snapshot": run.snapshot,
        **{name: float(value) for name, value in found.metrics.items()},
    }


def performance_verdict(use_case: UseCase, found: Performance) -> Verdict:
    """Whether the metrics keep their bounds."""
    bounds = use_case.monitoring.performance.bounds_by(use_case.model.metric)
    said = [
        f"{metric} {found.metrics[metric]:.4f}{'' if kept else ' fails'} ({bounds[metric]})"
        for metric, kept in found.kept.items()
    ]
    return Verdict(
        passed=bool(found.passed),
        description=f"{', '.join(said)} on {found.labelled} labelled rows",
        metadata={
            **{metric: found.metrics[metric] for metric in found.kept},
            "labelled": found.labelled,
        },
        severity=dg.AssetCheckSeverity.WARN,
    )


def bounds_of(use_case: UseCase) -> str:
    """The bounds of a use case, in words."""
    bounds = use_case.monitoring.performance.bounds_by(use_case.model.metric)
    said = ", ".join(f"`{metric}` {each}" for metric, each in bounds.items())
    return f"Within bounds: {said}." if said else "No bounds are set."


def reasons_of(use_case: UseCase, skipped: Mapping[Window, PlatformError]) -> dict[str, str]:
    """Why partitions have no report, by key."""
    return {use_case.calendar.key(window): str(error) for window, error in skipped.items()}

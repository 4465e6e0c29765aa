"""Feature tables and labels, each from one query, with the leak check beside it."""

from collections.abc import Iterable, Iterator
from typing import Any

import dagster as dg

from ml_platform.backfill import NOTHING_TO_COMPUTE, computing
from ml_platform.engines import compute_features
from ml_platform.features import (
    FeedbackCounts,
    LeakReport,
    check_and_note,
    compute_labels,
    count_feedback,
    feature_view_table,
    labels_table,
)
from ml_platform.orchestrator.parameters import described_by
from ml_platform.settings import Settings
from ml_platform.spec.duration import Duration
from ml_platform.spec.lineage import KeptLineage
from ml_platform.spec.tables import code_version, given_labels
from ml_platform.spec.use_case import FEEDBACK, UseCase
from ml_platform.storage import Table, Written
from ml_platform_dagster.assets.automation import follows
from ml_platform_dagster.assets.engine import EngineConfig
from ml_platform_dagster.assets.metadata import (
    asset_key,
    column_lineage,
    common,
    described,
    lineage_of,
    table_metadata,
)
from ml_platform_dagster.assets.partition_events import (
    WHOLE_RUN,
    CheckOutcome,
    checked,
    left_out,
    materialized,
)
from ml_platform_dagster.assets.partitions import (
    backfill_policy,
    looking_ahead,
    looking_back,
    partitions_of,
    range_of,
)
from ml_platform_dagster.resources import LakeResource

NO_LEAK = "no_leak"
FEEDBACK_AGREES = "feedback_agrees"


def build_features(use_case: UseCase, settings: Settings) -> list[dg.AssetsDefinition]:
    """One asset for each feature view, and one for the labels."""
    lineage = lineage_of(use_case, settings)
    views = [_build_view(use_case, view, lineage, settings) for view in use_case.features]
    return [*views, _build_labels(use_case, lineage, settings)]


def _build_view(
    use_case: UseCase, view: str, lineage: KeptLineage, settings: Settings
) -> dg.AssetsDefinition:
    declared = use_case.features[view]
    table = feature_view_table(use_case, view)
    key = asset_key(use_case, table.name)
    text = declared.description or f"Features of {', '.join(declared.entity)}."
    reach = (
        f"Looks back {declared.lookback}; joined to examples while not older than {declared.ttl}."
    )
    mapping = looking_back(use_case, declared.lookback)

    @dg.asset(
        key=key,
        deps=[
            dg.AssetDep(asset_key(use_case, s), partition_mapping=mapping) for s in declared.reads
        ],
        partitions_def=partitions_of(use_case),
        backfill_policy=backfill_policy(settings),
        automation_condition=follows(use_case, table.name, *declared.reads),
        code_version=code_version(use_case, table.name),
        description=described(f"{text}\n\n{reach}", declared.query),
        metadata={
            **table_metadata(table),
            **column_lineage(use_case, lineage.of(declared.query)),
        },
        check_specs=[_no_leak(use_case, table)],
        output_required=False,
        **common(use_case, "ducklake", "sql"),
    )
    def view_asset(
        context: dg.AssetExecutionContext, config: EngineConfig, lake: LakeResource
    ) -> Iterator[Any]:
        window_range = range_of(context, use_case)
        run_id, asked = context.run.run_id, described_by(context.run.tags)
        try:
            with computing(lake.lake, use_case, table.name, window_range, run_id, asked) as commit:
                written = compute_features(
                    lake.lake, use_case, view, window_range, commit, engine=config.chosen
                )
        except NOTHING_TO_COMPUTE as error:
            yield from left_out(context, error, NO_LEAK)
            return
        yield from materialized(context, *row_counts(use_case, written, "its sources have no rows"))
        reports = check_and_note(lake.lake, use_case, view, written, commit)
        verdicts = _leak_verdicts(use_case, reports)
        yield from checked(context, NO_LEAK, verdicts)

    return view_asset


def _build_labels(
    use_case: UseCase, lineage: KeptLineage, settings: Settings
) -> dg.AssetsDefinition:
    label = use_case.label
    table = labels_table(use_case)
    mapping = looking_ahead(use_case, label.horizon)
    same = looking_back(use_case, Duration(0, "d"))
    given = given_labels(use_case)
    feedback = [name for name in given if name == FEEDBACK]

    @dg.asset(
        key=asset_key(use_case, table.name),
        deps=[
            *(dg.AssetDep(asset_key(use_case, s), partition_mapping=mapping) for s in label.reads),
            *(dg.AssetDep(asset_key(use_case, s), partition_mapping=same) for s in given),
        ],
        partitions_def=partitions_of(use_case),
        backfill_policy=backfill_policy(settings),
        # Feedback about an example that has not landed is counted, and a request may be enough.
        automation_condition=follows(use_case, table.name, use_case.examples.source, *feedback),
        code_version=code_version(use_case, table.name),
        description=described(
            f"What became of each example ({label.task}), and from when on it was known. "
            f"The last label of a partition arrives up to {label.horizon} after its end.",
            label.query,
        ),
        metadata={**table_metadata(table), **column_lineage(use_case, lineage.of(label.query))},
        check_specs=[
            _no_leak(use_case, table),
            *([_feedback_agrees(use_case, table)] if given else []),
        ],
        output_required=False,
        **common(use_case, "ducklake", "sql"),
    )
    def labels_asset(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Any]:
        window_range = range_of(context, use_case)
        run_id, asked = context.run.run_id, described_by(context.run.tags)
        try:
            with computing(lake.lake, use_case, table.name, window_range, run_id, asked) as commit:
                written = compute_labels(lake.lake, use_case, window_range, commit)
        except NOTHING_TO_COMPUTE as error:
            yield from left_out(context, error, NO_LEAK)
            return
        yield from materialized(context, *row_counts(use_case, written, "no label has arrived yet"))
        reports = check_and_note(lake.lake, use_case, None, written, commit)
        verdicts = _leak_verdicts(use_case, reports)
        yield from checked(context, NO_LEAK, verdicts)
        if given:
            counts = count_feedback(lake.lake, use_case, window_range)
            yield from checked(context, FEEDBACK_AGREES, {WHOLE_RUN: _feedback_verdict(counts)})

    return labels_asset


def _feedback_verdict(counts: FeedbackCounts) -> CheckOutcome:
    said = f"{counts.given} given, about {counts.unmatched} predictions or examples not there"
    return CheckOutcome(
        passed=not counts.conflicts,
        description=f"{said}, {counts.conflicts} examples with contradictions",
        metadata={"given": counts.given, "unmatched": counts.unmatched},
        severity=dg.AssetCheckSeverity.WARN,
    )


def row_counts(
    use_case: UseCase, written: Written, why_empty: str
) -> tuple[dict[str, dict[str, Any]], dict[str, str], dict[str, str]]:
    """What `materialized` is given: metadata of the partitions that have rows, reasons, versions.

    One that has lost its rows counts too: what depends on it has to see that.
    """
    keys = {use_case.calendar.key(window): window for window in written.rows}
    counts = {
        key: {"dagster/partition_row_count": written.rows[window], "snapshot": written.snapshot}
        for key, window in keys.items()
        if written.rows[window] or window in written.changed
    }
    versions = {key: written.versions[keys[key]] for key in counts}
    return counts, {key: why_empty for key in keys if key not in counts}, versions


def _no_leak(use_case: UseCase, table: Table) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        NO_LEAK,
        asset=asset_key(use_case, table.name),
        blocking=True,
        description="The same values come out when rows not known yet are hidden.",
    )


def _feedback_agrees(use_case: UseCase, table: Table) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        FEEDBACK_AGREES,
        asset=asset_key(use_case, table.name),
        description="No two labels of an example contradict each other that came back.",
    )


def _leak_verdicts(use_case: UseCase, reports: Iterable[LeakReport]) -> dict[str, CheckOutcome]:
    return {use_case.calendar.key(report.window): _leak_verdict(report) for report in reports}


def _leak_verdict(report: LeakReport) -> CheckOutcome:
    moments = ", ".join(moment.isoformat() for moment in report.cuts)
    return CheckOutcome(
        passed=report.problem is None,
        description=report.problem
        or f"{report.rows_compared} rows came out the same without the future",
        metadata={"rows compared": report.rows_compared, "cut at": moments},
    )

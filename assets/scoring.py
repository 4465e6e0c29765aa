"""Prediction tables, each window scored by the champion of that window."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ml_platform.backfill import NOTHING_TO_COMPUTE, computing
from ml_platform.orchestrator.parameters import described_by
from ml_platform.scoring import predictions_table, score
from ml_platform.settings import Settings
from ml_platform.spec.duration import Duration
from ml_platform.spec.tables import code_version
from ml_platform.spec.use_case import UseCase, feature_table
from ml_platform_dagster.assets.automation import follows
from ml_platform_dagster.assets.engine import EngineConfig
from ml_platform_dagster.assets.metadata import asset_key, column_lineage, common, table_metadata
from ml_platform_dagster.assets.partition_events import left_out, materialized
from ml_platform_dagster.assets.partitions import (
    backfill_policy,
    looking_back,
    partitions_of,
    range_of,
)
from ml_platform_dagster.resources import LakeResource, RegistryResource


def build_scoring(use_case: UseCase, settings: Settings) -> list[dg.AssetsDefinition]:
    """The asset of a use case's predictions."""
    table = predictions_table(use_case)

    @dg.asset(
        key=asset_key(use_case, table.name),
        deps=[*inputs_of(use_case), asset_key(use_case, "promotions")],
        partitions_def=partitions_of(use_case),
        backfill_policy=backfill_policy(settings),
        automation_condition=follows(use_case, table.name, use_case.examples.source),
        code_version=code_version(use_case, table.name),
        description=(
            "Every example scored by the champion of its window: the version whose promotion was "
            "effective when the window began, so a backfill of history is a leak-free backtest.\n\n"
            "Each row is stamped with model version, lake snapshot and the time of scoring."
        ),
        metadata={**table_metadata(table), **_lineage(use_case)},
        output_required=False,
        **common(use_case, "ducklake", "scikitlearn"),
    )
    def predictions(
        context: dg.AssetExecutionContext,
        config: EngineConfig,
        lake: LakeResource,
        registry: RegistryResource,
    ) -> Iterator[Any]:
        window_range = range_of(context, use_case)
        run_id, asked = context.run.run_id, described_by(context.run.tags)
        try:
            with computing(lake.lake, use_case, table.name, window_range, run_id, asked) as commit:
                report = score(
                    lake.lake,
                    registry.registry,
                    use_case,
                    window_range,
                    commit,
                    engine=config.chosen,
                )
            report.raise_if_empty()
        except NOTHING_TO_COMPUTE as error:
            yield from left_out(context, error)
            return
        written = report.written
        assert written is not None
        rows = {
            use_case.calendar.key(window): {
                "dagster/partition_row_count": written.rows[window],
                "model version": number,
                "snapshot": written.snapshot,
            }
            for window, number in report.versions.items()
        }
        skipped = {use_case.calendar.key(w): str(error) for w, error in report.skipped.items()}
        versions = {use_case.calendar.key(w): v for w, v in written.versions.items()}
        yield from materialized(context, rows, skipped, versions)

    return [predictions]


def inputs_of(use_case: UseCase) -> list[dg.AssetDep]:
    """What a window's examples are assembled from: their source, and features within their ttl."""
    examples = dg.AssetDep(
        asset_key(use_case, use_case.examples.source),
        partition_mapping=looking_back(use_case, Duration(0, "d")),
    )
    features = [
        dg.AssetDep(
            asset_key(use_case, feature_table(view)),
            partition_mapping=looking_back(use_case, use_case.model_views[view].ttl),
        )
        for view in use_case.model_views
    ]
    return [examples, *features]


def _lineage(use_case: UseCase) -> dict[str, Any]:
    features = tuple(
        (feature_table(view), feature)
        for view, declared in use_case.model_views.items()
        for feature in declared.features
    )
    keys = {c: ((use_case.examples.source, c),) for c in use_case.examples.entity}
    event_time = use_case.sources[use_case.examples.source].event_time
    keys["event_time"] = ((use_case.examples.source, event_time),)
    return column_lineage(
        use_case, {**keys, **dict.fromkeys(use_case.prediction_columns, features)}
    )

"""Predictions and features in tables of others, with the check that none is lost on the way."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ml_platform.backfill import NOTHING_TO_COMPUTE, computing
from ml_platform.orchestrator.parameters import described_by
from ml_platform.publish import Counted, PublishReport, publish_range, record_table
from ml_platform.settings import Settings
from ml_platform.spec.duration import Duration
from ml_platform.spec.lineage import Lineage
from ml_platform.spec.publication import Publication
from ml_platform.spec.publishing import example_types, feature_types, prediction_types
from ml_platform.spec.queries import quote
from ml_platform.spec.tables import code_version
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Table
from ml_platform_dagster.assets.automation import follows
from ml_platform_dagster.assets.metadata import (
    asset_key,
    column_lineage,
    common,
    described,
    lineage_of,
)
from ml_platform_dagster.assets.partition_events import (
    CheckOutcome,
    checked,
    left_out,
    materialized,
)
from ml_platform_dagster.assets.partitions import (
    backfill_policy,
    looking_back,
    partitions_of,
    range_of,
)
from ml_platform_dagster.assets.pools import database_pool
from ml_platform_dagster.resources import LakeResource

COMPLETE = "rows_out_are_rows_in"


def build_publishing(use_case: UseCase, settings: Settings) -> list[dg.AssetsDefinition]:
    """One asset for each table of others that is published to."""
    return [_build(use_case, name, settings) for name in use_case.publish]


def _build(use_case: UseCase, name: str, settings: Settings) -> dg.AssetsDefinition:
    declared, table = use_case.publish[name], record_table(use_case, name)
    key, source = asset_key(use_case, table.name), use_case.examples.source
    same_window = looking_back(use_case, Duration(0, "d"))
    read = [declared.reads, *([source] if declared.reads_example else [])]

    @dg.asset(
        key=key,
        deps=[
            dg.AssetDep(asset_key(use_case, each), partition_mapping=same_window) for each in read
        ],
        partitions_def=partitions_of(use_case),
        backfill_policy=backfill_policy(settings),
        automation_condition=follows(use_case, table.name, *_sources(use_case, declared)),
        code_version=code_version(use_case, table.name),
        description=described(_text(declared), _query(declared)),
        metadata=_metadata(use_case, declared, settings),
        check_specs=[
            dg.AssetCheckSpec(
                COMPLETE,
                asset=key,
                description="The table holds every row to publish.",
            )
        ],
        output_required=False,
        pool=database_pool(declared.database),
        **common(use_case, _kind(settings, declared)),
    )
    def published(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Any]:
        window_range = range_of(context, use_case)
        run_id, asked = context.run.run_id, described_by(context.run.tags)
        try:
            with computing(lake.lake, use_case, table.name, window_range, run_id, asked) as commit:
                report = publish_range(lake.lake, use_case, name, window_range, commit)
        except NOTHING_TO_COMPUTE as error:
            yield from left_out(context, error, COMPLETE)
            return
        yield from materialized(context, *_events(use_case, table, report))
        verdicts = {
            use_case.calendar.key(window): _verdict(counted)
            for window, counted in report.windows.items()
        }
        yield from checked(context, COMPLETE, verdicts)

    return published


def _sources(use_case: UseCase, declared: Publication) -> tuple[str, ...]:
    """What has to have landed for a partition before it can be published by itself."""
    if declared.features:
        return use_case.features[declared.features].reads
    return (use_case.examples.source,)


def _events(
    use_case: UseCase, table: Table, report: PublishReport
) -> tuple[dict[str, dict[str, Any]], dict[str, str], dict[str, str]]:
    """What `materialized` is given: metadata by partition, nothing skipped, versions."""
    keys = {window: use_case.calendar.key(window) for window in report.windows}
    rows = {
        key: {
            "dagster/partition_row_count": report.windows[window].rows_out,
            "published to": report.target,
            "noted in": table.sql,
            "snapshot": report.written.snapshot,
        }
        for window, key in keys.items()
    }
    return rows, {}, {key: report.written.versions[window] for window, key in keys.items()}


def _verdict(counted: Counted) -> CheckOutcome:
    return CheckOutcome(
        passed=counted.is_complete,
        description=f"{counted.rows_in} rows to publish, {counted.rows_out} rows in the table",
        metadata={"rows in": counted.rows_in, "rows out": counted.rows_out},
    )


def _text(declared: Publication) -> str:
    what = f"Features of `{declared.features}`" if declared.features else "Predictions"
    done = {
        "replace": "A partition replaces what the table holds of its event times",
        "upsert": f"Rows are updated by {', '.join(declared.keyed_by)}, the latest event time wins",
        "append": "Rows are added, those of a partition once for each snapshot it was scored at",
    }[declared.mode]
    return (
        f"{what} in `{declared.table}`, for others to read. {done}; each partition is one "
        "transaction there."
    )


def _query(declared: Publication) -> str:
    return f"SELECT {', '.join(declared.items)}\nFROM {quote(declared.reads)}"


def _metadata(use_case: UseCase, declared: Publication, settings: Settings) -> dict[str, Any]:
    columns = [
        dg.TableColumn(name, kind, tags={"key": ""} if name in declared.keyed_by else None)
        for name, kind in declared.types.items()
    ]
    return {
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "dagster/table_name": declared.table,
        **column_lineage(use_case, _lineage(use_case, declared, settings)),
    }


def _lineage(
    use_case: UseCase, declared: Publication, settings: Settings
) -> dict[str, tuple[tuple[str, str], ...]]:
    source, predicted = use_case.examples.source, prediction_types(use_case)
    columns = {**predicted, **example_types(use_case)}
    if declared.features:
        predicted = columns = feature_types(use_case, declared.features)
    known = Lineage({declared.reads: columns})
    computed = lineage_of(use_case, settings).of(
        f"SELECT {', '.join(use_case.examples.columns) or '1'} FROM {source}"
    )

    def origins(column: str) -> tuple[tuple[str, str], ...]:
        if column in predicted:
            return ((declared.reads, column),)
        return computed.get(column, ((source, column),))

    return {
        name: tuple(origin for _, column in pairs for origin in origins(column))
        for name, pairs in known.of(_query(declared)).items()
    }


def _kind(settings: Settings, declared: Publication) -> str:
    secret = settings.databases.get(declared.database)
    return secret.get_secret_value().partition(":")[0] if secret else "sql"

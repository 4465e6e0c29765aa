"""Source tables: what has landed, ingested under a contract."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from ml_platform.backfill import computing
from ml_platform.orchestrator.parameters import asked_in, described_by
from ml_platform.settings import Settings
from ml_platform.sources import IngestReport, ingest, source_table
from ml_platform.sources.locations import located
from ml_platform.spec.tables import code_version
from ml_platform.spec.use_case import UseCase
from ml_platform_dagster.assets.metadata import asset_key, common, described, table_metadata
from ml_platform_dagster.assets.partition_events import (
    WHOLE_RUN,
    CheckOutcome,
    checked,
    materialized,
)
from ml_platform_dagster.assets.partitions import backfill_policy, partitions_of, range_of
from ml_platform_dagster.assets.pools import database_pool
from ml_platform_dagster.resources import LakeResource

COMPLETE = "landed_is_ingested_or_quarantined"
READABLE = "landing_files_are_readable"


def build_sources(use_case: UseCase, settings: Settings) -> list[dg.AssetsDefinition]:
    """One asset for each source of a use case."""
    return [_build(use_case, name, settings) for name in use_case.sources]


def _build(use_case: UseCase, name: str, settings: Settings) -> dg.AssetsDefinition:
    source = use_case.sources[name]
    key = asset_key(use_case, name)
    text = (
        source.description
        or f"Records of {name} as they landed, one row for each `{', '.join(source.key)}`."
    )
    known = f"Known from `{source.known_at_sql}`. Rows that break the contract are in `quarantine`."

    @dg.asset(
        key=key,
        partitions_def=partitions_of(use_case),
        backfill_policy=backfill_policy(settings),
        code_version=code_version(use_case, name),
        description=described(f"{text}\n\nLands as `{source.lands_as}`. {known}"),
        metadata=table_metadata(source_table(use_case, name)),
        check_specs=[
            dg.AssetCheckSpec(
                COMPLETE, asset=key, blocking=True, description="No landed row is lost."
            ),
            dg.AssetCheckSpec(READABLE, asset=key, description="Every landing file could be read."),
        ],
        output_required=False,
        pool=database_pool(source.rows_from),
        **common(use_case, "ducklake", source.file_format),
    )
    def source_asset(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Any]:
        window_range = range_of(context, use_case)
        run_id, asked = context.run.run_id, described_by(context.run.tags)
        # What a sensor asks for can wait for files that are being written; a person cannot.
        now = datetime.now(UTC) if "dagster/sensor_name" in context.run.tags else None
        # Where a caller named another folder, the files in it are added to what the source holds.
        locations = asked_in(context.run.tags).get("locations", {})
        at = {name: locations[name]} if name in locations else {}
        case = located(use_case, at, lake.lake.settings)
        with computing(lake.lake, use_case, name, window_range, run_id, asked) as commit:
            report = ingest(lake.lake, case, name, window_range, commit, now=now)
        keys = {use_case.calendar.key(window): counts for window, counts in report.windows.items()}
        rows = {
            k: {
                "dagster/partition_row_count": c.ingested,
                "landed": c.landed,
                "quarantined": c.quarantined,
                "snapshot": report.snapshot,
            }
            for k, c in keys.items()
            if c.landed or c.ingested or c.changed
        }
        versions = {
            use_case.calendar.key(window): version for window, version in report.versions.items()
        }
        skipped = {k: "nothing has landed for it" for k in keys if k not in rows}
        yield from materialized(context, rows, skipped, versions)
        yield from checked(context, COMPLETE, {WHOLE_RUN: _completeness(report)})
        yield from checked(context, READABLE, {WHOLE_RUN: _readability(report)})

    return source_asset


def _completeness(report: IngestReport) -> CheckOutcome:
    landed = sum(c.landed for c in report.windows.values())
    ingested = sum(c.ingested for c in report.windows.values())
    quarantined = sum(c.quarantined for c in report.windows.values())
    lost = {w for w, c in report.windows.items() if c.landed != c.ingested + c.quarantined}
    said = f"{landed} landed = {ingested} ingested + {quarantined} quarantined"
    return CheckOutcome(
        passed=not lost,
        description=said if not lost else f"{said} does not hold in {len(lost)} partitions",
        metadata={"landed": landed, "ingested": ingested, "quarantined": quarantined},
    )


def _readability(report: IngestReport) -> CheckOutcome:
    refused = [str(error) for error in report.refused]
    return CheckOutcome(
        passed=not refused,
        description=f"{report.files} files read" if not refused else "\n".join(refused),
        metadata={
            "files read": report.files,
            "files refused": len(refused),
            **(
                {"columns ignored": ", ".join(report.ignored_columns)}
                if report.ignored_columns
                else {}
            ),
        },
    )

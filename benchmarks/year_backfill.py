"""The year by a Dagster backfill, against the same functions called one after another."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from benchmarks.result import Bench, Clock, Line, Result
from benchmarks.year import COMMIT, Year, prepared
from ml_platform.errors import EmptyPartition
from ml_platform.features import check_leak, compute_features
from ml_platform.monitoring import render_drift_html, report_drift, report_performance
from ml_platform.scoring import score
from ml_platform.spec.use_case import feature_table
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake

REPETITIONS = 2
LIMIT = 1.3
CHECKED = "checks and page"
"""What assets do beside their table: leak checks, and Evidently's page of the newest failure."""
MONITORING = ("predictions", "drift_report", "performance_report")


def run(bench: Bench) -> Result:
    """Backfill features, predictions, drift and performance, by Dagster and directly."""
    year = prepared(bench)
    tables = [*(feature_table(view) for view in year.use_case.features), *MONITORING]
    dagster, direct = Clock(), Clock()
    for repetition in range(REPETITIONS):
        ours = year.copy(bench.folder / f"dagster_{repetition}")
        other = year.copy(bench.folder / f"direct_{repetition}")
        turns: list[Callable[[], None]] = [
            lambda ours=ours: _by_dagster(ours, tables, dagster),  # type: ignore[misc]
            lambda other=other: _directly(other, tables, direct),  # type: ignore[misc]
        ]
        # The one that goes second finds files cached and modules imported, so they swap places.
        for turn in turns if repetition % 2 else reversed(turns):
            turn()
    return _result(year, tables, dagster, direct)


def _by_dagster(year: Year, tables: list[str], clock: Clock) -> None:
    root = year.settings.root
    # The resources of the definitions read their settings where a run starts.
    os.environ["ML_PLATFORM_DATA"] = str(root)
    os.environ["ML_PLATFORM_MLFLOW_TRACKING_URI"] = year.settings.tracking_uri
    _forget(year, tables)
    from definitions import defs

    home = root / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n", encoding="utf-8")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        job = defs.resolve_implicit_global_asset_job_def()

        def backfill(stretch: Window) -> dg.ExecuteInProcessResult:
            keys = [year.use_case.calendar.key(w) for w in year.use_case.calendar.windows(stretch)]
            return job.execute_in_process(
                instance=instance,
                asset_selection=[dg.AssetKey([year.use_case.name, table]) for table in tables],
                tags={
                    "dagster/asset_partition_range_start": keys[0],
                    "dagster/asset_partition_range_end": keys[-1],
                },
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )

        backfill(_first_day(year))
        result = clock.time("all", lambda: backfill(year.stretch))
    for event in result.all_events:
        if event.is_step_success:
            table = str(event.step_key).rpartition("__")[2]
            clock.seconds.setdefault(table, []).append(
                event.step_success_data.duration_ms / 1000
            )


def _directly(year: Year, tables: list[str], clock: Clock) -> None:
    _forget(year, tables)
    registry = year.registry
    with year.opened() as lake:
        for stretch, timed in ((_first_day(year), Clock()), (year.stretch, clock)):
            actions = _functions(year, lake, stretch)
            for table, action in actions.items():
                timed.time(table, action)
            timed.time(CHECKED, lambda stretch=stretch: _check(year, lake, stretch))  # type: ignore[misc]
    clock.seconds.setdefault("all", []).append(sum(clock.seconds[table][-1] for table in actions))


def _functions(year: Year, lake: Lake, stretch: Window) -> dict[str, Callable[[], object]]:
    case, registry = year.use_case, year.registry
    views: dict[str, Callable[[], object]] = {
        feature_table(view): lambda view=view: compute_features(lake, case, view, stretch, COMMIT)  # type: ignore[misc]
        for view in case.features
    }
    return {
        **views,
        "predictions": lambda: score(lake, registry, case, stretch, COMMIT),
        "drift_report": lambda: report_drift(lake, registry, case, stretch, COMMIT),
        "performance_report": lambda: report_performance(
            lake, case, stretch, COMMIT, now=datetime.now(UTC)
        ),
    }

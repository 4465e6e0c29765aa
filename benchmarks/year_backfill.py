"""The year by a Dagster backfill, against the same functions called one after another."""

import os
import shutil
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import dagster as dg

from benchmarks.result import Bench, Clock, Line, Result
from benchmarks.year import COMMIT, Year, prepared
from ml_platform.features import check_windows, compute_features
from ml_platform.monitoring import report_drift, report_performance
from ml_platform.scoring import score
from ml_platform.spec.use_case import feature_table
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform_dagster.resources import range_tags

REPETITIONS = 1
INSTANCE = Path("deploy/dagster.yaml")
LIMIT = 1.2
"""Of CPU time, with the leak checks on both sides."""
MONITORING = ("predictions", "drift_report", "performance_report")
CHECKS = "checks"
EVENTS_A_BATCH = "1000"
"""As `make dev` sets it."""


def run(bench: Bench) -> Result:
    """Backfill features, predictions, drift and performance, by Dagster and directly."""
    year = prepared(bench)
    dagster, direct = Clock(), Clock()
    for repetition in range(REPETITIONS):
        ours = year.copy(bench.folder / f"dagster_{repetition}")
        other = year.copy(bench.folder / f"direct_{repetition}")
        turns = [partial(_by_dagster, ours, dagster), partial(_directly, other, direct)]
        # The one that goes second finds modules imported and files cached, so they swap places.
        for turn in turns if repetition % 2 else reversed(turns):
            turn()
    return _result(year, dagster, direct)


def _tables(year: Year) -> list[str]:
    return [*(feature_table(view) for view in year.use_case.features), *MONITORING]


def _first_day(year: Year) -> Window:
    return year.use_case.calendar.window_at(year.range.start)


def _by_dagster(year: Year, clock: Clock) -> None:
    with year.opened() as lake:
        year.drop(lake, *_tables(year))
    root = year.settings.root
    # The definitions' resources read their settings when a run starts.
    os.environ["ML_PLATFORM_DATA"] = str(root)
    os.environ["ML_PLATFORM_MLFLOW_TRACKING_URI"] = year.settings.tracking_uri
    from ml_platform_dagster.definitions import defs

    home = root / "dagster"
    home.mkdir()
    shutil.copy(INSTANCE, home / "dagster.yaml")
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ["DAGSTER_EVENT_BATCH_SIZE"] = EVENTS_A_BATCH
    job = defs.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        _backfill(year, job, instance, _first_day(year))
        result = clock.time("all", lambda: _backfill(year, job, instance, year.range))
    for event in result.all_events:
        if event.is_step_success:
            table = str(event.step_key).rpartition("__")[2]
            seconds = event.step_success_data.duration_ms / 1000
            clock.seconds.setdefault(table, []).append(seconds)


def _backfill(
    year: Year, job: dg.JobDefinition, instance: dg.DagsterInstance, window_range: Window
) -> dg.ExecuteInProcessResult:
    calendar = year.use_case.calendar
    keys = [calendar.key(window) for window in calendar.windows(window_range)]
    return job.execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey([year.use_case.name, table]) for table in _tables(year)],
        tags=range_tags(keys),
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


def _directly(year: Year, clock: Clock) -> None:
    with year.opened() as lake:
        year.drop(lake, *_tables(year))
        # The first day warms up, as it does for Dagster.
        _call(year, lake, _first_day(year), Clock())
        _call(year, lake, year.range, clock)
    for measured in (clock.seconds, clock.cpu_seconds):
        total = sum(measured[table][-1] for table in _tables(year))
        measured.setdefault("all", []).append(total)


def _call(year: Year, lake: Lake, window_range: Window, clock: Clock) -> None:
    case, registry = year.use_case, year.registry
    for view in case.features:
        compute = partial(compute_features, lake, case, view, window_range, COMMIT)
        clock.time(feature_table(view), compute)
    clock.time("predictions", lambda: score(lake, registry, case, window_range, COMMIT))
    clock.time("drift_report", lambda: report_drift(lake, registry, case, window_range, COMMIT))
    clock.time(
        "performance_report",
        lambda: report_performance(lake, case, window_range, COMMIT, now=datetime.now(UTC)),
    )
    clock.time(CHECKS, partial(_check, year, lake, window_range))


def _check(year: Year, lake: Lake, window_range: Window) -> None:
    """What the assets do beside: leak checks of the windows with rows."""
    # The weather of the last day of the year is missing.
    windows = list(year.use_case.calendar.windows(window_range))[:364]
    with lake.cursor() as cursor:
        snapshot = lake.snapshot(cursor)
    for view in year.use_case.features:
        check_windows(lake, year.use_case, view, windows, snapshot)


def _result(year: Year, dagster: Clock, direct: Clock) -> Result:
    ours, other = dagster.median("all"), direct.median("all")
    with_checks = other + direct.median(CHECKS)
    cpu, other_cpu = dagster.median_cpu("all"), direct.median_cpu("all")
    steps = sum(dagster.median(table) for table in _tables(year))
    lines = [
        _line(f"{year.days} days, everything", ours, other),
        _line("the same, with the assets' checks also called directly", ours, with_checks),
        _line("everything, CPU time", cpu, other_cpu),
        _line(
            "the same, CPU time with the checks", cpu, other_cpu + direct.median_cpu(CHECKS), LIMIT
        ),
        *(_line(f"  {t}", dagster.median(t), direct.median(t)) for t in _tables(year)),
        Line("  between the steps", f"{ours - steps:.1f} s"),
    ]
    notes = (
        f"Features, predictions, drift and performance of {year.days} partitions: one range run in "
        "this process on a Dagster instance of its own (SQLite), from the request to its end.",
        "The instance is configured as `make dev` configures it. CPU time is that of all threads: "
        "it says more than the clock where other programs share the cores.",
        "Beside their tables the assets check views for leaks; called directly these checks take "
        f"{direct.median(CHECKS):.1f} s.",
    )
    return Result("A year's backfill by Dagster, against direct calls", tuple(lines), notes)


def _line(what: str, ours: float, other: float, limit: float | None = None) -> Line:
    return Line(what, f"{ours:.2f} s", f"{other:.2f} s", ours / other, limit)

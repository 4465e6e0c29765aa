"""Drift scores of many partitions, against Evidently's reports one by one."""

import warnings
from collections.abc import Mapping
from functools import partial

import evidently.presets  # noqa: F401 - eight seconds that are not those of a report
import pandas as pd

from benchmarks.result import Bench, Clock, Line, Result
from benchmarks.year import Year, prepared
from ml_platform.monitoring.columns import MonitoredColumn, current_frame, monitored_columns
from ml_platform.monitoring.drift import WindowDrift, judge_windows
from ml_platform.monitoring.readings import read_columns
from ml_platform.monitoring.scores import trail
from ml_platform.registry import ModelVersion
from ml_platform.scoring import score
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake

PARTITIONS = 300
SAMPLED = 6
REPETITIONS = 3
LIMIT = 20.0
TOLERANCE = 1e-9


def run(bench: Bench) -> Result:
    """Score partitions, have Evidently report on some of them, and hold both side by side."""
    year = prepared(bench).copy(bench.folder / "lake")
    model = year.registry.load(year.use_case, year.version)
    windows = list(year.use_case.calendar.windows(year.range))[-PARTITIONS:]
    sample = [windows[(len(windows) - 1) * i // (SAMPLED - 1)] for i in range(SAMPLED)]
    clock, difference = Clock(), 0.0
    with year.opened() as lake:
        score(lake, year.registry, year.use_case, year.range, Commit("benchmark", "benchmark"))
        judge = partial(_judge, year, lake, model, windows)
        judge()
        for repetition, window in enumerate(sample):
            columns, current = _compared(year, lake, model, window)
            report = partial(_report, year, columns, current, model.reference)
            theirs = clock.time("evidently", report)
            if repetition < REPETITIONS:
                found = clock.time("platform", judge)
            difference = max(difference, _difference(found[window], theirs))
    return _result(len(windows), len(found[sample[0]].columns), clock, difference)


def _judge(
    year: Year, lake: Lake, model: ModelVersion, windows: list[Window]
) -> dict[Window, WindowDrift]:
    with lake.cursor(year.use_case.timezone) as cursor:
        champions = dict.fromkeys(windows, model.version)
        snapshot = lake.snapshot(cursor)
        models = {model.version: model}
        return judge_windows(cursor, lake, year.use_case, champions, models, snapshot)


def _compared(
    year: Year, lake: Lake, model: ModelVersion, window: Window
) -> tuple[list[MonitoredColumn], pd.DataFrame]:
    """The columns and rows of a window as Evidently is given them; reading is not timed."""
    rows = trail(year.use_case, window, model.version)
    with lake.cursor(year.use_case.timezone) as cursor:
        window_range = Window(rows.since, rows.until)
        readings = read_columns(cursor, lake, year.use_case, window_range, lake.snapshot(cursor))
    current = current_frame(readings, rows.since, rows.until)
    columns = [
        column
        for column in monitored_columns(year.use_case)
        if current[column.name].notna().any() and model.reference[column.name].notna().any()
    ]
    return columns, current[[column.name for column in columns]]


def _report(
    year: Year, columns: list[MonitoredColumn], current: pd.DataFrame, sample: pd.DataFrame
) -> dict[str, float]:
    """Evidently's scores by column."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    drift = year.use_case.monitoring.drift
    reference = pd.DataFrame({c.name: c.values(sample[c.name]) for c in columns})
    definition = DataDefinition(
        numerical_columns=[c.name for c in columns if c.numeric],
        categorical_columns=[c.name for c in columns if not c.numeric],
    )
    preset = DataDriftPreset(
        num_method=drift.method, cat_method="psi" if drift.method == "psi" else "jensenshannon"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = Report([preset]).run(
            Dataset.from_pandas(current, data_definition=definition),
            Dataset.from_pandas(reference, data_definition=definition),
        )
        metrics = report.dict()["metrics"]
    return {
        metric["config"]["column"]: float(metric["value"])
        for metric in metrics
        if "column" in metric["config"]
    }


def _difference(ours: WindowDrift, theirs: Mapping[str, float]) -> float:
    """Largest difference of a score; infinite where one of the two did not score a column."""
    scores = {c.column: c.score for c in ours.columns if c.score is not None}
    if scores.keys() != theirs.keys():
        return float("inf")
    return max(abs(scores[name] - theirs[name]) for name in scores)


def _result(windows: int, columns: int, clock: Clock, difference: float) -> Result:
    ours, each = clock.median("platform"), clock.median("evidently")
    other = windows * each
    lines = (
        Line(
            f"{windows} partitions of {columns} columns, times faster",
            f"{ours:.2f} s",
            f"{other:.0f} s",
            other / ours,
            LIMIT,
            at_least=True,
        ),
        Line(
            "largest difference of a score, against what is allowed",
            f"{difference:.1e}",
            f"{TOLERANCE:.0e}",
            difference / TOLERANCE,
            limit=1.0,
        ),
    )
    notes = (
        f"Evidently's time is that of {SAMPLED} reports ({each:.2f} s each), scaled to "
        f"{windows}. Reading the rows is counted for the platform and not for Evidently.",
    )
    return Result("Drift scores, against Evidently's reports", lines, notes)

"""Batch scoring from end to end, against the estimator alone on a frame that is there already."""

from functools import partial

import pandas as pd

from benchmarks.result import Bench, Clock, Line, Result
from benchmarks.year import COMMIT, Year, prepared
from ml_platform.features import assemble
from ml_platform.registry import ModelVersion, predict
from ml_platform.scoring import score
from ml_platform.scoring.batch import split_by_window
from ml_platform.storage import Lake

REPETITIONS = 3
LIMIT = 0.8


def run(bench: Bench) -> Result:
    """Score the year; rows a second of each part, and of the estimator alone."""
    year = prepared(bench).copy(bench.folder / "lake")
    model = year.registry.load(year.use_case, year.version)
    clock = Clock()
    with year.opened() as lake:
        for repetition in range(REPETITIONS + 1):
            # The first turn warms up and is forgotten.
            rows = _turn(year, lake, model, Clock() if repetition == 0 else clock)
    return _result(year, rows, clock)


def _turn(year: Year, lake: Lake, model: ModelVersion, clock: Clock) -> int:
    """Everything once; returns how many rows were scored."""
    year.drop(lake, "predictions")
    registry = year.registry
    registry.load(year.use_case, year.version)
    clock.time("score", lambda: score(lake, registry, year.use_case, year.stretch, COMMIT))
    with lake.cursor(year.use_case.timezone) as cursor:
        snapshot = lake.snapshot(cursor)
        join = partial(assemble, cursor, lake, year.use_case, year.stretch, snapshot)
        frame = clock.time("join", join)
    inputs = frame[list(model.columns)]
    windows = list(year.use_case.calendar.windows(year.stretch))
    days = [rows for _, rows in split_by_window(frame, windows) if len(rows)]
    cut = [inputs.loc[day.index] for day in days]
    clock.time("predict", lambda: [predict(year.use_case, model, day) for day in days])
    clock.time("bare", lambda: model.estimator.predict_proba(inputs))
    clock.time("bare by day", partial(_predict_days, model, cut))
    return len(frame)


def _predict_days(model: ModelVersion, days: list[pd.DataFrame]) -> None:
    for day in days:
        model.estimator.predict_proba(day)


def _result(year: Year, rows: int, clock: Clock) -> Result:
    total, bare, by_day = (clock.median(name) for name in ("score", "bare", "bare by day"))
    join, predicted = clock.median("join"), clock.median("predict")
    write = max(total - join - predicted, 0.0)
    lines = (
        _speed("end to end, against predict_proba of all rows at once", rows, total, bare, LIMIT),
        _speed("end to end, against predict_proba day by day", rows, total, by_day),
        _speed("the platform's predict, against predict_proba day by day", rows, predicted, by_day),
        Line("  join", f"{join:.2f} s", ratio=join / total),
        Line("  predict, day by day", f"{predicted:.2f} s", ratio=predicted / total),
        Line("  write and the rest", f"{write:.2f} s", ratio=write / total),
    )
    notes = (
        f"{rows:,} rows of {year.days} days, joined, predicted and written in one transaction; the "
        "ratios of the parts are their share of the whole.",
        "A window is predicted by itself, so that one that is predicted again alone gets the same "
        "bits; that is what day by day costs.",
    )
    return Result("Batch scoring, against the estimator alone", lines, notes)


def _speed(what: str, rows: int, ours: float, other: float, limit: float | None = None) -> Line:
    speeds = f"{rows / ours:,.0f} rows/s", f"{rows / other:,.0f} rows/s"
    return Line(what, *speeds, ratio=other / ours, limit=limit, at_least=True)

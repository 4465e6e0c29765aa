"""Batch scoring, against the estimator alone on the same assembled frame."""

from functools import partial

import pandas as pd

from benchmarks.result import Bench, Clock, Line, Result
from benchmarks.year import COMMIT, Year, prepared
from ml_platform.features import assemble, split_by_window
from ml_platform.registry import ModelVersion
from ml_platform.scoring import score
from ml_platform.scoring.batch import stamped
from ml_platform.storage import Lake

REPETITIONS = 3
LIMIT = 0.8


def run(bench: Bench) -> Result:
    """Score the year, given its frame and from end to end, beside the estimator alone."""
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
    clock.time("score", lambda: score(lake, registry, year.use_case, year.range, COMMIT))
    with lake.cursor(year.use_case.timezone) as cursor:
        snapshot = lake.snapshot(cursor)
        join = partial(assemble, cursor, lake, year.use_case, year.range, snapshot)
        frame = clock.time("join", join)
    inputs = frame[list(model.columns)]
    windows = list(year.use_case.calendar.windows(year.range))
    champions = dict.fromkeys(windows, year.version)
    cut = [inputs.loc[day.index] for _, day in split_by_window(frame, windows) if len(day)]
    clock.time("bare", lambda: model.estimator.predict_proba(inputs))
    clock.time("stamped", partial(stamped, registry, year.use_case, frame, champions, snapshot))
    clock.time("bare by day", partial(_predict_days, model, cut))
    return len(frame)


def _predict_days(model: ModelVersion, days: list[pd.DataFrame]) -> None:
    for day in days:
        model.estimator.predict_proba(day)


def _result(year: Year, rows: int, clock: Clock) -> Result:
    total, bare, by_day = (clock.median(name) for name in ("score", "bare", "bare by day"))
    join, given = clock.median("join"), clock.median("stamped")
    write = max(total - join - given, 0.0)
    cpu = {name: clock.median_cpu(name) for name in clock.cpu_seconds}
    lines = (
        _speed("given the frame, against predict_proba on it", rows, given, bare, LIMIT),
        _speed("  the same by CPU time", rows, cpu["stamped"], cpu["bare"], LIMIT),
        _speed("given the frame, against predict_proba day by day", rows, given, by_day),
        _speed("  the same by CPU time", rows, cpu["stamped"], cpu["bare by day"]),
        _speed("end to end, against predict_proba on the frame", rows, total, bare),
        _speed("  the same by CPU time", rows, cpu["score"], cpu["bare"]),
        Line("  join", f"{join:.2f} s", ratio=join / total),
        Line("  predict and stamp", f"{given:.2f} s", ratio=given / total),
        Line("  write and the rest", f"{write:.2f} s", ratio=write / total),
    )
    notes = (
        f"{rows:,} rows of {year.days} days. Given the frame: each day predicted by its champion "
        "and stamped with version, snapshot and time. End to end: joined from the lake, predicted "
        "and written to it in one transaction; the ratios of the parts are their share of it. It "
        "has no limit, since reading and joining alone take longer than predict_proba does.",
        "By CPU time, of all threads, other programs that share the cores count least.",
        "Days share a call of predict_proba only where the estimator is known to predict a row to "
        "the same bits whatever rows come along, as this one is; others are predicted day by day.",
    )
    return Result("Batch scoring, against the estimator alone", lines, notes)


def _speed(what: str, rows: int, ours: float, other: float, limit: float | None = None) -> Line:
    speeds = f"{rows / ours:,.0f} rows/s", f"{rows / other:,.0f} rows/s"
    return Line(what, *speeds, ratio=other / ours, limit=limit, at_least=True)

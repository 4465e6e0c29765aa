"""What the leak check costs against computing the tables, and which planted leaks it finds."""

from collections.abc import Iterable
from functools import partial

from benchmarks.result import Bench, Clock, Line, Result
from benchmarks.year import COMMIT, Year, prepared
from ml_platform.features import check_written, compute_features, compute_labels
from ml_platform.settings import Settings
from ml_platform.spec.use_case import feature_table
from ml_platform.storage import Lake
from tests.planted import CLEAN, LEAKS, MONTH, Query, World, day

LIMIT = 0.28
"""Of the CPU time that computing the year's feature tables takes: what the check cost before."""
COMPUTE, CHECK = "compute", "check"
DAYS, DAYS_CLEAN = 30, 5
"""Daily runs after which a leak that none has shown counts as never found; runs of clean views."""


def run(bench: Bench) -> Result:
    """Compute and check each view of the year; then plant leaks in views of a generated month."""
    year = prepared(bench)
    clock, moments = Clock(), dict[str, int]()
    ours = year.copy(bench.folder / "checked")
    with ours.opened() as lake:
        for view in ours.use_case.features:
            moments[view] = _measure(ours, lake, clock, view)
        moments["labels"] = _measure(ours, lake, clock, None)
    lake = Lake(Settings(data=bench.folder / "planted"))
    try:
        world = World(bench.folder / "planted" / "use_cases" / "planted", lake)
        leaks = {kind: _tries(world, query, DAYS) for kind, query in LEAKS.items()}
        alarms = {kind: _tries(world, query, DAYS_CLEAN) for kind, query in CLEAN.items()}
    finally:
        lake.close()
    return _result(year, clock, moments, leaks, alarms)


def _measure(year: Year, lake: Lake, clock: Clock, view: str | None) -> int:
    """Compute a view of the year, or the labels, and check it; how many moments were tried."""
    case = year.use_case
    table = "labels" if view is None else feature_table(view)
    year.drop(lake, table)
    compute = (
        partial(compute_labels, lake, case, year.range, COMMIT)
        if view is None
        else partial(compute_features, lake, case, view, year.range, COMMIT)
    )
    written = clock.time(f"{COMPUTE} {view}", compute)
    reports = clock.time(f"{CHECK} {view}", lambda: check_written(lake, case, view, written))
    for report in reports:
        report.raise_if_found()
    return sum(len(report.cuts) for report in reports)


def _tries(world: World, query: Query, days: int) -> tuple[bool, int | None]:
    """Whether a month in one run shows a leak, and after how many daily runs one does."""
    at_once = any(report.problem for report in world.check(query, MONTH))
    daily = (n for n in range(days) if any(r.problem for r in world.check(query, day(n))))
    first = next(daily, None)
    return at_once, None if first is None else first + 1


def _result(
    year: Year,
    clock: Clock,
    moments: dict[str, int],
    leaks: dict[str, tuple[bool, int | None]],
    alarms: dict[str, tuple[bool, int | None]],
) -> Result:
    views = list(year.use_case.features)
    lines = [
        _line(f"{year.days} days, all views", clock, views, sum(moments[v] for v in views), LIMIT),
        *(_line(f"  {view}", clock, [view], moments[view]) for view in views),
        _line("labels", clock, [None], moments["labels"]),
        Line("planted leaks found in a month, one run", _share(at for at, _ in leaks.values())),
        Line("found within 30 daily runs", _share(n is not None for _, n in leaks.values())),
        Line(
            "clean views with a false alarm, either way",
            _share(at or n is not None for at, n in alarms.values()),
        ),
    ]
    heading = ("planted leak", "a month in one run", "found by daily run")
    rows = [
        (kind, "found" if at else "missed", "never" if n is None else str(n))
        for kind, (at, n) in leaks.items()
    ]
    notes = (
        "CPU time of all threads; a check is what a feature asset does after it has written.",
        f"Daily runs are at most {DAYS} with a leak, {DAYS_CLEAN} without.",
        "Planted leaks and clean views are those of `tests/planted.py`, over generated rides of 38 "
        "days in which clocks change. Daily runs compute one partition each. A row that reads over "
        "midnight alone reads nothing there, and its partition holds no leak.",
    )
    return Result("The leak check", tuple(lines), notes, (heading, *rows))


def _line(
    what: str, clock: Clock, views: Iterable[str | None], tried: int, limit: float | None = None
) -> Line:
    checked = sum(clock.median_cpu(f"{CHECK} {view}") for view in views)
    computed = sum(clock.median_cpu(f"{COMPUTE} {view}") for view in views)
    what = f"{what}, {tried} moments"
    return Line(what, f"{checked:.2f} s", f"{computed:.2f} s", checked / computed, limit)


def _share(found: Iterable[bool]) -> str:
    every = list(found)
    return f"{sum(every)} of {len(every)}"

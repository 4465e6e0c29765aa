"""The walk through the year: land, ingest, features, then month by month as if live."""

from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path

from rich.console import Console

from demo.ranges import flown_range, recorded_range
from demo.runs import Runs
from demo.source_system import land_flights
from demo.stages import Begin, Done, stages
from demo.summary import Summary, summarize
from ml_platform.replay import scheduled_cutoffs
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import LOGGED_SOURCES, ONLINE_FEATURES, UseCase, feature_table
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake

FIRST_MODEL_AFTER = timedelta(days=58)
"""A model before the end of February would have seen too little."""


def walk(console: Console, folder: Path) -> Summary:
    """Walk through the year of one use case; what is there already is left as it is."""
    settings = Settings()
    use_case = load_use_case(folder)
    recorded, year = recorded_range(use_case), flown_range(use_case)
    with stages(console) as begin, Runs(use_case, settings.root / "dagster") as runs:
        _land(begin, settings, use_case, recorded)
        # What the service writes is ingested once there is a service.
        landed = [source for source in use_case.sources if source not in LOGGED_SOURCES]
        _tables(begin, runs, "ingest", landed, recorded)
        views = [feature_table(view) for view in use_case.features]
        _tables(begin, runs, "features and labels", [*views, "labels"], recorded)
        _tables(begin, runs, "features online", [ONLINE_FEATURES], recorded)
        _months(begin, runs, use_case, year, recorded)
    lake = Lake(settings)
    try:
        return summarize(lake, use_case, year, settings.root)
    finally:
        lake.close()


def _land(begin: Begin, settings: Settings, use_case: UseCase, recorded: Window) -> None:
    done = begin("land files, day by day", len(list(use_case.calendar.windows(recorded))))
    folder = Path(settings.landing_uri) / use_case.name
    land_flights(folder, progress=lambda _: done())


def _tables(begin: Begin, runs: Runs, title: str, tables: list[str], year: Window) -> None:
    done = begin(title, len(tables))
    started = [_watched(done, runs.materialize([table], year)) for table in tables]
    for future in started:
        future.result()


def _months(begin: Begin, runs: Runs, use_case: UseCase, year: Window, recorded: Window) -> None:
    earliest = Window(year.start + FIRST_MODEL_AFTER, year.end)
    cutoffs = list(scheduled_cutoffs(use_case, earliest))
    ends = [cutoff.start for cutoff in cutoffs[1:]] + [recorded.end]
    trained = begin("train and decide, month by month", len(cutoffs))
    done = begin("predict, drift, performance", len(cutoffs))
    served = []
    for cutoff, until in zip(cutoffs, ends, strict=True):
        # Each decision waits for the one before it: that names the champion it challenges.
        decided = runs.materialize(["model", "promotions"], cutoff)
        _watched(trained, decided).result()
        tables = ["predictions", "drift_report", "performance_report"]
        month = runs.materialize(tables, Window(cutoff.start, until))
        served.append(_watched(done, month))
    for future in served:
        future.result()


def _watched(done: Done, future: "Future[None]") -> "Future[None]":
    future.add_done_callback(lambda _: done())
    return future

"""The walk through the year: land, ingest, features, then month by month as if live."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from demo.runs import Runs
from demo.source_system import land_flights
from demo.summary import Summary, summarize
from ml_platform.replay import scheduled_cutoffs
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase, feature_table
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake

FIRST_MODEL_AFTER = timedelta(days=58)
"""A model before the end of February would have seen too little."""


def walk(console: Console, folder: Path) -> Summary:
    """Walk through the year of one use case; what is there already is left as it is."""
    settings = Settings()
    use_case = load_use_case(folder)
    runs = Runs(use_case, settings.root / "dagster")
    end = use_case.partitions.closes_at
    assert end is not None
    year = Window(use_case.calendar.start, end)
    days = len(list(use_case.calendar.windows(year)))
    with _progress(console) as progress:
        _land(progress, settings, use_case, days)
        _tables(progress, runs, "ingest", list(use_case.sources), year)
        views = [feature_table(view) for view in use_case.features]
        _tables(progress, runs, "features and labels", [*views, "labels"], year)
        _months(progress, runs, use_case, year)
    lake = Lake(settings)
    try:
        return summarize(lake, use_case, year, settings.root)
    finally:
        lake.close()


def _land(progress: Progress, settings: Settings, use_case: UseCase, days: int) -> None:
    task = progress.add_task("land files, day by day", total=days)
    folder = Path(settings.landing_uri) / use_case.name
    land_flights(folder, progress=lambda _: progress.advance(task))
    progress.update(task, completed=days)


def _tables(progress: Progress, runs: Runs, title: str, tables: list[str], year: Window) -> None:
    task = progress.add_task(title, total=len(tables))
    for table in tables:
        with _step(progress, task, f"{title}: {table}"):
            runs.materialize([table], year)
    progress.update(task, description=title)


def _months(progress: Progress, runs: Runs, use_case: UseCase, year: Window) -> None:
    earliest = Window(year.start + FIRST_MODEL_AFTER, year.end)
    cutoffs = list(scheduled_cutoffs(use_case, earliest))
    task = progress.add_task("months, as if live", total=len(cutoffs))
    ends = [cutoff.start for cutoff in cutoffs[1:]] + [year.end]
    for cutoff, until in zip(cutoffs, ends, strict=True):
        month = f"{cutoff.start:%B}"
        with _step(progress, task, f"{month}: train, decide, predict, drift, performance"):
            runs.materialize(["model", "promotions"], cutoff)
            served = Window(cutoff.start, until)
            runs.materialize(["predictions", "drift_report", "performance_report"], served)
    progress.update(task, description="months, as if live")


@contextmanager
def _step(progress: Progress, task: TaskID, description: str) -> Iterator[None]:
    progress.update(task, description=description)
    yield
    progress.advance(task)


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}", style="bold"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )

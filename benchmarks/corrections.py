"""What row versions cost: nothing where nobody corrects, and in proportion to what is corrected."""

import csv
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import patch

from benchmarks.result import Bench, Clock, Line, Result
from benchmarks.year import COMMIT, Year, prepared
from ml_platform.features import assemble, compute_features, compute_labels
from ml_platform.features.versions import Computed
from ml_platform.settings import Settings
from ml_platform.sources import ingest
from ml_platform.spec.use_case import LOGGED_SOURCES, UseCase, feature_table, version_table
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake, Replacement

REPETITIONS = 3
LIMIT = 1.1
PROPORTION = 1.5
"""How much more a day may cost where ten times as many are corrected."""
SOURCE, CORRECTED = "outcomes", "arrival_delay"
SHARE = 0.05
"""Of the rows of a day that a correction changes."""
FIRST_DAY = 60
DAYS = (3, 30)
SINGLE_DAYS = 32
WARM_UP_DAYS = 2


def run(bench: Bench) -> Result:
    """Compute the year with row versions and without, then correct few days and many."""
    year = prepared(bench)
    clock = Clock()
    lake_of_the_year = year.copy(bench.folder / "year")
    with lake_of_the_year.opened() as lake:
        for repetition in range(REPETITIONS + 1):
            # The first round warms up.
            timed = clock if repetition else Clock()
            with _without_versions():
                timed.time("without", lambda: _computed(lake_of_the_year, lake))
            timed.time("with", lambda: _computed(lake_of_the_year, lake))
    single = _single_days(year, bench.folder / "single")
    lines = [
        Line(
            f"{SINGLE_DAYS} days ingested one by one, nothing corrected: CPU time of a day with "
            "row versions, without",
            f"{single.median_cpu('with') * 1000:.0f} ms",
            f"{single.median_cpu('without') * 1000:.0f} ms",
            single.median_cpu("with") / single.median_cpu("without"),
            LIMIT,
        ),
        Line(
            f"sources, features, labels and join of {year.days} days, nothing corrected: "
            "with row versions, without",
            f"{clock.median_cpu('with'):.1f} s",
            f"{clock.median_cpu('without'):.1f} s",
            clock.median_cpu("with") / clock.median_cpu("without"),
            LIMIT,
        ),
    ]
    costs = {}
    for count in DAYS:
        if count > year.days:
            continue
        arrived, rewritten = (
            _corrected(year, bench.folder / f"{count}_{rewrite}", count, rewrite)
            for rewrite in (False, True)
        )
        costs[count] = arrived[0] / arrived[1]
        lines.append(
            Line(
                f"{SHARE:.0%} of the rows of {count} days corrected, {arrived[1]} partitions of "
                f"features and labels checked: {arrived[2]:,} versions kept, or the past rewritten",
                f"{arrived[0]:.1f} s",
                f"{rewritten[0]:.1f} s",
                arrived[0] / rewritten[0],
            )
        )
    if len(costs) > 1:
        few, many = (costs[count] for count in DAYS)
        lines.append(
            Line(
                f"a partition that a correction changes: of {DAYS[1]} corrected days, of {DAYS[0]}",
                f"{many * 1000:.0f} ms",
                f"{few * 1000:.0f} ms",
                many / few,
                PROPORTION,
            )
        )
    notes = (
        "CPU time of all threads. Without: the same code, as if nothing was ever corrected.",
        "A correction is what differs from the window before, which is computed once more, so that "
        "keeping both costs about twice what rewriting costs.",
    )
    return Result("Row versions", tuple(lines), notes)


@contextmanager
def _without_versions() -> Iterator[None]:
    """The platform as it would be if it kept no versions."""

    def rows_alone(
        lake: Lake, cursor: object, case: object, computed: Computed, window_range: Window, at: int
    ) -> list[Replacement]:
        return [Replacement(computed.table, computed.query(window_range, None), time="event_time")]

    def nothing(*_: object) -> None:
        return None

    replaced: dict[str, Callable[..., object]] = {
        "ml_platform.sources.ingest.versions_replacement": nothing,
        "ml_platform.features.views.replacements": rows_alone,
        "ml_platform.sources.known.KnownVersions.sql": nothing,
    }
    with ExitStack() as stack:
        for name, function in replaced.items():
            stack.enter_context(patch(name, function))
        yield


def _computed(year: Year, lake: Lake) -> None:
    """Ingest what is there already, compute features and labels again, and join them."""
    case = year.use_case
    year.drop(lake, *map(feature_table, case.features), "labels")
    for source in case.sources:
        ingest(lake, case, source, year.range, COMMIT)
    for view in case.features:
        compute_features(lake, case, view, year.range, COMMIT)
    compute_labels(lake, case, year.range, COMMIT)
    with lake.cursor(case.timezone) as cursor:
        snapshot = lake.snapshot(cursor)
        assemble(cursor, lake, case, year.range, snapshot, labels_known_by=year.range.end)


def _single_days(year: Year, folder: Path) -> Clock:
    """Ingest days into a lake of their own, with row versions and without in turn."""
    clock, case = Clock(), year.use_case
    lake = Lake(Settings(data=folder, landing=year.settings.landing_uri))
    try:
        days = list(case.calendar.windows(year.range))[: SINGLE_DAYS + WARM_UP_DAYS]
        for number, day in enumerate(days):
            timed = clock if number >= WARM_UP_DAYS else Clock()
            with _without_versions() if number % 2 else nullcontext():
                timed.time("without" if number % 2 else "with", partial(_ingested, lake, case, day))
    finally:
        lake.close()
    return clock


def _ingested(lake: Lake, case: UseCase, day: Window) -> None:
    for source in case.sources:
        if source not in LOGGED_SOURCES:
            ingest(lake, case, source, day, COMMIT)


def _corrected(year: Year, folder: Path, count: int, rewrite: bool) -> tuple[float, int, int]:
    """Seconds of CPU time to check corrected days, the partitions checked, versions kept."""
    mine, clock = year.copy(folder), Clock()
    case, calendar = mine.use_case, mine.use_case.calendar
    windows = list(calendar.windows(mine.range))
    first = min(FIRST_DAY, year.days - count)
    corrected = windows[first : first + count]
    _land(year, mine, corrected)
    window_range = Window(corrected[0].start, corrected[-1].end)
    partitions = 0
    with mine.opened() as lake:

        def see_to() -> None:
            nonlocal partitions
            ingest(lake, case, SOURCE, window_range, COMMIT, rewrite=rewrite)
            for view, declared in case.features.items():
                if SOURCE in declared.reads:
                    reach = declared.lookback.after(window_range.end, calendar.timezone)
                    seen = Window(window_range.start, min(reach, mine.range.end))
                    partitions += len(compute_features(lake, case, view, seen, COMMIT).rows)
            partitions += len(compute_labels(lake, case, window_range, COMMIT).rows)

        clock.time("corrected", see_to)
        kept = sum(
            _rows(lake, case.name, version_table(name))
            for name in (SOURCE, "labels", *map(feature_table, case.features))
        )
    return clock.median_cpu("corrected"), partitions, kept


def _land(year: Year, mine: Year, days: list[Window]) -> None:
    """Land a file for each day that corrects some of its rows."""
    # Later than the files of the year, and all at once, as one delivery.
    drawn, landed = random.Random(1), time.time()
    landing = Path(year.settings.landing_uri) / year.use_case.name / SOURCE
    other = Path(mine.settings.landing_uri) / year.use_case.name / SOURCE
    other.mkdir(parents=True)
    for day in days:
        key = year.use_case.calendar.key(day)
        with (landing / f"{key}.csv").open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or []
            rows = [row for row in reader if row[CORRECTED].lstrip("-").isdigit()]
        corrected = other / f"{key}-corrected.csv"
        with corrected.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            for row in drawn.sample(rows, int(SHARE * len(rows))):
                writer.writerow({**row, CORRECTED: str(int(row[CORRECTED]) + 7)})
        os.utime(corrected, (landed, landed))


def _rows(lake: Lake, schema: str, table: str) -> int:
    with lake.cursor() as cursor:
        if table not in lake.tables(cursor, schema):
            return 0
        row = cursor.execute(f"SELECT count(*) FROM lake.{schema}.{table}").fetchone()
    return int(row[0]) if row else 0

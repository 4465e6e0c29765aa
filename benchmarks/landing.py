"""What a tick of the landing sensor takes with many files: nothing new, or one corrected.

`python -m benchmarks landing`
"""

import os
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from time import perf_counter

from benchmarks.meters import declare
from benchmarks.result import Bench, Clock, Line, Result
from ml_platform.settings import Settings
from ml_platform.sources import Arrivals, arrivals, ingest
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake

FILES = 10_000
DAYS = 500
REPETITIONS = 7
TICK_LIMIT_SECONDS = 1.0
LATER = timedelta(days=1)
"""How far ahead ticks look, so that no file is too young."""
COMMIT = Commit("benchmark", "benchmark")
FIRST_DAY = date(2024, 1, 1)
SPEC = """\
description: Meters
partitions: {cadence: daily, start: 2024-01-01}
sources:
  readings:
    files: "*/*.csv"
    event_time: read_at
    key: [meter, read_at]
    columns: {meter: VARCHAR, read_at: TIMESTAMPTZ, value: DOUBLE}
examples: {source: readings, entity: [meter], columns: ["value"]}
label: {task: regression}
model: {metric: mae}
"""


@dataclass(frozen=True)
class Meters:
    """A use case with many small files, and a lake of its own."""

    use_case: UseCase
    settings: Settings

    def tick(self, seen: str | None) -> Arrivals:
        """One look as the sensor takes it: it opens the lake, and closes it again."""
        lake = Lake(self.settings)
        try:
            now = datetime.now(UTC) + LATER
            return arrivals(lake, self.use_case, "readings", COMMIT, now, seen)
        finally:
            lake.close()


def run(bench: Bench) -> Result:
    """Land the files, and time looks at them."""
    meters = _land(bench.folder)
    started = perf_counter()
    looks = 1
    while meters.tick(None).state is None:
        looks += 1
    first = perf_counter() - started
    lake = Lake(meters.settings)
    begins = meters.use_case.calendar.start
    started = perf_counter()
    ingest(lake, meters.use_case, "readings", Window(begins, begins + timedelta(DAYS)), COMMIT)
    ingested = perf_counter() - started
    lake.close()
    clock = Clock()
    for number in range(REPETITIONS):
        state = clock.time("cursor lost", lambda: meters.tick(None)).state
        clock.time("nothing new", partial(meters.tick, state))
        _write(bench.folder / "landing" / "meters", number, f"{number}.5")
        clock.time("one corrected", partial(meters.tick, state))
    return _result(clock, looks, first, ingested)


def _land(folder: Path) -> Meters:
    for number in range(FILES):
        _write(folder / "landing" / "meters", number, "1.5")
    settings = Settings(data=folder, landing=str(folder / "landing"))
    return Meters(declare(folder, SPEC), settings)


def _write(landing: Path, number: int, value: str) -> None:
    day = FIRST_DAY + timedelta(days=number % DAYS)
    path = landing / f"meter_{number // DAYS}" / f"{day}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"meter,read_at,value\nm{number // DAYS},{day}T12:00:00Z,{value}\n")
    os.utime(path)


def _result(clock: Clock, looks: int, first: float, ingested: float) -> Result:
    lines = [_line(name, clock.median(name)) for name in clock.seconds]
    notes = (
        f"{FILES:,} files in {FILES // DAYS} folders, a row each, {DAYS} daily partitions. "
        "A tick opens the lake, as the sensor does; the limit is a second.",
        f"The first look opens every file: {looks} ticks, {first:.1f} s together. "
        f"Ingesting all of it in one run: {ingested:.1f} s.",
    )
    return Result("Landing sensor", tuple(lines), notes)


def _line(what: str, seconds: float) -> Line:
    return Line(
        f"tick, {what}", f"{1000 * seconds:.0f} ms", "1 s", seconds / TICK_LIMIT_SECONDS, 1.0
    )

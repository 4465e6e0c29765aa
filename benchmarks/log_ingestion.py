"""What a day of a log costs whose files wait for each other, against ingesting each at once.

`python -m benchmarks log_ingestion`
"""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter

from benchmarks.meters import declare
from benchmarks.result import Bench, Line, Result
from ml_platform.settings import Settings
from ml_platform.sources import arrivals, ingest
from ml_platform.spec.logged import REFUSED
from ml_platform.spec.use_case import REFUSALS, UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake

FILES = 1_440
"""One a minute."""
ROWS_A_FILE = 100
EACH = 60
"""Every so manieth file is ingested at once too; what the others would take is interpolated."""
COMMIT = Commit("benchmark", "benchmark")
DAY = datetime(2024, 1, 2, tzinfo=UTC)
SPEC = """\
description: Meters
partitions: {cadence: daily, start: 2024-01-01}
sources:
  readings:
    files: "*.csv"
    event_time: read_at
    key: [meter]
    columns: {meter: VARCHAR, read_at: TIMESTAMPTZ, value: DOUBLE}
examples: {source: readings, entity: [meter], columns: ["value"]}
label: {task: regression}
model: {metric: mae}
serving: {log: {}}
"""


class Log:
    """A lake that the log of one day is ingested into, and what that takes."""

    def __init__(self, folder: Path, name: str, use_case: UseCase) -> None:
        self.use_case = use_case
        self.lake = Lake(Settings(data=folder / name, landing=str(folder / "landing")))
        self.read_bytes: list[int] = []
        self.seconds: list[float] = []
        self.looking = 0.0

    def look(self, now: datetime) -> bool:
        """Whether the landing sensor would have the day ingested."""
        started = perf_counter()
        found = arrivals(self.lake, self.use_case, REFUSALS, COMMIT, now)
        self.looking += perf_counter() - started
        return bool(found.windows)

    def take_in(self, landed_bytes: int) -> None:
        started = perf_counter()
        window_range = Window(DAY, DAY + timedelta(days=1))
        ingest(self.lake, self.use_case, REFUSALS, window_range, COMMIT)
        self.seconds.append(perf_counter() - started)
        self.read_bytes.append(landed_bytes)


def run(bench: Bench) -> Result:
    """Land the files of a day, one a minute, and look at them as the sensor does."""
    use_case = declare(bench.folder, SPEC)
    patient, eager = (Log(bench.folder, name, use_case) for name in ("patient", "eager"))
    landed = 0
    for number in range(FILES + 61):
        at = DAY + timedelta(minutes=number)
        if number < FILES:
            landed += _write(bench.folder / "landing" / "meters" / REFUSALS, number, at)
        if patient.look(at + timedelta(seconds=30)):
            patient.take_in(landed)
        if number < FILES and number % EACH == EACH - 1:
            eager.take_in(landed)
    for log in (patient, eager):
        log.lake.close()
    return _result(patient, eager, landed)


def _write(folder: Path, number: int, at: datetime) -> int:
    row = dict.fromkeys(REFUSED) | {"error": "RequestRefused", "answered_at": at.isoformat()}
    rows = [row | {"refusal_id": f"{number} {each}"} for each in range(ROWS_A_FILE)]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{number:05d}.jsonl"
    file.write_text("".join(f"{json.dumps(each)}\n" for each in rows))
    os.utime(file, (at.timestamp(), at.timestamp()))
    return file.stat().st_size


def _result(patient: Log, eager: Log, landed: int) -> Result:
    ours, other = len(patient.seconds), FILES
    read, read_at_once = sum(patient.read_bytes), EACH * sum(eager.read_bytes)
    took, took_at_once = sum(patient.seconds), EACH * sum(eager.seconds)
    lines = (
        Line("ingestions of the day", str(ours), str(other), ours / other, 0.1),
        Line(
            "read by them, as many times what landed",
            f"{read / landed:.1f}",
            f"{read_at_once / landed:.0f}",
            read / read_at_once,
            0.05,
        ),
        Line("time of them", f"{took:.0f} s", f"{took_at_once:.0f} s", took / took_at_once, 0.1),
    )
    notes = (
        f"{FILES:,} files, one a minute, {ROWS_A_FILE} rows each, {landed / 1e6:.0f} MB together. "
        "Files wait until they are a tenth of what the day was ingested from, or for an hour; "
        f"against every file at once, of which each {EACH}th ingestion was made and timed.",
        f"The {FILES + 61:,} looks at landing took {patient.looking:.0f} s together.",
    )
    return Result("A day of a log", lines, notes)

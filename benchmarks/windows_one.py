"""Every command on one number of windows, in a process of its own.

`python -m benchmarks.windows_one FOLDER WINDOWS RESULT`
"""

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from time import perf_counter, process_time

from benchmarks.counts import SENSORS, START, declare, land, land_hour
from ml_platform.backfill.local_run import compute
from ml_platform.registry import Promotion, Registry, record
from ml_platform.settings import Settings
from ml_platform.sources import arrivals
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.status import read_health
from ml_platform.storage import Commit, Lake
from ml_platform.training import train

COMMIT = Commit("benchmark", "benchmark")
TABLES = ("counts", "recent_features", "labels", "predictions", "drift_report",
          "performance_report")  # fmt: skip
COMMANDS = dict(zip(TABLES, ("ingest", "features", "labels", "score", "drift", "performance"),
                    strict=True))  # fmt: skip
LATER = timedelta(days=1)
HOURS_REPLACED = 5


@dataclass
class Figures:
    """What one number of windows took; seconds and CPU seconds by name."""

    windows: int
    rows: int
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    repeated: dict[str, list[float]] = field(default_factory=dict)
    """CPU seconds of what was done several times."""
    peak_bytes: int = 0
    files: dict[str, int] = field(default_factory=dict)
    """Most files of one month, by table."""
    files_on_disk: int = 0
    bytes_on_disk: int = 0

    def time(self, name: str, action: Callable[[], object]) -> None:
        started, cpu = perf_counter(), process_time()
        action()
        self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - started
        spent = process_time() - cpu
        self.cpu_seconds[name] = self.cpu_seconds.get(name, 0.0) + spent
        self.repeated.setdefault(name, []).append(spent)


def main(folder: str, windows: str, result: str) -> None:
    """Land the hours, run every command on all of them, then on single ones."""
    warnings.filterwarnings("ignore")
    found = measure(Path(folder), int(windows))
    Path(result).write_text(json.dumps(asdict(found)), encoding="utf-8")


def measure(folder: Path, hours: int) -> Figures:
    """Figures of so many hourly windows over all sensors."""
    use_case = declare(folder)
    landing = folder / "landing"
    land(landing / use_case.name, hours)
    settings = Settings(data=folder / "data", landing=str(landing))
    found = Figures(hours, hours * SENSORS)
    lake = Lake(settings)
    try:
        bench = _Windows(lake, Registry(settings), use_case, landing / use_case.name, found)
        bench.all_of_them(hours)
        for number in range(HOURS_REPLACED):
            bench.one(hours // 2 + number)
        found.files = dict(bench.files())
    finally:
        lake.close()
    found.peak_bytes = getrusage(RUSAGE_SELF).ru_maxrss * 1024
    paths = list((folder / "data").rglob("*.parquet"))
    found.files_on_disk = len(paths)
    found.bytes_on_disk = sum(path.stat().st_size for path in paths)
    return found


@dataclass(frozen=True)
class _Windows:
    lake: Lake
    registry: Registry
    use_case: UseCase
    landing: Path
    found: Figures

    def all_of_them(self, hours: int) -> None:
        end = START + timedelta(hours=hours)
        cutoff = START + timedelta(days=min(120, hours // 24 * 2 // 3))
        time, whole = self.found.time, Window(START, end)
        time("look at landing", self._look)
        for table in ("counts", "recent_features", "labels"):
            time(COMMANDS[table], partial(self._compute, table, whole))
        time("train", lambda: self._train(cutoff, end))
        for table in ("predictions", "drift_report", "performance_report"):
            time(COMMANDS[table], partial(self._compute, table, whole))
        time("status", lambda: read_health(self.lake, self.use_case, end + timedelta(hours=3)))

    def one(self, hour: int) -> None:
        """A file that corrects an hour lands, and everything of that hour is brought up to date."""
        begin = START + timedelta(hours=hour)
        window = Window(begin, begin + timedelta(hours=1))
        land_hour(self.landing, hour, seed=hour)
        self.found.time("one hour: look at landing", self._look)
        for table in TABLES:
            name = f"one hour: {COMMANDS[table]}"
            self.found.time(name, partial(self._compute, table, window))

    def files(self) -> Iterator[tuple[str, int]]:
        with self.lake.cursor() as cursor:
            for table in TABLES:
                rows = cursor.execute(
                    f"""SELECT max(files) FROM (SELECT count(DISTINCT filename) AS files
                    FROM lake.{self.use_case.name}.{table}
                    GROUP BY date_trunc('month', window_start))"""
                ).fetchone()
                yield table, int(rows[0]) if rows else 0

    def _compute(self, table: str, window_range: Window) -> None:
        compute(self.lake, self.registry, self.use_case, table, window_range, "benchmark")

    def _look(self) -> None:
        now = datetime.now(UTC) + LATER
        arrivals(self.lake, self.use_case, "counts", COMMIT, now)

    def _train(self, cutoff: datetime, end: datetime) -> None:
        trained = train(self.lake, self.registry, self.use_case, cutoff, COMMIT, tags={})
        promotion = Promotion(trained.version, cutoff, end, "benchmark", "promoted", "the first")
        record(self.lake, self.use_case, promotion, COMMIT)


if __name__ == "__main__":
    main(*sys.argv[1:])

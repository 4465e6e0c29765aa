"""A lake of many snapshots before and after upkeep: what reading and writing it costs.

`python -m benchmarks upkeep`
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.counts import SENSORS, START, declare, land
from benchmarks.result import Bench, Clock, Line, Result
from ml_platform.features import compute_features, compute_labels
from ml_platform.features.views import feature_view_table
from ml_platform.scoring import predictions_table
from ml_platform.settings import Settings
from ml_platform.sources import ingest
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.status import read_health
from ml_platform.storage import Commit, Lake, Table, replace_windows
from ml_platform.upkeep import LakeUpkeep, keep_up

COMMIT = Commit("benchmark", "benchmark")
SNAPSHOTS, FEW_SNAPSHOTS = 2_000, 200
HOURS = 1_000
NAMED = 10
"""One write of so many is a prediction, which names the snapshot that it was made from."""
REPEATED = 5
LATER = timedelta(days=3)


@dataclass(frozen=True)
class Size:
    """What a lake consists of."""

    snapshots: int
    files: int
    bytes: int
    catalog: int
    """Bytes of the catalog's pages that are in use."""


def run(bench: Bench) -> Result:
    """Write so many snapshots, measure, keep the lake up as of some days later, measure again."""
    snapshots = SNAPSHOTS if bench.days is None else FEW_SNAPSHOTS
    use_case = declare(bench.folder)
    landing = bench.folder / "landing"
    land(landing / use_case.name, HOURS)
    lake = Lake(Settings(data=bench.folder / "data", landing=str(landing), keep_snapshots="1d"))
    world = _World(lake, use_case)
    world.fill()
    for number in range(snapshots):
        world.write(number)
    before, size_before = world.measured(), world.size()
    clock = Clock()
    done: LakeUpkeep = clock.time("upkeep", world.keep_up)
    after, size_after = world.measured(), world.size()
    lake.close()
    lines = [
        *(_line(name, before, after) for name in before.cpu_seconds),
        _counted("snapshots", size_before.snapshots, size_after.snapshots),
        _counted("Parquet files on disk", size_before.files, size_after.files),
        _bytes("their size", size_before.bytes, size_after.bytes),
        _bytes("catalog, pages in use", size_before.catalog, size_after.catalog),
        Line(
            f"upkeep itself, {done.expired:,} snapshots expired",
            f"{clock.cpu_seconds['upkeep'][0]:.1f} s of CPU",
        ),
    ]
    notes = (
        f"{HOURS:,} hourly windows over {SENSORS} sensors on a SQLite catalog, {snapshots:,} "
        f"writes of one window each: features that are corrected, one of {NAMED} a prediction, "
        "whose snapshot is kept. Ours is after upkeep, other before; CPU time, medians of "
        f"{REPEATED}.",
        "Upkeep ran as of three and of six days later, with a retention of a day.",
    )
    return Result("Upkeep", tuple(lines), notes)


class _World:
    def __init__(self, lake: Lake, use_case: UseCase) -> None:
        self.lake, self.use_case = lake, use_case
        self.features = feature_view_table(use_case, "recent")
        self.predictions = predictions_table(use_case)
        self.end = START + timedelta(hours=HOURS)

    def fill(self) -> None:
        """Every window of sources, features and labels, each table in one transaction."""
        whole = Window(START, self.end)
        ingest(self.lake, self.use_case, "counts", whole, COMMIT)
        compute_features(self.lake, self.use_case, "recent", whole, COMMIT)
        compute_labels(self.lake, self.use_case, whole, COMMIT)

    def write(self, number: int) -> None:
        """Replace the features of an hour, or its predictions."""
        hour = number * 7 % (HOURS - 1)
        if number % NAMED:
            where = f"window_start = TIMESTAMP '{self._hour(hour).start:%Y-%m-%d %H:%M}'"
            query = (
                f"SELECT * EXCLUDE (window_start, _snapshot) REPLACE (last_hour + 1 AS last_hour) "
                f"FROM {self.features.sql} WHERE {where}"
            )
            self._replace(self.features, hour, query)
            return
        with self.lake.cursor() as cursor:
            snapshot = self.lake.snapshot(cursor)
        query = (
            f"SELECT s AS sensor, TIMESTAMPTZ '{self._hour(hour).start}' AS event_time, "
            f"{number}::DOUBLE AS predicted, 1 AS model_version, {snapshot} AS snapshot, "
            f"now() AS scored_at FROM range({SENSORS}) r(s)"
        )
        self._replace(self.predictions, hour, query)

    def keep_up(self) -> LakeUpkeep:
        """Upkeep twice: files that the first one merges are deleted by the second, a day later."""
        first = keep_up(self.lake, [self.use_case], COMMIT, datetime.now(UTC) + LATER)
        keep_up(self.lake, [self.use_case], COMMIT, datetime.now(UTC) + 2 * LATER)
        assert not first.problems, first.problems
        return first

    def measured(self) -> Clock:
        """What commands cost on this lake, each several times."""
        clock = Clock()
        # The first of each opens the catalog.
        self._table("recent_features")
        with self.lake.cursor() as cursor:
            row = cursor.execute(f"SELECT min(snapshot) FROM {self.predictions.sql}").fetchone()
        assert row is not None
        actions: dict[str, Callable[[], object]] = {
            "status of the use case": lambda: read_health(self.lake, self.use_case, self.end),
            "read all features": lambda: self._table("recent_features"),
            "read all features at the oldest named snapshot": lambda: self._table(
                "recent_features", row[0]
            ),
        }
        for number in range(REPEATED):
            for name, action in actions.items():
                clock.time(name, action)
            clock.time("replace one window", lambda number=number: self.write(7 * number + 1))
        return clock

    def size(self) -> Size:
        files = list(Path(self.lake.settings.lake_files_uri).rglob("*.parquet"))
        catalog = Path(self.lake.settings.catalog_uri.partition(":")[2])
        with closing(sqlite3.connect(catalog)) as connection:
            pages, free, page = (
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
            snapshots = connection.execute("SELECT count(*) FROM ducklake_snapshot").fetchone()[0]
        return Size(
            snapshots, len(files), sum(os.path.getsize(f) for f in files), (pages - free) * page
        )

    def _table(self, name: str, snapshot: int | None = None) -> None:
        with self.lake.cursor() as cursor:
            relation = self.lake.relation(cursor, self.use_case.name, name, snapshot)
            cursor.execute(f"SELECT count(*), sum(last_hour) FROM {relation}").fetchone()

    def _hour(self, hour: int) -> Window:
        begin = START + timedelta(hours=hour + 1)
        return Window(begin, begin + timedelta(hours=1))

    def _replace(self, table: Table, hour: int, query: str) -> None:
        with self.lake.cursor() as cursor:
            replace_windows(
                self.lake, cursor, table, query, time="event_time",
                calendar=self.use_case.calendar, window_range=self._hour(hour), commit=COMMIT,
            )  # fmt: skip


def _line(name: str, before: Clock, after: Clock) -> Line:
    ours, other = after.median_cpu(name), before.median_cpu(name)
    return Line(f"{name}, CPU", f"{1000 * ours:.0f} ms", f"{1000 * other:.0f} ms", ours / other)


def _counted(name: str, before: int, after: int) -> Line:
    return Line(name, f"{after:,}", f"{before:,}", after / before)


def _bytes(name: str, before: int, after: int) -> Line:
    return Line(name, f"{after / 2**20:.1f} MiB", f"{before / 2**20:.1f} MiB", after / before)

"""Predictions of one month in process, by two processes and by Spark, as its examples grow."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.result import Bench, Line, Result
from benchmarks.year import Year, prepared
from examples.spark_lake.cluster import running_cluster
from ml_platform.spec.windows import Window
from ml_platform.storage.tables import naive_utc

SIZES = (1, 4, 16, 64)
MONTH = ("2013-06-01", "2013-06-30")
TABLE = "predictions"
SAMPLED_SECONDS = 0.2
ENGINES = ("in process", "2 processes", "Spark, 2 executors")
EXECUTOR, WORKER = "CoarseGrainedExecutorBackend", "pyspark.daemon"
MIB = 1 << 20


@dataclass
class Peaks:
    """The most memory that processes of each kind took at one time, in MiB."""

    mib: dict[str, float] = field(default_factory=dict)

    def see(self, root: psutil.Process, workers: list[int]) -> None:
        now: dict[str, float] = {}
        for process in _tree(root, workers):
            try:
                line, size = " ".join(process.cmdline()), process.memory_info().rss / MIB
            except psutil.Error:
                continue
            kind = "driver"
            if EXECUTOR in line or WORKER in line:
                kind = "executors"
            elif "deploy.worker.Worker" in line:
                continue
            now[kind] = now.get(kind, 0.0) + size
        for kind, size in now.items():
            self.mib[kind] = max(size, self.mib.get(kind, 0.0))


@dataclass(frozen=True)
class Taken:
    """What one engine took for one size."""

    seconds: float
    peaks: Peaks
    rows: int

    def __str__(self) -> str:
        sizes = ", ".join(f"{kind} {mib:,.0f} MiB" for kind, mib in sorted(self.peaks.mib.items()))
        return f"{self.seconds:.0f} s ({sizes})"


def run(bench: Bench) -> Result:
    """Score a month whose examples are there 1, 4, 16 and 64 times."""
    year = prepared(bench)
    calendar = year.use_case.calendar
    window_range = Window(calendar.window(MONTH[0]).start, calendar.window(MONTH[1]).end)
    found: dict[int, dict[str, Taken]] = {}
    with _cluster(bench.folder / "cluster") as (url, workers):
        for size in SIZES:
            grown = _grown(year, size, window_range, bench.folder / f"lake_{size}")
            found[size] = {name: _timed(grown, name, url, workers) for name in ENGINES}
    return _result(found)


def _grown(year: Year, size: int, window_range: Window, folder: Path) -> Year:
    """A lake without predictions, and with `size` times the examples of a range."""
    grown = year.copy(folder)
    first, end = naive_utc(window_range.start), naive_utc(window_range.end)
    with grown.opened() as lake, lake.cursor() as cursor:
        name = f"lake.{year.use_case.name}.{year.use_case.examples.source}"
        cursor.execute(
            f"INSERT INTO {name} SELECT rows.* REPLACE (flight_id || '~' || copy AS flight_id) "
            f"FROM {name} AS rows, range(1, {size}) AS copies(copy) "
            f"WHERE window_start >= TIMESTAMP '{first}' AND window_start < TIMESTAMP '{end}'"
        )
        grown.drop(lake, TABLE)
    return grown


def _timed(year: Year, name: str, url: str, workers: list[int]) -> Taken:
    with year.opened() as lake:
        year.drop(lake, TABLE)
    case = year.use_case.name
    command = ["score", case, "--range", "...".join(MONTH)]
    if name == "2 processes":
        command = [
            "backfill", case, TABLE, "--only", "--here", "--workers", "2",
            "--from", MONTH[0], "--to", MONTH[1],
        ]  # fmt: skip
    elif name != "in process":
        command += ["--engine", "spark"]
    conf = {"spark.driver.host": "127.0.0.1", "spark.executor.memory": "2g"}
    named = {
        "ML_PLATFORM_DATA": str(year.settings.root),
        "ML_PLATFORM_MLFLOW_TRACKING_URI": year.settings.tracking_uri,
        "ML_PLATFORM_SPARK_MASTER": url,
        "ML_PLATFORM_SPARK_CONF": json.dumps(conf),
    }
    peaks, began = Peaks(), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "ml_platform.cli", *command],
        env={**os.environ, **named}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    root = psutil.Process(process.pid)
    while process.poll() is None:
        peaks.see(root, workers)
        time.sleep(SAMPLED_SECONDS)
    seconds = time.perf_counter() - began
    said = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise RuntimeError(f"{name}: {said}")
    with year.opened() as lake, lake.cursor() as cursor:
        row = cursor.execute(f"SELECT count(*) FROM lake.{case}.{TABLE}").fetchone()
    return Taken(seconds, peaks, row[0] if row else 0)


def _tree(root: psutil.Process, workers: list[int]) -> Iterator[psutil.Process]:
    try:
        yield root
        yield from root.children(recursive=True)
    except psutil.Error:
        return
    for worker in workers:
        yield from psutil.Process(worker).children(recursive=True)


@contextmanager
def _cluster(folder: Path) -> Iterator[tuple[str, list[int]]]:
    with running_cluster(folder, memory="3g") as cluster:
        yield cluster.url, list(cluster.workers)


def _result(found: dict[int, dict[str, Taken]]) -> Result:
    base, *others = ENGINES
    lines = [
        Line(
            f"{found[size][name].rows:,} rows, {name}",
            str(found[size][name]),
            str(found[size][base]),
            found[size][name].seconds / found[size][base].seconds,
        )
        for size in SIZES
        for name in others
    ]
    first, last = found[SIZES[0]], found[SIZES[-1]]
    spark = others[-1]
    lines.append(
        Line(
            f"Spark's driver, {SIZES[-1]} times the rows",
            f"{last[spark].peaks.mib['driver']:,.0f} MiB",
            f"{first[spark].peaks.mib['driver']:,.0f} MiB",
            last[spark].peaks.mib["driver"] / first[spark].peaks.mib["driver"],
        )
    )
    notes = (
        "One command each, from its start to its end, with all that it imports; the other one is "
        "in process. Examples are there several times under other keys, features once. A "
        "standalone cluster on the same two cores: a master and two executors of a core and 2 GiB "
        "each, started again by each command. Driver: Python and its JVM; executors: JVMs and "
        "their Python workers.",
    )
    return Result("Engines", tuple(lines), notes)

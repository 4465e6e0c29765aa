"""One reading of a database's rows in a process of its own.

`python -m benchmarks.databases_one FOLDER ASKED`
"""

import itertools
import json
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import psycopg
import pyarrow as pa
import pymysql
import pymysql.cursors
from pydantic import SecretStr

from benchmarks.meters import declare
from ml_platform.settings import Settings
from ml_platform.sources import ingest, table_rows
from ml_platform.spec.modules import run_module
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from ml_platform.storage.adbc import connect_adbc
from ml_platform.storage.connection_strings import mysql_options

DAYS, BATCH = 20, 10_000
START = datetime(2024, 1, 1, tzinfo=UTC)
COMMIT = Commit("benchmark", "benchmark")
SPEC = """\
description: Meters
partitions: {cadence: daily, start: 2024-01-01}
sources:
  readings:
    ORIGIN
    high_water: updated_at
    event_time: read_at
    key: [meter, read_at]
    columns: {meter: VARCHAR, read_at: TIMESTAMPTZ, updated_at: TIMESTAMPTZ, value: DOUBLE}
examples: {source: readings, entity: [meter], columns: ["value"]}
label: {task: regression}
model: {metric: mae}
"""
FUNCTION = """\
import psycopg
import pyarrow as pa


def readings(start, end, since, database):
    asked = [("read_at >= %s", start), ("read_at < %s", end), ("updated_at >= %s", since)]
    given = [(text, value) for text, value in asked if value is not None]
    where = " WHERE " + " AND ".join(text for text, _ in given) if given else ""
    with psycopg.connect(database.partition(":")[2]) as connection:
        with connection.cursor("readings") as cursor:
            cursor.execute("SELECT * FROM TABLE" + where, [value for _, value in given])
            names = [column.name for column in cursor.description]
            while rows := cursor.fetchmany(10_000):
                columns = [pa.array(values) for values in zip(*rows)]
                yield pa.RecordBatch.from_arrays(columns, names)
"""


@dataclass(frozen=True)
class DatabaseRun:
    """What is measured."""

    kind: str
    setting: str
    rows: int
    by_day: bool = False

    def of(self, rows: int) -> "DatabaseRun":
        return replace(self, rows=rows)


@dataclass(frozen=True)
class Taken:
    """What it took; times in seconds, CPU time of all threads."""

    seconds: float
    cpu: float
    peak_mib: float
    reading: float
    """CPU time of what the database was asked."""
    bare: float
    bare_cpu: float


def main(folder: str, asked: str) -> None:
    """Ingest what is asked for into an empty lake, and read the same rows without it."""
    print(json.dumps(_measured(Path(folder), DatabaseRun(**json.loads(asked))).__dict__))


def _measured(folder: Path, asked: DatabaseRun) -> Taken:
    use_case = _declared(folder, asked)
    settings = Settings(data=folder / "data", databases={"erp": SecretStr(asked.setting)})
    with closing(Lake(settings)) as lake, _reading() as reading:
        with lake.cursor():
            pass
        with _peak() as peak:
            began, cpu = time.perf_counter(), time.process_time()
            rows = _ingest(lake, use_case, asked.by_day)
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        assert rows == asked.rows, rows
    began, bare_cpu = time.perf_counter(), time.process_time()
    rows = _bare(use_case, asked)
    bare, bare_cpu = time.perf_counter() - began, time.process_time() - bare_cpu
    assert rows == asked.rows, rows
    return Taken(seconds, cpu, peak[0] / 2**20, sum(reading), bare, bare_cpu)


def _declared(folder: Path, asked: DatabaseRun) -> UseCase:
    table = f"readings_{asked.rows}"
    schema = {"mysql": "bench", "sqlite": "main"}.get(asked.kind, "public")
    origin = f"table: erp.{schema}.{table}"
    if asked.kind == "python":
        origin = "python: source:readings\n    database: erp"
        (folder / "use_cases" / "meters").mkdir(parents=True)
        text = FUNCTION.replace("TABLE", table)
        (folder / "use_cases" / "meters" / "source.py").write_text(text)
    return declare(folder, SPEC.replace("ORIGIN", origin))


def _ingest(lake: Lake, use_case: UseCase, by_day: bool) -> int:
    days = [START + timedelta(days=day) for day in range(DAYS + 1)]
    ranges = itertools.pairwise(days) if by_day else [(days[0], days[-1])]
    reports = [
        ingest(lake, use_case, "readings", Window(first, end), COMMIT) for first, end in ranges
    ]
    return sum(counts.ingested for report in reports for counts in report.windows.values())


@contextmanager
def _peak() -> Iterator[list[int]]:
    """The most memory above that at the start, in bytes, once it is over."""
    process, ended = psutil.Process(), threading.Event()
    before = process.memory_info().rss
    most = [0]

    def watch() -> None:
        while not ended.wait(0.01):
            most[0] = max(most[0], process.memory_info().rss - before)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield most
    finally:
        ended.set()
        watching.join()


@contextmanager
def _reading() -> Iterator[list[float]]:
    """CPU time of each reading of the source's rows."""
    collect: Callable[..., None] = table_rows.SourceTable._collect
    taken: list[float] = []

    def timed(self: table_rows.SourceTable, *given: object) -> None:
        cpu = time.process_time()
        collect(self, *given)
        taken.append(time.process_time() - cpu)

    table_rows.SourceTable._collect = timed  # type: ignore[method-assign, assignment]
    yield taken
    table_rows.SourceTable._collect = collect  # type: ignore[method-assign]


def _bare(use_case: UseCase, asked: DatabaseRun) -> int:
    """Read all rows with the database's own client; how many there were."""
    where = asked.setting.partition(":")[2]
    query = f"SELECT * FROM readings_{asked.rows}"
    if asked.kind == "python":
        function = run_module("meters", use_case.folder / "source.py").readings
        batches: Iterator[pa.RecordBatch] = function(None, None, None, asked.setting)
        return sum(batch.num_rows for batch in batches)
    if asked.kind == "adbc":
        with closing(connect_adbc(where)) as driver, driver.cursor() as cursor:
            cursor.execute(query)
            return sum(batch.num_rows for batch in cursor.fetch_record_batch())
    if asked.kind == "copy":
        copy = f"COPY readings_{asked.rows} TO STDOUT"
        with psycopg.connect(where) as connection, connection.cursor().copy(copy) as copied:
            return sum(bytes(part).count(b"\n") for part in copied)
    if asked.kind == "sqlite":
        with closing(sqlite3.connect(where)) as connection:
            return _count(connection.execute(query).fetchmany)
    if asked.kind == "mysql":
        options = {**mysql_options(where), "cursorclass": pymysql.cursors.SSCursor}
        with closing(pymysql.connect(**options)) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return _count(cursor.fetchmany)
    with psycopg.connect(where) as connection, connection.cursor("bare") as cursor:
        cursor.execute(query)
        return _count(cursor.fetchmany)


def _count(fetch: Callable[[int], object]) -> int:
    found = 0
    while rows := fetch(BATCH):
        found += len(rows)  # type: ignore[arg-type]
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])

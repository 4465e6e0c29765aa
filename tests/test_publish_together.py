"""Readers, writers and publishers of one table at the same time, and publishers that die."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from ml_platform.publish import Counted, publishing
from ml_platform.publish.adbc import AdbcTarget
from ml_platform.publish.mysql import MySqlTarget
from ml_platform.publish.postgres import PostgresTarget
from ml_platform.publish.sqlite import SqliteTarget
from tests.database_servers import Database
from tests.published_trips import Published, published_trips
from tests.trips_use_case import days

TARGETS = {
    "mysql": MySqlTarget, "postgres": PostgresTarget, "sqlite": SqliteTarget, "adbc": AdbcTarget,
}  # fmt: skip


@pytest.fixture(scope="module")
def trips(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    made = published_trips(tmp_path_factory.mktemp("published"), database)
    yield made
    made.lake.close()


class Watch:
    """Reads a table over and over, as those downstream do, until it is left."""

    def __init__(self, database: Database, table: str) -> None:
        self.seen: set[tuple[int, int, int]] = set()
        self._query = f"SELECT count(*), min(model_version), max(model_version) FROM {table}"
        self._database, self._over = database, threading.Event()
        self._first = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def _read(self) -> None:
        with closing(self._database.connect()) as connection:
            while not self._over.is_set():
                cursor = connection.cursor()
                cursor.execute(self._query)
                self.seen |= set(cursor.fetchall())
                self._first.set()

    def __enter__(self) -> "Watch":
        self._thread.start()
        self._first.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.mark.slow
def test_a_reader_sees_a_whole_old_partition_or_a_whole_new_one(trips):
    if trips.database.setting.startswith("adbc:driver=adbc_driver_sqlite"):
        # Of two libraries of SQLite in one process, as the driver's and Python's are here, each
        # releases the other's locks.
        return
    use_case = trips.declare("watched")
    trips.publish(use_case, days(10, 10))
    with Watch(trips.database, "watched") as watch:
        for _ in range(4):
            with trips.opposite(use_case, days(10, 10)):
                trips.publish(use_case, days(10, 10))
            trips.publish(use_case, days(10, 10))
    assert watch.seen <= {(40, 1, 1), (40, 2, 2)}
    assert trips.database.run("SELECT count(*), min(model_version) FROM watched") == [(40, 1)]


def test_while_a_partition_is_written_others_write_beside_it(trips, monkeypatch):
    if trips.database.kind == "sqlite":
        # It has one lock, for all of a file, which is held as long as a partition takes.
        return
    use_case = trips.declare("shared", mode="upsert")
    trips.publish(use_case, days(9, 10))
    target = TARGETS[trips.database.setting.partition(":")[0]]
    load = target.load
    ((trip,), *_) = trips.predicted("trip", days(9, 9))
    changed = []

    def loads(self, cursor, relation, table, part):
        load(self, cursor, relation, table, part)
        # Nothing of the 9th is locked, and new rows are taken, while other days are not committed.
        trips.database.run(
            f"UPDATE shared SET city = 'Quebec' WHERE trip = {trip}",
            "INSERT INTO shared (trip, event_time) VALUES (7, '2024-03-08 01:00:00')",
        )
        changed.append(part)

    for mode, day in (("replace", 10), ("upsert", 10), ("upsert", 11)):
        trips.database.run("DELETE FROM shared WHERE trip = 7")
        monkeypatch.setattr(target, "load", loads)
        trips.publish(trips.declare("shared", mode=mode), days(day, day))
        monkeypatch.undo()
    assert len(changed) == 3
    assert trips.database.run("SELECT trip FROM shared WHERE city = 'Quebec'") == [(trip,)]


def test_a_row_that_others_insert_just_before_a_partition_is_updated(trips, monkeypatch):
    target = TARGETS[trips.database.setting.partition(":")[0]]
    load = target.load
    ((trip, moment), *_) = trips.predicted("trip, timezone('UTC', event_time)", days(9, 9))
    relations = []

    def loads(self, cursor, relation, table, part):
        if trips.database.kind != "sqlite" and not relations:
            trips.database.run(
                f"INSERT INTO raced (trip, event_time, city) VALUES "
                f"({trip}, '{moment:%Y-%m-%d %H:%M:%S.%f}', 'Quebec')"
            )
        relations.append(relation)
        load(self, cursor, relation, table, part)

    use_case = trips.declare("raced", mode="upsert")
    trips.publish(use_case, days(10, 10))
    monkeypatch.setattr(target, "load", loads)
    report = trips.publish(use_case, days(9, 9))
    monkeypatch.undo()
    assert [counted.is_complete for counted in report.windows.values()] == [True]
    # In SQLite nobody else writes meanwhile.
    assert len(relations) == (1 if trips.database.kind == "sqlite" else 2)
    assert "Quebec" not in {city for (city,) in trips.database.run("SELECT city FROM raced")}
    assert trips.database.run("SELECT count(*) FROM raced") == [(80,)]


def test_a_row_of_others_that_comes_with_a_partition_is_not_counted_as_one_of_it(
    trips, monkeypatch
):
    target = TARGETS[trips.database.setting.partition(":")[0]]
    count = target._count
    use_case = trips.declare("joined", mode="upsert")
    trips.publish(use_case, days(10, 10))

    def counts(self, relation):
        insert = "INSERT INTO joined (trip, event_time) VALUES (7, '2024-03-09 12:00:00')"
        if not trips.database.run("SELECT trip FROM joined WHERE trip = 7"):
            trips.database.run(insert)
        return count(self, relation)

    monkeypatch.setattr(target, "_count", counts)
    report = trips.publish(use_case, days(9, 9))
    assert list(report.windows.values()) == [Counted(40, 40)]
    assert trips.database.run("SELECT count(*) FROM joined") == [(81,)]


def test_publishers_of_one_table_come_one_after_the_other(trips):
    use_case = trips.declare("crowded")
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(trips.publish, use_case, days(9, 12)) for _ in range(3)]
        reports = [run.result() for run in runs]
    assert all(counted.is_complete for r in reports for counted in r.windows.values())
    assert trips.database.run("SELECT count(*) FROM crowded") == [(160,)]
    assert trips.due(use_case) == [13, 14]


def test_one_that_has_read_before_a_correction_publishes_what_holds_after_it(trips, monkeypatch):
    use_case = trips.declare("overtaken")
    trips.publish(use_case, days(11, 11))
    write, attempts = publishing._write, []

    def overtaken(*arguments):
        attempts.append(1)
        counted = write(*arguments)
        if len(attempts) == 1:
            # What was published just now is of a prediction that has changed in the meantime.
            correction.__enter__()
        return counted

    correction = trips.opposite(use_case, days(11, 11))
    monkeypatch.setattr(publishing, "_write", overtaken)
    trips.publish(use_case, days(11, 11))
    assert len(attempts) == 2
    assert trips.database.run("SELECT min(model_version), count(*) FROM overtaken") == [(2, 40)]
    correction.__exit__(None, None, None)


KILLED = """
import os, signal, sys
from pathlib import Path
from ml_platform.publish import publish_range, publishing
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.storage import Commit, Lake
from tests.trips_use_case import days

where, settings = sys.argv[1], Settings()
use_case = load_use_case(Path(sys.argv[2]), settings.databases)
before = getattr(publishing, where)
def dies(*arguments, **more):
    result = before(*arguments, **more) if where == "_write" else None
    os.kill(os.getpid(), signal.SIGKILL)
setattr(publishing, where, dies)
publish_range(Lake(settings), use_case, "killed", days(9, 12), Commit("killed", "0"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["_write", "note"])
def test_one_that_is_killed_before_it_notes_what_it_did_leaves_nothing_half(trips, where):
    use_case = trips.declare("killed")
    trips.publish(use_case, days(9, 12))
    before = trips.database.run("SELECT * FROM killed ORDER BY trip, event_time")
    environment = {
        **os.environ,
        "ML_PLATFORM_DATA": str(trips.root / "data"),
        "ML_PLATFORM_DATABASES": json.dumps({"others": trips.database.setting}),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    with trips.opposite(use_case, days(12, 12)):
        died = subprocess.run(
            [sys.executable, "-c", KILLED, where, str(use_case.folder)],
            env=environment, check=False,
        )  # fmt: skip
        assert died.returncode == -signal.SIGKILL
        assert trips.due(use_case) == [12, 13, 14]
        trips.publish(use_case, days(9, 12))
        rows = trips.database.run("SELECT * FROM killed ORDER BY trip, event_time")
        assert rows[:120] == before[:120]
        assert [row[3] for row in rows[120:]] == [2] * 40

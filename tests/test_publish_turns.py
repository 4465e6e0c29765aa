"""Publishers on several machines take turns, through Arrow Database Connectivity."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from adbc_driver_manager import dbapi

from ml_platform.errors import InputsChanged
from ml_platform.publish import turn_table
from ml_platform.publish.adbc import AdbcTarget
from ml_platform.publish.turn_table import TABLE, TurnTable
from ml_platform.settings import Settings
from tests.database_servers import (
    Database,
    adbc_database,
    postgres_database,
    sqlite_database,
)
from tests.published_trips import Published, published_trips
from tests.trips_use_case import days

NAME = "trips/late others.late"


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Database:
    if request.param == "sqlite":
        return adbc_database(sqlite_database(tmp_path_factory.mktemp("others") / "others.sqlite"))
    return adbc_database(postgres_database(request.getfixturevalue("postgres"), "turns"))


class Machines:
    """Publishers on machines of their own, each with a connection."""

    def __init__(self, database: Database) -> None:
        self._where = database.setting.removeprefix("adbc:")
        self.sessions: list[AdbcTarget] = []

    def publisher(self, machine: str) -> tuple[TurnTable, AdbcTarget]:
        session = AdbcTarget(Settings(), "others", self._where)
        self.sessions.append(session)
        return TurnTable(session, NAME, machine, dbapi.Error), session


@pytest.fixture
def machines(database: Database) -> Iterator[Machines]:
    made = Machines(database)
    yield made
    for each in made.sessions:
        each.close()
    database.run(f"DROP TABLE {TABLE}")


def rows(session: AdbcTarget) -> list[tuple[Any, ...]]:
    found = session.execute(f"SELECT number, beat, holder FROM {TABLE}")
    session.rollback()
    return [(number, beat, holder.partition(" ")[0]) for number, beat, holder in found]


def test_a_turn_is_a_row_that_each_transaction_of_it_writes(machines):
    turn, session = machines.publisher("here")
    turn.take()
    assert rows(session) == [(1, 0, "here")]
    turn.hold()
    session.commit()
    assert rows(session) == [(1, 1, "here")]
    turn.release()
    assert rows(session) == []
    turn.take()
    assert rows(session) == [(1, 0, "here")]


def test_another_machine_waits_until_a_turn_is_over(machines):
    first, session = machines.publisher("here")
    second, _ = machines.publisher("there")
    first.take()
    waiting = threading.Thread(target=second.take)
    waiting.start()
    for _ in range(3):
        first.hold()
        session.commit()
        waiting.join(3 * turn_table.LOOK_AGAIN_SECONDS)
        assert waiting.is_alive()
    first.release()
    waiting.join(60)
    assert rows(session) == [(1, 0, "there")]


def test_a_silent_machine_loses_its_turn_and_is_refused_before_it_writes(machines, monkeypatch):
    first, session = machines.publisher("here")
    second, _ = machines.publisher("there")
    first.take()
    monkeypatch.setattr(turn_table, "TAKEN_OVER_SECONDS", 0.5)
    second.take()
    with pytest.raises(InputsChanged, match="another machine has taken the turn"):
        first.hold()
    session.rollback()
    second.release()
    with pytest.raises(InputsChanged, match="another machine has taken the turn"):
        first.hold()
    session.rollback()
    second.take()
    # What it leaves is the turn of the other one.
    first.release()
    assert rows(session) == [(1, 0, "there")]


def test_who_died_on_the_same_machine_is_followed_at_once(machines):
    died, _ = machines.publisher("here")
    died.take()
    follows, session = machines.publisher("here")
    follows.take()
    assert rows(session) == [(2, 0, "here")]


PUBLISHES = """
import os, sys, time
from pathlib import Path
from ml_platform.publish import publish_range, turn_folder, turn_table
from ml_platform.publish.adbc import AdbcTarget
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.storage import Commit, Lake
from tests.trips_use_case import days

use_case, root, dies = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "dies"
turn_table.TAKEN_OVER_SECONDS = 20.0

folder = root / f"machine {os.getpid()}"
folder.mkdir()
turn_folder.turn_folder = lambda settings: folder
settings = Settings()
write = AdbcTarget.write

def writes(self, cursor, table, part):
    with (root / "log").open("a") as log:
        log.write(f"{os.getpid()} {part.start:%d}\\n")
    written = write(self, cursor, table, part)
    if dies:
        os._exit(9)
    return written

AdbcTarget.write = writes
(root / f"ready {os.getpid()}").touch()
while not (root / "go").exists():
    time.sleep(0.01)
declared = load_use_case(use_case, settings.databases)
publish_range(Lake(settings), declared, sys.argv[4], days(9, 12), Commit("test", "0"))
"""


@pytest.fixture(scope="module")
def trips(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    made = published_trips(tmp_path_factory.mktemp("published"), database)
    yield made
    made.lake.close()


@pytest.mark.exhaustive
@pytest.mark.slow
def test_machines_that_publish_one_table_come_one_after_the_other(trips, tmp_path):
    use_case = trips.declare("crowded", mode="upsert")
    environment = {
        **os.environ,
        "ML_PLATFORM_DATA": str(trips.root / "data"),
        "ML_PLATFORM_DATABASES": json.dumps({"others": trips.database.setting}),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }

    def start(number: int) -> subprocess.Popen[bytes]:
        does = "dies" if number == 0 else "publishes"
        given = (str(use_case.folder), str(tmp_path), does, "crowded")
        return subprocess.Popen([sys.executable, "-c", PUBLISHES, *given], env=environment)

    publishers = [start(number) for number in range(4)]
    while len(list(tmp_path.glob("ready *"))) < len(publishers):
        assert all(each.poll() is None for each in publishers)
    (tmp_path / "go").touch()
    assert [each.wait(timeout=300) for each in publishers] == [9, 0, 0, 0]
    log = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    turns = [[day for _, day in turn] for _, turn in groupby(log, key=lambda line: line[0])]
    # One was killed after its first partition; of the others nobody came in between.
    assert sorted(turns) == [["09"], *[["09", "10", "11", "12"]] * 3]
    wanted = trips.predicted("trip, probability", days(9, 12))
    found = trips.database.run("SELECT trip, probability FROM crowded ORDER BY trip")
    assert found == sorted(wanted)

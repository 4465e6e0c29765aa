"""A store whose maker is killed, wherever that is, is whole for the next process."""

import random
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest
from mlflow import MlflowClient

from ml_platform.access.audit_checkpoints import AuditCheckpoint, AuditCheckpoints
from ml_platform.registry.database import open_database
from ml_platform.registry.tracking import open_client
from ml_platform.settings import Settings
from tests.dagster_servers import ROOT
from tests.dying import STORES, configure_home

KILLS = {"mlflow": 12, "home": 12, "keys": 10, "online": 10, "answers": 3, "log": 3}


class Dying:
    """A process that makes stores and is killed as it does."""

    def __init__(self, what: str, root: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.dying", what, str(root)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def killed_before(self, statement: int) -> tuple[int, int, int]:
        """Exit codes of the one killed and of the next one; statements where none was killed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{statement}\n")
        self.process.stdin.flush()
        first, again, counted = map(int, self.process.stdout.readline().split())
        return first, again, counted

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("what", STORES)
def test_a_maker_killed_before_any_of_its_statements(what: str, tmp_path: Path) -> None:
    dying = Dying(what, tmp_path)
    try:
        made, again, statements = dying.killed_before(0)
        assert (made, again) == (0, 0)
        assert statements > 1
        # The first and the last ones, and any between them.
        ends = {1, 2, statements - 1, statements} & set(range(1, statements + 1))
        between = random.Random(what).sample(range(1, statements + 1), min(KILLS[what], statements))
        for statement in sorted({*ends, *between}):
            first, again, _ = dying.killed_before(statement)
            assert (first, again) == (-signal.SIGKILL, 0), f"statement {statement} of {statements}"
    finally:
        dying.close()


def test_a_home_in_which_nothing_was_recorded_is_not_made_anew(tmp_path: Path) -> None:
    home = configure_home(tmp_path)
    dg.DagsterInstance.from_config(str(home)).dispose()
    databases = sorted(home.rglob("*.db"))
    assert [file.name for file in databases] == ["event_log.db", "runs.db", "schedules.db"]
    # A file that is replaced is another one, and who has it open continues with the one before.
    made = [file.stat().st_ino for file in databases]
    dg.DagsterInstance.from_config(str(home)).dispose()
    assert [file.stat().st_ino for file in databases] == made


@pytest.mark.slow
@pytest.mark.parametrize("what", ["mlflow", "home", "keys", "answers"])
def test_two_that_make_a_store_at_once(what: str, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.dying import STORES; "
        "STORES[sys.argv[1]](Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, what, str(tmp_path)]
    makers = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    assert [maker.wait() for maker in makers] == [0, 0, 0]


def half_made(tmp_path: Path) -> Path:
    """A database of MLflow's as one that was killed has left it before it was made as a whole."""
    database = tmp_path / "mlflow.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO experiments VALUES (0)")
    connection.close()
    return database


@pytest.mark.slow
def test_a_database_of_mlflow_that_was_left_unfinished_is_made_anew(tmp_path: Path) -> None:
    database = half_made(tmp_path)
    client = open_database(database)
    client.create_experiment("first")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


@pytest.mark.slow
def test_a_database_of_mlflow_that_holds_something_is_never_made_anew(tmp_path: Path) -> None:
    database = half_made(tmp_path)
    with sqlite3.connect(database) as connection:
        connection.execute("INSERT INTO experiments VALUES (1)")
    connection.close()
    with pytest.raises(Exception, match="experiments"):
        open_database(database)
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM experiments").fetchone() == (2,)
    connection.close()


@pytest.mark.slow
def test_a_whole_database_that_holds_nothing_is_not_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data=tmp_path)
    database = Path(settings.tracking_uri.removeprefix("sqlite:///"))
    open_client(settings)
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE ours (a INTEGER)")
    connection.close()
    search = MlflowClient.search_registered_models
    asked: list[str] = []

    def locked(self: MlflowClient, **arguments: int) -> object:
        asked.append(self.tracking_uri)
        if len(asked) == 1:
            raise OSError("database is locked")
        return search(self, **arguments)

    monkeypatch.setattr(MlflowClient, "search_registered_models", locked)
    with pytest.raises(OSError, match="locked"):
        open_client(settings)
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM ours").fetchone() == (0,)
    connection.close()
    assert not list(database.parent.glob("*unfinished*"))


def test_an_end_of_the_audit_that_was_cut_short_costs_no_other(tmp_path: Path) -> None:
    checkpoints = AuditCheckpoints(Settings(data=tmp_path))
    checkpoints.keep(AuditCheckpoint(1, "a" * 64))
    with checkpoints.file.open("a") as file:
        file.write('{"rows": 2, "ha')
    checkpoints.keep(AuditCheckpoint(3, "c" * 64))
    assert [checkpoint.rows for checkpoint in checkpoints.read()] == [1, 3]


def test_ends_of_the_audit_that_are_kept_at_once_do_not_mix(tmp_path: Path) -> None:
    checkpoints = AuditCheckpoints(Settings(data=tmp_path))
    with ThreadPoolExecutor(4) as threads:
        list(
            threads.map(lambda n: checkpoints.keep(AuditCheckpoint(n, f"{n:064x}")), range(1, 101))
        )
    assert sorted(checkpoint.rows for checkpoint in checkpoints.read()) == list(range(1, 101))

"""Run in a process of its own: `python -m tests.dying WHAT ROOT`; makes stores, and is killed.

Libraries are imported once. Then, for each number on standard input, a child makes the store and is
killed before that one of the statements that make it; a second child opens what is left, as the
next process would, and a line has the exit codes of both. The number 0 kills nobody, and the line
says how many statements there are.
"""

import os
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from ml_platform.access import Audit, Grant, create_key
from ml_platform.features import open_online_store, publish
from ml_platform.registry.tracking import open_client
from ml_platform.serving.control.answers import FileAnswers, StoredAnswer
from ml_platform.serving.records.segments import SegmentWriter, land_orphans
from ml_platform.settings import Settings
from ml_platform.storage import Lake
from tests.trips_use_case import COMMIT, days, land, trips, write_folder

LEFT = [10**9]
COUNTED = [0]


def step(*_: Any) -> None:
    COUNTED[0] += 1
    LEFT[0] -= 1
    if not LEFT[0]:
        os.kill(os.getpid(), signal.SIGKILL)


class Counting(sqlite3.Connection):
    def execute(self, *arguments: Any) -> Any:
        step()
        return super().execute(*arguments)

    def executemany(self, *arguments: Any) -> Any:
        step()
        return super().executemany(*arguments)


class CountingCursor:
    """A cursor of DuckDB, whose class cannot be changed."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def execute(self, *arguments: Any) -> Any:
        step()
        return self._cursor.execute(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


def count_statements() -> None:
    """Of SQLAlchemy, of Python's SQLite and of the lake."""
    event.listen(Engine, "before_cursor_execute", step)
    event.listen(Engine, "commit", step)
    connect, cursor, write = sqlite3.connect, Lake.cursor, os.write

    def connect_counting(*arguments: Any, **named: Any) -> sqlite3.Connection:
        return connect(*arguments, **{"factory": Counting, **named})

    @contextmanager
    def counting_cursor(self: Lake, timezone: str = "UTC") -> Any:
        with cursor(self, timezone) as opened:
            yield CountingCursor(opened)

    def write_counting(file: int, content: bytes) -> int:
        step()
        return write(file, content)

    sqlite3.connect = connect_counting  # type: ignore[assignment]
    Lake.cursor = counting_cursor  # type: ignore[method-assign, assignment]
    os.write = write_counting


def make_mlflow(root: Path) -> None:
    client = open_client(Settings(data=root))
    client.create_experiment(f"made by {os.getpid()}")
    client.create_registered_model(f"made by {os.getpid()}")


def configure_home(root: Path) -> Path:
    """The folder of a Dagster that keeps its records as the platform's own does."""
    home = root / "home"
    home.mkdir(parents=True, exist_ok=True)
    os.environ["DAGSTER_HOME"] = str(home)
    # As a whole: Dagster takes a file that is cut short for one that leaves all to its defaults.
    beside = home / f"{os.getpid()}.yaml"
    beside.write_text(Path("deploy/dagster.yaml").read_text())
    beside.rename(home / "dagster.yaml")
    return home


def make_home(root: Path) -> None:
    import dagster as dg

    home = configure_home(root)

    @dg.op
    def nothing() -> None:
        pass

    @dg.job
    def job() -> None:
        nothing()

    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert job.execute_in_process(instance=instance).success
        assert instance.get_runs()
        assert not instance.all_instigator_state()


def make_keys(root: Path) -> None:
    from datetime import UTC, datetime, timedelta

    lake = Lake(Settings(data=root))
    until = datetime.now(UTC) + timedelta(days=1)
    create_key(
        lake, "ada", [Grant("viewer", "*")], expires_at=until, created_by="ada", commit=COMMIT
    )
    assert Audit(lake).verify()
    lake.close()


def make_online(root: Path) -> None:
    settings = Settings(data=root)
    use_case = write_folder(root / "use_cases", "binary")
    lake = Lake(settings)
    land(lake, use_case, trips(1, 2), days(1, 2))
    store = open_online_store(settings)
    publish(lake, store, use_case, "pace", days(1, 2))
    assert store.count("trips", "pace") == 80
    store.close()
    lake.close()


def make_answers(root: Path) -> None:
    with FileAnswers(root / "control").held("a key") as held:
        if held.read() is None:
            held.keep(StoredAnswer("body", b"answer"))
    with FileAnswers(root / "control").held("a key") as held:
        assert held.read() == StoredAnswer("body", b"answer")


def make_log(root: Path) -> None:
    land_orphans(root / "log")
    segments = SegmentWriter(root / "log", 10**6, 10**6)
    segments.append(b'{"a": 1}\n')
    segments.append(b'{"a": 2}\n', synced=True)
    segments.close()
    for file in (root / "log").glob("*.jsonl"):
        assert set(file.read_bytes().splitlines()) <= {b'{"a": 1}', b'{"a": 2}'}
    assert not list((root / "log" / ".open").glob("*"))


STORES: dict[str, Callable[[Path], None]] = {
    "mlflow": make_mlflow,
    "home": make_home,
    "keys": make_keys,
    "online": make_online,
    "answers": make_answers,
    "log": make_log,
}


def in_child(make: Callable[[Path], None], root: Path, killed_before: int) -> tuple[int, int]:
    """Exit code of a child, and how many statements it has executed where it was not killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            LEFT[0] = killed_before or 10**9
            COUNTED[0] = 0
            make(root)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            LEFT[0] = 10**9
            os.write(writing, str(COUNTED[0]).encode())
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as reported:
        counted = int(reported.read() or 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), counted


def main() -> None:
    what, root = sys.argv[1], Path(sys.argv[2])
    make = STORES[what]
    count_statements()
    for trial, line in enumerate(sys.stdin):
        folder = root / f"trial-{trial}"
        code, counted = in_child(make, folder, int(line))
        again, _ = in_child(make, folder, 0)
        print(code, again, counted, flush=True)


if __name__ == "__main__":
    main()

"""SQLite databases of Dagster's home: made as a whole or not at all, however their maker ends.

Dagster makes each of them in dozens of transactions, and takes one that another process left
unfinished for one that is whole.
"""

import fcntl
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

from ml_platform_dagster.resources.paging import end_pages_with_calendar
from ml_platform_dagster.resources.private import (
    ConfigurableClassData,
    SqliteRunStorage,
    SqliteScheduleStorage,
)

FILES = ("", "-wal", "-shm", "-journal")
WHOLE = 1
"""SQLite's `user_version` of a database that was made as a whole; nobody else sets it."""


class WholeSqliteRunStorage(SqliteRunStorage):
    """Dagster's runs, below the home in `history`, where Dagster keeps them by default."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        # Dagster's processes share little but the home that they open; one of them is the UI's.
        end_pages_with_calendar()
        folder = Path(config_value["base_dir"]) / "history"
        make_whole(folder / "runs.db", "runs", lambda at: cls.from_local(str(at)))
        return cls.from_local(str(folder), inst_data)


class WholeSqliteScheduleStorage(SqliteScheduleStorage):
    """Dagster's ticks, below the home in `schedules`, where Dagster keeps them by default."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        folder = Path(config_value["base_dir"]) / "schedules"
        make_whole(folder / "schedules.db", "job_ticks", lambda at: cls.from_local(str(at)))
        # It makes one of its own class, which its type does not say.
        return cls.from_local(str(folder), inst_data)  # type: ignore[return-value]


def make_whole(database: Path, table: str, make: Callable[[Path], object]) -> None:
    """Have a database made where there is none, or one that was left unfinished.

    make: makes it in a folder; table: the one that shows whether anything was ever recorded.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    with _alone(database):
        if not _is_unfinished(database, table):
            return
        # Beside it, on the same disk: renaming a file is all or nothing.
        folder = database.parent / f".{database.stem}.unfinished"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        make(folder)
        _mark_whole(folder / database.name)
        for suffix in FILES:
            database.with_name(database.name + suffix).unlink(missing_ok=True)
        (folder / database.name).rename(database)
        shutil.rmtree(folder)


def _is_unfinished(database: Path, table: str) -> bool:
    """Whether it is not there, or was not made here, has no revision and nothing recorded in it."""
    if not database.exists():
        return True
    with closing(sqlite3.connect(database)) as connection:
        if connection.execute("PRAGMA user_version").fetchone() == (WHOLE,):
            return False
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
        tables = {name for (name,) in connection.execute(query)}

        def has_rows(name: str) -> bool:
            return (
                name in tables
                and connection.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone() is not None
            )

        return not has_rows("alembic_version") and not has_rows(table)


def _mark_whole(database: Path) -> None:
    """Say so in the database, and bring its write-ahead log into the file, which alone is renamed.

    Dagster itself does not: the revision of a new event log is never committed.
    """
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(f"PRAGMA user_version = {WHOLE:d}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def _alone(database: Path) -> Iterator[None]:
    with database.with_name(database.name + ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

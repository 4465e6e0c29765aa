"""Who is still to be notified, kept until that is done: it survives restarts of the service.

On one machine this is a file; where the lake's catalog is in PostgreSQL, several machines can share
it, and then that keeps it, as it keeps answers. Whoever notifies one takes it for a while, so that
of all workers one does; where that worker dies, another one takes it afterwards.
"""

import secrets
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol

import duckdb

from ml_platform.errors import LakeError, NotKept
from ml_platform.spec.queries import literal
from ml_platform.storage import Lake
from ml_platform.storage.known_files import METADATA
from ml_platform.storage.turns import retried

State = Literal["waiting", "delivered", "given up"]
KEPT_SECONDS = 30 * 86_400
LEASE_SECONDS = 120.0
"""So long one worker has a callback to itself; no call takes as long."""
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Callback:
    """How far notifying one receiver of one run has come."""

    id: str
    run: str
    use_case: str
    receiver: str
    """Its name, or the host of the address."""
    url: str
    """Address of a request, until it was notified; of a registered receiver empty."""
    asked_by: str
    state: State
    attempts: int
    """How often it did not take it."""
    said: str
    """What became of the last attempt."""
    next_at: float
    """Before this moment nobody looks; in seconds since 1970, as are the others."""
    first_at: float
    """When it was registered."""
    over_at: float | None
    """When the run was found to have ended."""
    notified_at: float | None


NAMES = tuple(each.name for each in fields(Callback))
_KINDS = {"attempts": "INTEGER", "next_at": "FLOAT8", "first_at": "FLOAT8", "over_at": "FLOAT8",
          "notified_at": "FLOAT8"}  # fmt: skip
_COLUMNS = ", ".join(f"{name} {_KINDS.get(name, 'TEXT')}" for name in NAMES)
TABLE = (
    f"CREATE TABLE IF NOT EXISTS ml_platform_callbacks "
    f"({_COLUMNS}, taken_by TEXT, PRIMARY KEY (id))"
)


class Database(Protocol):
    """Where the table is: SQL that SQLite and PostgreSQL both understand."""

    def execute(self, *statements: str) -> None:
        """Carry out, in one transaction. Raises NotKept."""

    def query(self, query: str) -> list[tuple[Any, ...]]:
        """Rows. Raises NotKept."""

    @property
    def is_there(self) -> bool:
        """Whether anything was ever kept."""


@dataclass(frozen=True)
class CallbackStore:
    """Callbacks of a deployment."""

    database: Database

    def add(self, callbacks: Sequence[Callback]) -> None:
        """Keep callbacks; those that are there already stay as they are. Raises NotKept."""
        if not callbacks:
            return
        old = f"DELETE FROM ml_platform_callbacks WHERE notified_at < {time.time() - KEPT_SECONDS}"
        rows = ", ".join(f"({', '.join(map(_sql, astuple(each)))})" for each in callbacks)
        insert = f"INSERT INTO ml_platform_callbacks ({', '.join(NAMES)}) VALUES {rows}"
        self.database.execute(TABLE, old, f"{insert} ON CONFLICT (id) DO NOTHING")

    def take(self, now: float) -> Callback | None:
        """One that is due, which nobody else is given for a while. Raises NotKept."""
        if not self.database.is_there:
            return None
        due = f"state = 'waiting' AND next_at <= {now}"
        chosen = f"SELECT id FROM ml_platform_callbacks WHERE {due} ORDER BY next_at LIMIT 1"
        # Most looks find nothing, and should keep nobody else from writing.
        if not self.database.query(chosen):
            return None
        taker = secrets.token_hex(8)
        self.database.execute(
            f"UPDATE ml_platform_callbacks SET taken_by = '{taker}', "
            f"next_at = {now + LEASE_SECONDS} WHERE {due} AND id IN ({chosen})"
        )
        taken = self._read(f"taken_by = '{taker}' AND state = 'waiting'")
        # Another worker may have been faster.
        return taken[0] if taken else None

    def update(self, callback: Callback) -> None:
        """Keep how far it has come. Raises NotKept."""
        stored = zip(NAMES[1:], astuple(callback)[1:], strict=True)
        values = ", ".join(f"{name} = {_sql(value)}" for name, value in stored)
        self.database.execute(
            f"UPDATE ml_platform_callbacks SET {values} WHERE id = {_sql(callback.id)}"
        )

    def of_run(self, run: str) -> list[Callback]:
        """Those of a run, in the order of their receivers. Raises NotKept."""
        return self._read(f"run = {_sql(run)}") if self.database.is_there else []

    def _read(self, where: str) -> list[Callback]:
        found = self.database.query(
            f"SELECT {', '.join(NAMES)} FROM ml_platform_callbacks WHERE {where} "
            "ORDER BY receiver, id"
        )
        return [Callback(*row) for row in found]


@dataclass(frozen=True)
class FileDatabase:
    """A file of SQLite on this machine."""

    file: Path

    def execute(self, *statements: str) -> None:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as database:
                database.execute("BEGIN IMMEDIATE")
                for statement in statements:
                    database.execute(statement)
                database.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            raise NotKept(f"callbacks cannot be kept in {self.file}: {error}") from error

    def query(self, query: str) -> list[tuple[Any, ...]]:
        try:
            with closing(self._open()) as database:
                return database.execute(query).fetchall()
        except sqlite3.Error as error:
            raise NotKept(f"callbacks cannot be read from {self.file}: {error}") from error

    @property
    def is_there(self) -> bool:
        return self.file.is_file()

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.file, timeout=TIMEOUT_SECONDS, isolation_level=None)


@dataclass(frozen=True)
class CatalogDatabase:
    """The PostgreSQL of the lake's catalog."""

    lake: Lake

    def execute(self, *statements: str) -> None:
        joined = "; ".join(statements)
        try:
            with self.lake.cursor() as cursor:
                # PostgreSQL refuses whoever changes a row after another one has.
                retried(
                    lambda: cursor.execute(
                        f"CALL postgres_execute({literal(METADATA)}, {literal(joined)})"
                    ),
                    self.lake.settings.commit_retries,
                    "callbacks",
                )
        except (duckdb.Error, LakeError) as error:
            raise NotKept(f"callbacks cannot be kept: {_first_line(error)}") from error

    def query(self, query: str) -> list[tuple[Any, ...]]:
        try:
            with self.lake.cursor() as cursor:
                return cursor.execute(
                    f"FROM postgres_query({literal(METADATA)}, {literal(query)})"
                ).fetchall()
        except (duckdb.Error, LakeError) as error:
            raise NotKept(f"callbacks cannot be read: {_first_line(error)}") from error

    @property
    def is_there(self) -> bool:
        return bool(self.query("SELECT 1 WHERE to_regclass('ml_platform_callbacks') IS NOT NULL"))


def open_callbacks(lake: Lake) -> CallbackStore:
    """Where a deployment keeps them: where all of its machines can, if there is such a place."""
    if lake.settings.catalog_uri.startswith("postgres:"):
        return CallbackStore(CatalogDatabase(lake))
    return CallbackStore(FileDatabase(lake.settings.root / "control" / "callbacks.sqlite"))


def _sql(value: object) -> str:
    if value is None:
        return "NULL"
    return literal(value.replace("\x00", "")) if isinstance(value, str) else repr(value)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]

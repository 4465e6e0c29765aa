"""Where answers are kept by their key, and how of two who come with one key the second waits.

On one machine these are files; where the lake's catalog is in PostgreSQL, several machines can
share it, and then that keeps them.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import duckdb

from ml_platform.errors import LakeUnavailable, NotKept, Overloaded, PlatformError
from ml_platform.spec.queries import literal
from ml_platform.storage import Lake
from ml_platform.storage.known_files import METADATA
from ml_platform.storage.turns import retried

WAIT_SECONDS = 75.0
"""How long a repeat waits for the first; longer than Dagster is given to answer."""
RETRY_SECONDS = 5
KEPT = timedelta(days=30)

TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, body TEXT NOT NULL, at REAL NOT NULL, answer BLOB NOT NULL
) WITHOUT ROWID
"""
SHARED_TABLE = """
CREATE TABLE IF NOT EXISTS ml_platform_answers (
    key TEXT PRIMARY KEY, body TEXT NOT NULL, at TIMESTAMPTZ NOT NULL, answer TEXT NOT NULL
)
"""


@dataclass(frozen=True)
class StoredAnswer:
    """An answer that was given."""

    body: str
    """Digest of what was asked for."""
    answer: bytes


class KeyLock(Protocol):
    """The answers, while nobody else who comes with the same key continues."""

    def read(self) -> StoredAnswer | None:
        """What was kept under the key, if anything."""

    def keep(self, kept: StoredAnswer) -> None:
        """Keep an answer under the key."""


class AnswerStore(Protocol):
    """Answers of a deployment."""

    @contextmanager
    def held(self, key: str) -> Iterator[KeyLock]:
        """Alone with a key; it ends with the process that holds it, however that ends.

        Raises Overloaded where another one holds it for long; NotKept where nothing can be written,
        LakeUnavailable where the server that keeps them does not answer.
        """


class FileAnswers:
    """In a folder of this machine: several files, so that as a rule other keys do not wait."""

    def __init__(self, folder: Path, wait_seconds: float = WAIT_SECONDS) -> None:
        self._folder, self._wait_seconds = folder, wait_seconds

    @contextmanager
    def held(self, key: str) -> Iterator[KeyLock]:
        """A write transaction of SQLite, which the operating system ends for whoever dies."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NotKept(f"{self._folder} cannot be written to: {error}") from error
        file = self._folder / f"answers-{key[0]}.sqlite"
        try:
            with closing(
                sqlite3.connect(file, timeout=self._wait_seconds, isolation_level=None)
            ) as answers:
                # From here on until the end: whoever else comes with the key waits.
                answers.execute("BEGIN IMMEDIATE")
                answers.execute(TABLE)
                yield _InFile(answers, key)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise _still_held() from error
            raise NotKept(f"the answer could not be stored in {file}: {error}") from error


@dataclass(frozen=True)
class _InFile:
    answers: sqlite3.Connection
    key: str

    def read(self) -> StoredAnswer | None:
        found = self.answers.execute("SELECT body, answer FROM answers WHERE key = ?", [self.key])
        row = found.fetchone()
        return None if row is None else StoredAnswer(*row)

    def keep(self, kept: StoredAnswer) -> None:
        now = time.time()
        self.answers.execute("DELETE FROM answers WHERE at < ?", [now - KEPT.total_seconds()])
        self.answers.execute(
            "INSERT INTO answers VALUES (?, ?, ?, ?)", [self.key, kept.body, now, kept.answer]
        )
        self.answers.execute("COMMIT")


class SharedAnswers:
    """In the PostgreSQL of the lake's catalog, where all machines of a deployment look."""

    def __init__(self, lake: Lake, wait_seconds: float = WAIT_SECONDS) -> None:
        self._lake, self._wait_seconds = lake, wait_seconds

    @contextmanager
    def held(self, key: str) -> Iterator[KeyLock]:
        """An advisory lock, which PostgreSQL ends with the connection that has it."""
        # Two connections: the one that waits sees, for PostgreSQL, what there was before it waited.
        with self._lake.cursor() as waiting, self._lake.cursor() as cursor:
            waiting.execute("BEGIN")
            try:
                self._lock(waiting, key)
                yield _InCatalog(self._lake, cursor, key)
            finally:
                # Nothing was written here; the lock goes, or went with its connection.
                with suppress(duckdb.Error):
                    waiting.execute("ROLLBACK")

    def _lock(self, cursor: duckdb.DuckDBPyConnection, key: str) -> None:
        number = int(key[:16], 16) - 2**63
        milliseconds = int(self._wait_seconds * 1000)
        try:
            _execute(
                cursor,
                f"SET LOCAL lock_timeout = {milliseconds}; SELECT pg_advisory_xact_lock({number})",
            )
        except duckdb.Error as error:
            if "lock timeout" in str(error):
                raise _still_held() from error
            raise _not_kept(self._lake, error, "the lake's catalog does not answer") from None


@dataclass(frozen=True)
class _InCatalog:
    lake: Lake
    cursor: duckdb.DuckDBPyConnection
    key: str

    def read(self) -> StoredAnswer | None:
        query = f"SELECT body, answer FROM ml_platform_answers WHERE key = {literal(self.key)}"
        try:
            # Whoever makes the table at the same moment may be faster.
            retries = self.lake.settings.commit_retries
            retried(lambda: _execute(self.cursor, SHARED_TABLE), retries, "answers")
            row = self.cursor.execute(
                f"FROM postgres_query({literal(METADATA)}, {literal(query)})"
            ).fetchone()
        except duckdb.Error as error:
            raise _not_kept(self.lake, error, "the answers cannot be read") from None
        return None if row is None else StoredAnswer(row[0], row[1].encode())

    def keep(self, kept: StoredAnswer) -> None:
        values = ", ".join(map(literal, (self.key, kept.body)))
        old = f"now() - INTERVAL '{KEPT.days} days'"
        try:
            _execute(
                self.cursor,
                f"DELETE FROM ml_platform_answers WHERE at < {old}; INSERT INTO "
                f"ml_platform_answers VALUES ({values}, now(), {literal(kept.answer.decode())})",
            )
        except duckdb.Error as error:
            raise _not_kept(self.lake, error, "the answer could not be stored") from None


def open_answers(lake: Lake) -> AnswerStore:
    """Where a deployment keeps them: where all of its machines can, if there is such a place."""
    if lake.settings.catalog_uri.startswith("postgres:"):
        return SharedAnswers(lake)
    return FileAnswers(lake.settings.root / "control")


def _execute(cursor: duckdb.DuckDBPyConnection, statements: str) -> None:
    cursor.execute(f"CALL postgres_execute({literal(METADATA)}, {literal(statements)})")


def _still_held() -> Overloaded:
    return Overloaded(
        "a request with this Idempotency-Key is still being carried out; ask again", RETRY_SECONDS
    )


def _not_kept(lake: Lake, error: duckdb.Error, what: str) -> PlatformError:
    """Why answers can be neither read nor stored; Unavailable where a later try may."""
    named = lake.named(error)
    return named if isinstance(named, LakeUnavailable) else NotKept(f"{what}: {named}")

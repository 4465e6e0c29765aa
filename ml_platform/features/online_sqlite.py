"""The embedded online store: one SQLite file a use case, one table a feature view."""

import re
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ml_platform.errors import OnlineStoreError
from ml_platform.features.online_store import (
    Fresh,
    Lookup,
    LookupResult,
    ViewContents,
    not_published,
)
from ml_platform.spec.queries import literal, quote
from ml_platform.storage.schema_versions import Stamp, require_not_newer

BUSY_SECONDS = 60
MAPPED_BYTES = 1 << 30
STATEMENTS = 512
# No view can have this name, nor that of an index, which SQLite does not distinguish from tables.
WINDOWS = quote("stored windows")
SCHEMA_VERSION = "schema version"


class SqliteStore:
    """Features in files of a folder; threads have connections of their own.

    Not to be carried over a fork: a child opens a store of its own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._all: list[sqlite3.Connection] = []

    def replace(
        self, use_case: str, view: str, start: int, end: int, read: Callable[[ViewContents], Fresh]
    ) -> None:
        table = quote(view)
        # The lock comes before the lake is read: the writer that reads later also writes later.
        with self._transaction(use_case, "BEGIN IMMEDIATE", writes=True) as connection:
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {table} (entity TEXT, event_time INTEGER, "
                "payload BLOB, PRIMARY KEY (entity, event_time)) WITHOUT ROWID"
            )
            connection.execute(
                f"CREATE INDEX IF NOT EXISTS {quote(f'{view} by time')} ON {table} (event_time)"
            )
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {WINDOWS} "
                "(view TEXT, start INTEGER, PRIMARY KEY (view, start)) WITHOUT ROWID"
            )
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {quote(SCHEMA_VERSION)} "
                "(id INTEGER PRIMARY KEY, stamp TEXT)"
            )
            connection.execute(
                f"INSERT OR REPLACE INTO {quote(SCHEMA_VERSION)} VALUES (1, ?)",
                (Stamp.of("online store").text,),
            )
            (newest,) = connection.execute(
                f"SELECT max(latest) FROM ("
                f"SELECT max(event_time) AS latest FROM {table} WHERE event_time >= ? "
                f"UNION ALL SELECT max(event_time) FROM {table} WHERE event_time < ?)",
                (end, start),
            ).fetchone()
            windows = connection.execute(f"SELECT start FROM {WINDOWS} WHERE view = ?", (view,))
            fresh = read(ViewContents(newest, frozenset(start for (start,) in windows)))
            connection.execute(
                f"DELETE FROM {table} WHERE event_time >= ? AND event_time < ?", (fresh.start, end)
            )
            connection.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", fresh.rows)
            connection.executemany(
                f"INSERT OR IGNORE INTO {WINDOWS} VALUES (?, ?)",
                [(view, window) for window in fresh.windows],
            )
            if fresh.keep_from is not None:
                kept = {"view": view, "kept": fresh.keep_from}
                connection.execute(f"DELETE FROM {table} WHERE event_time < :kept", kept)
                connection.execute(
                    f"DELETE FROM {WINDOWS} WHERE view = :view AND start < :kept", kept
                )

    def forget(
        self,
        use_case: str,
        view: str,
        meant: Callable[[Sequence[str]], Collection[str]],
        *,
        dry_run: bool = False,
    ) -> int:
        table = quote(view)
        with self._transaction(use_case, "BEGIN" if dry_run else "BEGIN IMMEDIATE") as connection:
            stored = connection.execute(f"SELECT DISTINCT entity FROM {table}").fetchall()
            chosen = meant([entity for (entity,) in stored])
            if not dry_run:
                connection.executemany(
                    f"DELETE FROM {table} WHERE entity = ?", [(entity,) for entity in chosen]
                )
        return len(chosen)

    def read(
        self, use_case: str, wanted: Mapping[str, Sequence[Lookup]]
    ) -> dict[str, list[LookupResult | None]]:
        with self._transaction(use_case) as connection:
            execute = connection.execute
            # One statement a lookup: a join of a batch with the table takes as long, and its text
            # depends on the batch's size, so that it would have to be prepared each time.
            return {
                view: [execute(sql, lookup).fetchone() for lookup in lookups]
                for view, lookups in wanted.items()
                for sql in (_latest(view),)
            }

    def newest(self, use_case: str, view: str) -> int | None:
        return self._one(use_case, f"SELECT max(event_time) FROM {quote(view)}")

    def count(self, use_case: str, view: str) -> int:
        return self._one(use_case, f"SELECT count(*) FROM {quote(view)}") or 0

    def close(self) -> None:
        with self._lock:
            for connection in self._all:
                connection.close()
            self._all.clear()
            self._mine = threading.local()

    def _one(self, use_case: str, sql: str) -> int | None:
        with self._transaction(use_case) as connection:
            (value,) = connection.execute(sql).fetchone()
        return None if value is None else int(value)

    @contextmanager
    def _transaction(
        self, use_case: str, begin: str = "BEGIN", *, writes: bool = False
    ) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._connection(use_case, writes)
            connection.execute(begin)
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if match := re.fullmatch(r"no such table: (.*)", str(error)):
                raise not_published(use_case, match[1]) from None
            raise OnlineStoreError(f"{self._file(use_case)}: {error}") from error

    def _connection(self, use_case: str, writes: bool) -> sqlite3.Connection:
        connections: dict[str, sqlite3.Connection] = self._mine.__dict__
        if use_case not in connections:
            file = self._file(use_case)
            if not writes and not file.is_file():
                raise not_published(use_case)
            file.parent.mkdir(parents=True, exist_ok=True)
            opened = self._connect(file)
            if (stamp := _stamp(opened)) is not None:
                require_not_newer("online store", stamp, str(file))
            connections[use_case] = opened
        return connections[use_case]

    def _connect(self, file: Path) -> sqlite3.Connection:
        # Transactions begin where this class says so; connections are closed by any thread.
        connection = sqlite3.connect(
            file,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=STATEMENTS,
        )
        # Readers never wait for a writer. A power failure may lose the last ranges, which the
        # lake still has, and never a part of one.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA mmap_size = {MAPPED_BYTES}")
        with self._lock:
            self._all.append(connection)
        return connection

    def _file(self, use_case: str) -> Path:
        return self._folder / f"{use_case}.sqlite"


def _stamp(connection: sqlite3.Connection) -> Stamp | None:
    there = connection.execute(
        f"SELECT 1 FROM sqlite_master WHERE name = {literal(SCHEMA_VERSION)}"
    ).fetchone()
    row = there and connection.execute(f"SELECT stamp FROM {quote(SCHEMA_VERSION)}").fetchone()
    return Stamp.read(row[0]) if row else None


def _latest(view: str) -> str:
    return (
        f"SELECT event_time, payload FROM {quote(view)} WHERE entity = ? AND event_time <= ? "
        "ORDER BY event_time DESC LIMIT 1"
    )

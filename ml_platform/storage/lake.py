"""One DuckLake: attach it, run transactions that survive other writers, read snapshots."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import duckdb

from ml_platform.errors import LakeError, TableNotFound
from ml_platform.settings import Settings
from ml_platform.spec.queries import literal, quote
from ml_platform.storage.attaching import attached, turns_file
from ml_platform.storage.turns import retried, turn

T = TypeVar("T")

METADATA = "__ducklake_metadata_lake"
"""Where DuckLake attaches its own catalog."""


class Accompaniment(Protocol):
    """Something more that is written in the transaction of a commit, or not at all."""

    def write(self, transaction: duckdb.DuckDBPyConnection) -> None:
        """Write it; called again where the transaction is tried again."""

    def written(self) -> None:
        """It was committed."""


@dataclass(frozen=True)
class Commit:
    """Who writes and why; it becomes the author and message of the lake's snapshot."""

    run_id: str
    code_version: str
    message: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)
    also: Accompaniment | None = None
    """What is written along, such as the row of the audit."""
    begins: Callable[[int], None] = lambda snapshot: None
    """Told the snapshot from which on each attempt to compute what is written begins to read."""

    @property
    def author(self) -> str:
        return f"run {self.run_id}, code {self.code_version}"

    @property
    def extra_info(self) -> str:
        known = {"run_id": self.run_id, "code_version": self.code_version}
        return json.dumps({**known, **self.extra}, sort_keys=True)


class Lake:
    """A DuckLake attached to one in-process DuckDB; safe to share between threads.

    Attaching takes a fifth of a second, so keep one per process and ask it for cursors.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._database: duckdb.DuckDBPyConnection | None = None

    def close(self) -> None:
        """Detach; a later cursor attaches again."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    @contextmanager
    def cursor(self, timezone: str = "UTC") -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of its own to the lake; times without an offset are in `timezone`."""
        cursor = self._attached().cursor()
        try:
            # Frames say nothing of their size: an ASOF join would take them to be so small that it
            # compared each row with each window.
            cursor.execute(
                f"SET TimeZone = {literal(timezone)}; SET enable_progress_bar = false; "
                "SET asof_loop_join_threshold = 0"
            )
            yield cursor
        finally:
            cursor.close()

    def transact(
        self,
        cursor: duckdb.DuckDBPyConnection,
        commit: Commit,
        work: Callable[[duckdb.DuckDBPyConnection], T],
    ) -> T:
        """Run `work` in one transaction, again from its start whenever another writer came first.

        What `work` reads is still true when its writes are committed: transactions that overlap
        never both succeed. Where `work` returns False it did nothing, and nothing is written along
        with it. Raises CommitConflict once the retries are used up.
        """

        def attempt() -> T:
            with turn(turns_file(self.settings)):
                return self._transact_once(cursor, commit, work)

        return retried(attempt, self.settings.commit_retries, commit.message or "a transaction")

    def _transact_once(
        self,
        cursor: duckdb.DuckDBPyConnection,
        commit: Commit,
        work: Callable[[duckdb.DuckDBPyConnection], T],
    ) -> T:
        cursor.execute("BEGIN")
        try:
            result = work(cursor)
            also = None if result is False else commit.also
            if also is not None:
                also.write(cursor)
            # Literals: DuckDB imports pandas, over a second, for the first parameter of a process.
            cursor.execute(
                f"CALL lake.set_commit_message({literal(commit.author)}, "
                f"{literal(commit.message)}, extra_info => {literal(commit.extra_info)})"
            )
            cursor.execute("COMMIT")
        except BaseException:
            # A commit that lost has already ended its transaction.
            with suppress(duckdb.Error):
                cursor.execute("ROLLBACK")
            raise
        if also is not None:
            also.written()
        return result

    def snapshot(self, cursor: duckdb.DuckDBPyConnection) -> int:
        """Number of the newest snapshot; inside a transaction, of the one that it reads."""
        # lake.snapshots() would list the whole history.
        row = cursor.execute("FROM lake.current_snapshot()").fetchone()
        assert row is not None
        return int(row[0])

    def snapshot_saying(
        self, cursor: duckdb.DuckDBPyConnection, name: str, value: str
    ) -> int | None:
        """The newest snapshot whose commit says a value under a name of its `extra`, or None."""
        said = f"json_extract_string(commit_extra_info, {literal(f'$.{name}')})"
        row = cursor.execute(
            f"""SELECT max(snapshot_id) FROM {METADATA}.ducklake_snapshot_changes
            WHERE {said} = {literal(value)}"""
        ).fetchone()
        return None if row is None or row[0] is None else int(row[0])

    def tables(self, cursor: duckdb.DuckDBPyConnection, schema: str) -> frozenset[str]:
        """Tables that have been written to."""
        rows = cursor.execute(
            f"""SELECT table_name FROM duckdb_tables()
            WHERE database_name = 'lake' AND schema_name = {literal(schema)}"""
        ).fetchall()
        return frozenset(name for (name,) in rows)

    def relation(
        self,
        cursor: duckdb.DuckDBPyConnection,
        schema: str,
        table: str,
        snapshot: int | None = None,
    ) -> str:
        """SQL that names a table, at a snapshot where one is given; TableNotFound without one."""
        name = f"lake.{quote(schema)}.{quote(table)}"
        if snapshot is not None:
            name = f"(FROM {name} AT (VERSION => {snapshot:d}))"
        try:
            cursor.execute(f"DESCRIBE SELECT * FROM {name}")
        except duckdb.Error as error:
            text = str(error)
            if "does not exist" not in text and "No snapshot" not in text:
                raise LakeError(f"{schema}.{table} cannot be read: {text}") from error
            at = "" if snapshot is None else f" at snapshot {snapshot}"
            raise TableNotFound(
                f"nothing has been written to {schema}.{table}{at}; "
                f"materialise {schema}/{table} first"
            ) from None
        return name

    def _attached(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            if self._database is None:
                self._database = attached(self.settings)
            return self._database

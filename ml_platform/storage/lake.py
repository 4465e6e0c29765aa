"""One DuckLake: attach it, run transactions that survive other writers, read snapshots."""

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

import duckdb

from ml_platform.errors import DiskFull, LakeError, LakeUnavailable, TableNotFound
from ml_platform.masking import masked
from ml_platform.settings import Settings
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.use_case import PLATFORM
from ml_platform.storage.attaching import attached, turns_file
from ml_platform.storage.failing import lake_error
from ml_platform.storage.known_files import METADATA
from ml_platform.storage.lost_files import lost_file_error
from ml_platform.storage.memory import MemoryLimit
from ml_platform.storage.migrations import Place, require_current
from ml_platform.storage.patience import Patience
from ml_platform.storage.schema_versions import stamp_lake
from ml_platform.storage.threads import Threads
from ml_platform.storage.turns import retried, turn

T = TypeVar("T")

TRANSACTION = "transaction"
"""Under this name a commit says which transaction it is of, so that it is known again."""
SECONDS, ROWS, BYTES = "seconds", "rows", "bytes"
"""Under these names a commit says how long its work took, and how many rows it wrote."""
ENGINE = "engine"
"""Under this name a commit says where its rows were computed; without it, in process."""
EXPIRED_COMMITS = "expired_commits"
"""Table of the platform's own with what the commits of expired snapshots said."""


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
    """Called with the snapshot that each attempt to compute what is written begins to read at."""
    began: float | None = None
    """`time.monotonic()` when the work began; the snapshot says how many seconds it took."""
    figures: dict[str, str] = field(default_factory=dict)
    """What only the transaction knows, such as how many rows it wrote; `extra` overrules it, where
    the work is done elsewhere."""

    def by_engine(self, engine: str) -> "Commit":
        """The same, which says where its rows were computed, if not in process."""
        return replace(self, extra={**self.extra, ENGINE: engine})

    @property
    def author(self) -> str:
        return f"run {self.run_id}, code {self.code_version}"

    @property
    def extra_info(self) -> str:
        known = {"run_id": self.run_id, "code_version": self.code_version}
        if self.began is not None:
            known[SECONDS] = f"{time.monotonic() - self.began:.3f}"
        return json.dumps({**known, **self.figures, **self.extra}, sort_keys=True)


class Lake:
    """A DuckLake attached to one in-process DuckDB; safe to share between threads.

    Attaching takes a fifth of a second, so keep one per process and ask it for cursors.
    read_only: nothing can be written through it, and it has to exist. is_upgrading: a lake of an
    older schema version is opened, too, to back it up or to upgrade it. Whatever opens it raises
    NewerRelease or UpgradeNeeded where its version cannot be used.
    """

    def __init__(
        self, settings: Settings, *, read_only: bool = False, is_upgrading: bool = False
    ) -> None:
        self.settings = settings
        self._read_only, self._is_upgrading = read_only, is_upgrading
        self._lacks_stamp = False
        self._lock = threading.Lock()
        self._database: duckdb.DuckDBPyConnection | None = None
        self.patience = Patience(settings.server_wait_seconds)
        self.memory = MemoryLimit(settings, self.cursor)
        self.threads = Threads(self.cursor)
        self.has_written = False
        """Whether a transaction was committed; who has written nothing can begin again."""

    def close(self) -> None:
        """Detach; a later cursor attaches again."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    @contextmanager
    def cursor(self, timezone: str = "UTC") -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of its own to the lake; times without an offset are in `timezone`.

        Errors of DuckDB that nobody handles leave it as LakeError, as `named` makes them.
        """
        cursor = self._attached().cursor()
        try:
            # Frames say nothing of their size: an ASOF join would take them to be so small that it
            # compared each row with each window.
            cursor.execute(
                f"SET TimeZone = {literal(timezone)}; SET enable_progress_bar = false; "
                "SET asof_loop_join_threshold = 0"
            )
            yield cursor
        except duckdb.Error as error:
            raise self.named(error) from _harmless(error, self.settings)
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
        stamp = stamp_lake if self._lacks_stamp else None
        transaction = _Transaction(commit, work, stamp)

        def attempt() -> T:
            with turn(turns_file(self.settings)):
                return transaction.run(cursor)

        def attempts() -> T:
            try:
                # Whether a commit went through that the server did not answer any more.
                if transaction.in_doubt and self._has(cursor, transaction.id):
                    return transaction.confirmed()
                what = commit.message or "a transaction"
                return retried(attempt, self.settings.commit_retries, what)
            except duckdb.Error as error:
                named = self.named(error)
                if isinstance(named, DiskFull | LakeUnavailable):
                    raise named from None
                raise

        result = self.patience(attempts)
        self.has_written = True
        self._lacks_stamp = self._lacks_stamp and not transaction.has_stamped
        return result

    def _has(self, cursor: duckdb.DuckDBPyConnection, transaction: str) -> bool:
        return self.snapshot_saying(cursor, TRANSACTION, transaction) is not None

    def named(self, error: duckdb.Error) -> LakeError:
        """An error of DuckDB as one of the platform's, in one line and without passwords."""
        found = lake_error(error, self.settings)
        if type(found) is LakeError and self._database is not None:
            with closing(self._database.cursor()) as cursor:
                return lost_file_error(error, cursor, self.settings.lake_files_uri) or found
        return found

    def snapshot(self, cursor: duckdb.DuckDBPyConnection) -> int:
        """Number of the newest snapshot; inside a transaction, of the one that it reads."""
        # lake.snapshots() would list the whole history.
        row = cursor.execute("FROM lake.current_snapshot()").fetchone()
        assert row is not None
        return int(row[0])

    def snapshot_saying(
        self, cursor: duckdb.DuckDBPyConnection, name: str, value: str
    ) -> int | None:
        """The newest snapshot whose commit says a value under a name of its `extra`, or None.

        It may have expired.
        """
        said = f"json_extract_string(extra, {literal(f'$.{name}')})"
        row = cursor.execute(
            f"SELECT max(snapshot) FROM {self.commits(cursor)} WHERE {said} = {literal(value)}"
        ).fetchone()
        return None if row is None or row[0] is None else int(row[0])

    def commits(self, cursor: duckdb.DuckDBPyConnection, *, timed: bool = False) -> str:
        """SQL of what every commit said, whether or not its snapshot has expired.

        Columns: snapshot, author, message, extra (JSON); timed: made_at (TIMESTAMPTZ), too.
        """
        at = ", CAST(s.snapshot_time AS TIMESTAMPTZ) AS made_at" if timed else ""
        made = f"JOIN {METADATA}.ducklake_snapshot s USING (snapshot_id)" if timed else ""
        present = f"""SELECT c.snapshot_id AS snapshot, c.author, c.commit_message AS message,
            c.commit_extra_info AS extra{at}
            FROM {METADATA}.ducklake_snapshot_changes c {made}"""
        row = cursor.execute(
            f"""SELECT 1 FROM {METADATA}.ducklake_table
            WHERE table_name = {literal(EXPIRED_COMMITS)} AND end_snapshot IS NULL"""
        ).fetchone()
        if row is None:
            return f"({present})"
        # Between the two transactions that expire it a snapshot is in both.
        names = f"snapshot, author, message, extra{', made_at' if timed else ''}"
        return f"({present} UNION SELECT {names} FROM lake.{PLATFORM}.{EXPIRED_COMMITS})"

    def tables(self, cursor: duckdb.DuckDBPyConnection, schema: str) -> frozenset[str]:
        """Tables that have been written to."""
        # duckdb_tables() would estimate the size of each, which takes ten times as long.
        rows = cursor.execute(
            f"""SELECT DISTINCT table_name FROM duckdb_columns()
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
            is_absent = isinstance(error, duckdb.CatalogException | duckdb.BinderException)
            if not (is_absent and "does not exist" in text) and "No snapshot" not in text:
                raise
            if "No snapshot" in text and snapshot is not None and snapshot < self.snapshot(cursor):
                raise TableNotFound(
                    f"snapshot {snapshot} has expired: what {schema}.{table} held then is gone"
                ) from None
            at = "" if snapshot is None else f" at snapshot {snapshot}"
            raise TableNotFound(
                f"nothing has been written to {schema}.{table}{at}; "
                f"materialise {schema}/{table} first"
            ) from None
        return name

    def _attached(self) -> duckdb.DuckDBPyConnection:
        if (database := self._database) is not None:
            return database
        with self._lock:
            if self._database is None:
                self._database = self.patience(self._opened)
            return self._database

    def _opened(self) -> duckdb.DuckDBPyConnection:
        database = attached(self.settings, read_only=self._read_only)
        place = Place(self.settings, database)

        def look() -> bool:
            return require_current(
                place, read_only=self._read_only, is_upgrading=self._is_upgrading
            )

        try:
            # As with attaching: another process may hold the catalog for a moment.
            self._lacks_stamp = retried(look, self.settings.commit_retries, "opening the lake")
        except BaseException as error:
            database.close()
            if isinstance(error, duckdb.Error):
                raise lake_error(error, self.settings, "the lake cannot be opened: ") from None
            raise
        return database


def _harmless(error: duckdb.Error, settings: Settings) -> duckdb.Error | None:
    """The error, to be shown as the cause of another one; None where it shows a password."""
    return error if masked(str(error), settings) == str(error) else None


class _Transaction(Generic[T]):
    """One transaction, tried until it is committed, and known in the lake by its id."""

    def __init__(
        self,
        commit: Commit,
        work: Callable[[duckdb.DuckDBPyConnection], T],
        stamp: Callable[[duckdb.DuckDBPyConnection], None] | None = None,
    ) -> None:
        self.id = secrets.token_hex(8)
        self.has_stamped = False
        self.in_doubt = False
        """Whether a commit was sent and no answer came."""
        self._commit, self._work, self._stamp = commit, work, stamp
        self._result: list[T] = []

    def run(self, cursor: duckdb.DuckDBPyConnection) -> T:
        """Run the work and commit it; again from its start where it was run before."""
        commit = replace(self._commit, extra={**self._commit.extra, TRANSACTION: self.id})
        cursor.execute("BEGIN")
        try:
            self._result = [self._work(cursor)]
            if (also := self._also) is not None:
                also.write(cursor)
            if self._stamp is not None and self._result[0] is not False:
                self._stamp(cursor)
                self.has_stamped = True
            # Literals: DuckDB imports pandas, over a second, for the first parameter of a process.
            cursor.execute(
                f"CALL lake.set_commit_message({literal(commit.author)}, "
                f"{literal(commit.message)}, extra_info => {literal(commit.extra_info)})"
            )
            self.in_doubt = True
            cursor.execute("COMMIT")
        except BaseException:
            # A commit that lost has already ended its transaction.
            with suppress(duckdb.Error):
                cursor.execute("ROLLBACK")
            raise
        return self.confirmed()

    def confirmed(self) -> T:
        """What the work returned, now that it is committed."""
        if (also := self._also) is not None:
            also.written()
        return self._result[0]

    @property
    def _also(self) -> Accompaniment | None:
        return None if self._result[0] is False else self._commit.also

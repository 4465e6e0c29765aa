"""One DuckLake: attach it, run transactions that survive other writers, read snapshots."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import duckdb
from duckdb_extensions import import_extension

from ml_platform.errors import LakeError, TableNotFound
from ml_platform.settings import Settings
from ml_platform.spec.queries import literal, quote
from ml_platform.storage.turns import lost_race, retried, turn

T = TypeVar("T")

METADATA = "__ducklake_metadata_lake"
"""Where DuckLake attaches its own catalog."""
CATALOG_EXTENSIONS = {"sqlite": "sqlite_scanner", "postgres": "postgres_scanner"}


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
            cursor.execute(f"SET TimeZone = {literal(timezone)}; SET enable_progress_bar = false")
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
            with turn(self._turns):
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

    def attach_database(self, cursor: duckdb.DuckDBPyConnection, name: str) -> None:
        """Make the tables of a database of the setting `databases` readable as `name.…`.

        Raises LakeError where there is no such database, or it cannot be opened.
        """
        secret = self.settings.databases.get(name)
        if secret is None:
            known = ", ".join(sorted(self.settings.databases)) or "none"
            raise LakeError(f"setting databases has no '{name}'; it has {known}")
        kind, colon, where = secret.get_secret_value().partition(":")
        if not colon or kind not in CATALOG_EXTENSIONS:
            begin = " or ".join(f"'{k}:'" for k in CATALOG_EXTENSIONS)
            raise LakeError(f"setting databases: '{name}' should begin with {begin}")
        if kind == "postgres" and where.startswith("//"):
            where = f"postgresql:{where}"
        try:
            _load(cursor, CATALOG_EXTENSIONS[kind])
            cursor.execute(
                f"ATTACH IF NOT EXISTS {literal(where)} AS {quote(name)} (TYPE {kind}, READ_ONLY)"
            )
        except duckdb.Error as error:
            # The connection string, which DuckDB repeats, may hold a password.
            said = str(error).replace(where, "…").split("\n")[0]
            raise LakeError(f"database '{name}' cannot be opened: {said}") from None

    def _attached(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            if self._database is None:
                kind = self._catalog_kind()
                if self._turns is not None:
                    self._turns.parent.mkdir(parents=True, exist_ok=True)
                self._database = retried(
                    lambda: self._attach(kind), self.settings.commit_retries, "opening the lake"
                )
            return self._database

    def _catalog_kind(self) -> str:
        kind, colon, _ = self.settings.catalog_uri.partition(":")
        if not colon or kind not in CATALOG_EXTENSIONS:
            known = " or ".join(f"'{k}:'" for k in CATALOG_EXTENSIONS)
            # What follows the kind may hold a password.
            raise LakeError(f"setting catalog begins with '{kind}'; it should begin with {known}")
        return kind

    @property
    def _turns(self) -> Path | None:
        """File whose lock orders the writers of an embedded catalog; a server orders its own."""
        kind, _, path = self.settings.catalog_uri.partition(":")
        return Path(f"{path}.lock") if kind == "sqlite" else None

    def _attach(self, kind: str) -> duckdb.DuckDBPyConnection:
        database = duckdb.connect(
            config={"autoinstall_known_extensions": False, "autoload_known_extensions": False}
        )
        try:
            for extension in ("ducklake", CATALOG_EXTENSIONS[kind], *self.settings.extensions):
                _load(database, extension)
            if self.settings.encrypted:
                # DuckDB's built-in cryptography only decrypts; httpfs brings OpenSSL.
                _load(database, "httpfs")
            # Else it would be a folder in whatever directory the process was started in.
            database.execute(f"SET temp_directory = {literal(str(self.settings.root / 'spill'))}")
            if self.settings.secrets_sql:
                database.execute(self.settings.secrets_sql.get_secret_value())
            # DuckLake would repeat a commit that lost on top of the one that won, without reading
            # again: two writers that both found a window empty would both fill it.
            database.execute("SET ducklake_max_retry_count = 0")
            with turn(self._turns):
                database.execute(self._attach_sql(kind))
        except duckdb.Error as error:
            database.close()
            if lost_race(error):
                raise
            # The connection string, which DuckDB repeats, may hold a password.
            said = str(error).replace(self.settings.catalog_uri.partition(":")[2], "…")
            raise LakeError(f"the lake's {kind} catalog cannot be opened: {said}") from None
        except BaseException:
            database.close()
            raise
        return database

    def _attach_sql(self, kind: str) -> str:
        uri = self.settings.catalog_uri
        # Rows kept in the catalog instead of a file would be missed by engines that read the
        # files, and would stay readable where the files are encrypted.
        options = [
            f"DATA_PATH {literal(self.settings.lake_files_uri)}",
            "DATA_INLINING_ROW_LIMIT 0",
            # The setting says where the files are now: a data folder can be moved or copied.
            "OVERRIDE_DATA_PATH true",
        ]
        if kind == "sqlite":
            options += ["META_JOURNAL_MODE 'WAL'", "META_BUSY_TIMEOUT 1000"]
        elif "://" in uri:
            uri += f"{'&' if '?' in uri else '?'}options=-c%20lc_messages%3DC"
        else:
            uri += " options='-c lc_messages=C'"
        if self.settings.encrypted:
            options.append("ENCRYPTED")
        return f"ATTACH {literal('ducklake:' + uri)} AS lake ({', '.join(options)})"


def _load(database: duckdb.DuckDBPyConnection, extension: str) -> None:
    # Loaded from the wheel's copy where it has been unpacked before; unpacking is idempotent.
    try:
        database.load_extension(extension)
    except duckdb.Error:
        try:
            import_extension(extension)
            database.load_extension(extension)
        except (ImportError, ModuleNotFoundError, duckdb.Error) as error:
            package = f"duckdb-extension-{extension.replace('_', '-')}=={duckdb.__version__}"
            raise LakeError(f"DuckDB's extension '{extension}': pip install {package}") from error

"""How partitions come to a table of any database that speaks SQL."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace

import duckdb

from ml_platform.errors import TargetError
from ml_platform.publish.sql_dialect import STAGING, SqlDialect
from ml_platform.publish.target import Part, TargetTable, named_errors
from ml_platform.settings import Settings

WORKING = "ml_platform_part"
"""How tables are called that are not whole yet."""


class SqlTarget(SqlDialect):
    """A database that partitions are published to, each in one transaction.

    database: its name in the setting, for messages.
    """

    def __init__(self, settings: Settings, database: str) -> None:
        self.settings = settings
        self.database = database

    @abstractmethod
    def _exclusive(self, name: str) -> AbstractContextManager[None]: ...

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        with self._named(), self._exclusive(name):
            yield

    def prepare(self, cursor: duckdb.DuckDBPyConnection, table: TargetTable) -> None:
        with self._named():
            for statement in self.create_sql(table):
                self.execute(statement)
            self._require_columns(table, self.stored_columns(table))

    def write(self, cursor: duckdb.DuckDBPyConnection, table: TargetTable, part: Part) -> int:
        with self._named():
            if table.mode != "replace":
                return self._add(cursor, table, part) if part.rows else 0
            with self._transaction():
                self._replace(cursor, table, part)
            # As readers see it. Within the transaction MySQL would look up each row twice.
            return self._count(f"{self.relation(table)} WHERE {self._within(part)}")

    def write_whole(
        self, cursor: duckdb.DuckDBPyConnection, table: TargetTable, part: Part
    ) -> None:
        """Create a table of staged rows, without a key; readers see it once it is whole.

        Raises TargetError where there is a table of that name.
        """
        working = replace(table, path=(*table.path[:-1], f"{WORKING}_{_short(table.name)}"))
        columns = ", ".join(f"{self.quote(c)} {self.type_sql(table, c)}" for c in table.columns)
        relation = self.relation(working)
        with self.exclusive(f"whole {table.name}"), self._transaction():
            # One that was left by a process that was killed.
            self.execute(f"DROP TABLE IF EXISTS {relation}")
            self.execute(f"CREATE TABLE {relation} ({columns})")
            try:
                self.load(cursor, relation, working, part)
                self.execute(self.rename_sql(working, table))
            except BaseException:
                # Where statements that create tables are no part of a transaction.
                with suppress(Exception):
                    self.execute(f"DROP TABLE IF EXISTS {relation}")
                raise

    def _replace(self, cursor: duckdb.DuckDBPyConnection, table: TargetTable, part: Part) -> None:
        relation = self.relation(table)
        self.execute(f"DELETE FROM {relation} WHERE {self._within(part)}")
        if part.rows:
            self.load(cursor, relation, table, part)

    def _add(self, cursor: duckdb.DuckDBPyConnection, table: TargetTable, part: Part) -> int:
        """Insert or update by key."""
        if self._load_new(cursor, table, part):
            held = self._count(f"{self.relation(table)} WHERE {self._within(part)}")
            # Where others have inserted rows there since, merging distinguishes ours from theirs.
            if held == part.rows:
                return held
        return self._merge(cursor, table, part)

    def _load_new(self, cursor: duckdb.DuckDBPyConnection, table: TargetTable, part: Part) -> bool:
        """Insert a partition of whose keys the table has none; False where it may have some."""
        where = f" WHERE {self._within(part)}" if "event_time" in table.key else ""
        oldest = f"SELECT min({self.quote('event_time')}) FROM {self.relation(table)}{where}"
        try:
            with self._transaction():
                is_new = self.execute(oldest) == [(None,)]
                if is_new:
                    self.load(cursor, self.relation(table), table, part)
                return is_new
        except self.refused:
            # Another writer has inserted one of the rows since, or merging says what is wrong.
            return False

    def _merge(self, cursor: duckdb.DuckDBPyConnection, table: TargetTable, part: Part) -> int:
        for statement in self.staging_sql(table):
            self.execute(statement)
        staging, relation = self.quote(STAGING), self.relation(table)
        # Nothing of the table is locked while rows are on their way.
        with self._transaction():
            self.load(cursor, staging, table, part)
        columns = self._listed(table.columns)
        with self._transaction():
            # SQLite reads ON as part of a join where no WHERE stands before it.
            self.execute(
                f"INSERT INTO {relation} ({columns}) SELECT {columns} FROM {staging} WHERE true "
                f"{self.conflict_sql(table)}"
            )
        return self._count_merged(table)

    def _count_merged(self, table: TargetTable) -> int:
        """Rows of the staging table that the target holds, or a later one of their key."""
        same = " AND ".join(f"t.{self.quote(c)} = s.{self.quote(c)}" for c in table.key)
        newer = f"t.{self.quote('event_time')} >= s.{self.quote('event_time')}"
        joined = f"{self.relation(table)} t JOIN {self.quote(STAGING)} s ON {same}"
        return self._count(f"{joined} WHERE {newer}")

    def _within(self, part: Part) -> str:
        column = self.quote("event_time")
        start, end = self.moment_sql(part.start), self.moment_sql(part.end)
        return f"{column} >= {start} AND {column} < {end}"

    def _count(self, relation: str) -> int:
        ((count,),) = self.execute(f"SELECT count(*) FROM {relation}")
        return int(count)

    def _require_columns(self, table: TargetTable, stored: dict[str, str]) -> None:
        lowered = {name.lower(): kind for name, kind in stored.items()}
        for column, kind in table.columns.items():
            wanted = self.type_sql(table, column)
            if column.lower() not in lowered:
                raise TargetError(
                    f"{self.database}: {table.name} has no column '{column}'; add it: ALTER TABLE "
                    f"{self.relation(table)} ADD COLUMN {self.quote(column)} {wanted}"
                )
            lost = self.loss(kind, lowered[column.lower()])
            if lost:
                raise TargetError(
                    f"{self.database}: column '{column}' of {table.name} is "
                    f"{lowered[column.lower()]}, which {lost}; make it {wanted}"
                )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.execute(self.begin)
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            # Where the connection is gone, so is the transaction.
            with suppress(Exception):
                self.execute("ROLLBACK")
            raise

    def _named(self) -> AbstractContextManager[None]:
        return named_errors(self.settings, f"database '{self.database}'")


def _short(name: str) -> str:
    """A name of any length as one that every database takes."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]

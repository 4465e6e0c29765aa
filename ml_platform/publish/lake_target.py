"""What publishing to a lake's tables has in common, whatever format they have."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from ml_platform.errors import TargetError, TargetUnavailable
from ml_platform.extras import not_installed
from ml_platform.failures import failure_of
from ml_platform.publish.lake_columns import partition_column, snapshots_of, typed_columns
from ml_platform.publish.target import Part, TargetTable, named_errors, staged_sql
from ml_platform.publish.turn_folder import turn_file
from ml_platform.settings import Settings
from ml_platform.spec.queries import quote
from ml_platform.storage.turns import alone


class LakeTarget:
    """A folder or a catalog of tables of others.

    database: its name in the setting, for messages.
    """

    def __init__(self, settings: Settings, database: str) -> None:
        self.settings, self.database = settings, database

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        # An object store has no lock: processes of one machine take turns. Whoever wrote on another
        # one what is out of date by then notices at the commit to the platform's lake, and begins
        # again.
        with alone(turn_file(self.settings, name)):
            yield

    def close(self) -> None:
        """Nothing stays open."""

    @contextmanager
    def _named(self) -> Iterator[None]:
        with named_errors(self.settings, f"lake '{self.database}'"):
            try:
                yield
            except ImportError as error:
                raise TargetError(f"lake '{self.database}': {not_installed(error)}") from None
            except OSError as error:
                # What the libraries raise of disks and of object stores has no module of theirs.
                failure = failure_of(TargetError(str(error)), self.settings)
                kind = TargetUnavailable if failure.kind == "unavailable" else TargetError
                raise kind(f"lake '{self.database}': {failure}") from None


class VersionedTarget(LakeTarget, ABC):
    """Tables with versions of their own; what is written of a partition at once is one of them."""

    def write(self, cursor: duckdb.DuckDBPyConnection, table: TargetTable, part: Part) -> int:
        with self._named():
            if table.mode == "upsert":
                return self._merge(cursor, table, part) if part.rows else 0
            here = self._inside(table, part)
            if table.mode == "replace":
                self._replace(cursor, table, part, here)
                return self._count(cursor, table, part, here)
            chosen = [f"snapshot = {snapshot:d}" for snapshot in snapshots_of(cursor, part)]
            return sum(self._add(cursor, table, part, f"{here} AND {c}", c) for c in chosen)

    def _add(
        self,
        cursor: duckdb.DuckDBPyConnection,
        table: TargetTable,
        part: Part,
        here: str,
        chosen: str,
    ) -> int:
        """Rows of one snapshot, which are added once."""
        if not self._count(cursor, table, part, here):
            self._replace(cursor, table, part, here, chosen)
        return self._count(cursor, table, part, here)

    def _query(self, table: TargetTable, part: Part) -> str:
        items = [*typed_columns(table), partition_column(table, part)]
        return staged_sql(items, part, [quote(column) for column in table.key])

    @abstractmethod
    def _inside(self, table: TargetTable, part: Part) -> str:
        """What holds of the partition's rows in the table, in the words of its library."""

    @abstractmethod
    def _replace(
        self,
        cursor: duckdb.DuckDBPyConnection,
        table: TargetTable,
        part: Part,
        here: str,
        where: str = "true",
    ) -> None:
        """Put the rows for which `where` holds in the place of those of which `here` does."""

    @abstractmethod
    def _count(
        self, cursor: duckdb.DuckDBPyConnection, table: TargetTable, part: Part, here: str
    ) -> int:
        """How many rows of the partition a reader finds of which `here` holds."""

    @abstractmethod
    def _merge(self, cursor: duckdb.DuckDBPyConnection, table: TargetTable, part: Part) -> int:
        """Insert or update by key what is not newer there; how many rows a reader finds."""

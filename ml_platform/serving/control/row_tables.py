"""Tables of databases with rows to predict and with answers."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import duckdb
import pyarrow as pa

from ml_platform.errors import ParameterRefused
from ml_platform.publish import write_whole_table
from ml_platform.settings import Settings
from ml_platform.spec.queries import quote
from ml_platform.storage import attach_database, connect_with
from ml_platform.storage.failing import lake_error

TABLES = "ML_PLATFORM_SERVING_BATCH_TABLES"
MISSING = (duckdb.CatalogException, duckdb.BinderException)
"""What DuckDB raises where a database has no such table."""


@dataclass(frozen=True)
class RowTable:
    """A table of a database of the setting `databases`."""

    settings: Settings
    database: str
    path: tuple[str, ...]
    """Schema, where one is named, and table."""

    @classmethod
    def named(
        cls, settings: Settings, allowed: Sequence[str], parameter: str, name: str
    ) -> "RowTable":
        """The table of a name; ParameterRefused where callers may not name it."""
        database, _, table = name.partition(":")
        path = tuple(table.split("."))
        if len(path) > 2 or not all(path):
            raise ParameterRefused(
                parameter, f"'{name}' should be database:table or database:schema.table"
            )
        if not any(fnmatchcase(name, pattern) for pattern in allowed):
            raise ParameterRefused(
                parameter, f"'{name}' is none of the tables of {TABLES}, which the operator decides"
            )
        if database not in settings.databases:
            raise ParameterRefused(parameter, f"the service knows no database '{database}'")
        return cls(settings, database, path)

    @property
    def name(self) -> str:
        return f"{self.database}:{'.'.join(self.path)}"

    def require_absent(self) -> None:
        if self._count() is not None:
            raise ParameterRefused("answers", f"'{self.name}' is there already; name another table")

    def count(self) -> int:
        count = self._count()
        if count is None:
            raise ParameterRefused("rows", f"there is no table '{self.name}'")
        if not count:
            raise ParameterRefused("rows", f"'{self.name}' has no rows")
        return count

    def chunks(self, rows: int) -> Iterator[pa.Table]:
        with self._opened() as (cursor, relation):
            for batch in cursor.execute(f"FROM {relation}").to_arrow_reader(rows):
                if batch.num_rows:
                    yield pa.Table.from_batches([batch])

    @contextmanager
    def writing(self, batch: str) -> Iterator[Path]:
        folder = self.settings.root / "batches"
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{batch}.parquet"
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)

    def publish(self, part: Path) -> None:
        write_whole_table(self.settings, self.database, self.path, part)

    def _count(self) -> int | None:
        """How many rows there are; None where there is no such table."""
        try:
            with self._opened() as (cursor, relation):
                ((count,),) = cursor.execute(f"SELECT count(*) FROM {relation}").fetchall()
        except MISSING:
            return None
        return int(count)

    @contextmanager
    def _opened(self) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
        # Apart from the lake's: what is read here is of a size that nobody here decides.
        with closing(connect_with()) as cursor:
            cursor.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
            attach_database(cursor, self.settings, self.database)
            try:
                yield cursor, ".".join(quote(part) for part in (self.database, *self.path))
            except MISSING:
                raise
            except duckdb.Error as error:
                raise lake_error(error, self.settings, f"{self.name}: ") from None

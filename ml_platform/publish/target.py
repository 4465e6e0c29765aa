"""A database of others that predictions are published to, whatever kind it is."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import duckdb

from ml_platform.errors import PlatformError, TargetError, TargetUnavailable
from ml_platform.extras import not_installed
from ml_platform.failures import failure_of, is_of_a_store
from ml_platform.settings import Settings
from ml_platform.spec.publication import Mode

STAGED = "temp.__published"
"""Rows to publish, of all partitions of a range, with the `window_start` of each."""
BATCH_ROWS = 8192


@dataclass(frozen=True)
class TargetTable:
    """The table that is published to, as it is declared."""

    path: tuple[str, ...]
    """Schema, where one is named, and table."""
    columns: Mapping[str, str]
    """Names and DuckDB types."""
    key: tuple[str, ...]
    mode: Mode
    lengths: Mapping[str, int] = field(default_factory=dict)
    partition: str = ""
    """Column by which a table of a lake distinguishes partitions."""
    is_hourly: bool = False
    """Whether partitions are hours, and not days or more."""

    @property
    def name(self) -> str:
        return ".".join(self.path)

    @property
    def others(self) -> tuple[str, ...]:
        """Columns that are no part of the key, event time last: it decides which row is newer."""
        plain = [c for c in self.columns if c not in self.key and c != "event_time"]
        return (*plain, *(c for c in ("event_time",) if c not in self.key))


@dataclass(frozen=True)
class Part:
    """One partition to publish: its bounds, and its rows in `STAGED`."""

    start: datetime
    end: datetime
    """Bounds of event time, in UTC without an offset."""
    rows: int
    label: str
    """The day that it begins with, or the hour in UTC: `2024-03-09`, `2024-03-09-05`."""


class Target(Protocol):
    """What publishing asks of a database; it raises TargetError or TargetUnavailable."""

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """Wait until nobody else publishes under a name, and keep it; readers are not concerned."""

    def prepare(self, cursor: duckdb.DuckDBPyConnection, table: TargetTable) -> None:
        """Create the table, with key and index, where there is none.

        Raises TargetError where the one that is there could not hold what is published.
        cursor: the connection with `STAGED`.
        """

    def write(self, cursor: duckdb.DuckDBPyConnection, table: TargetTable, part: Part) -> int:
        """Publish a partition in one transaction; how many rows of it the table holds then."""

    def close(self) -> None:
        """Close the connection; what is not committed is rolled back."""


@contextmanager
def named_errors(settings: Settings, what: str) -> Iterator[None]:
    """Errors of a database's library as TargetError or TargetUnavailable: one line, no password."""
    try:
        yield
    except PlatformError:
        raise
    except Exception as error:
        if not is_of_a_store(error):
            raise
        failure = failure_of(error, settings)
        kind = TargetUnavailable if failure.kind == "unavailable" else TargetError
        # Not as its cause: what a library says may hold what it connected with.
        raise kind(f"{what}: {failure}") from None


def without_driver(database: str, error: ImportError) -> TargetError:
    """The error of a database whose Python package is not installed."""
    return TargetError(f"database '{database}': {not_installed(error)}")


def staged_sql(columns: Sequence[str], part: Part, order: Sequence[str]) -> str:
    """Query of select items over the staged rows of a partition, in order of the key."""
    ordered = f" ORDER BY {', '.join(order)}" if order else ""
    return (
        f"SELECT {', '.join(columns)} FROM {STAGED} "
        f"WHERE window_start = TIMESTAMP '{part.start}'{ordered}"
    )


def batches(cursor: duckdb.DuckDBPyConnection, query: str) -> Iterator[list[list[Any]]]:
    """Columns of the rows that a query yields, some thousand rows at a time."""
    for batch in cursor.execute(query).to_arrow_reader(BATCH_ROWS):
        yield [column.to_pylist() for column in batch.columns]

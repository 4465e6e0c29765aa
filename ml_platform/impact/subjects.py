"""What an impact is asked of: rows of a source, where they are and since when."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import duckdb

from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window, utc
from ml_platform.storage import Lake
from ml_platform.storage.changes import Range


@dataclass(frozen=True)
class SourceSpan:
    """Rows of one window of a source."""

    rows: int
    range: Window
    """Of event time, in which there is something else to read than without them."""
    since: int
    """Snapshot from which on they may have been read; 0 where nothing says it."""


@dataclass(frozen=True)
class RowVersion:
    """What a source said of a row from one moment on."""

    window: Window
    event_time: datetime
    file: str
    number: int
    """Row of the file, from 1."""
    known_at: datetime
    known_from: datetime
    known_until: datetime | None
    """None where it still is the truth."""

    @property
    def is_first(self) -> bool:
        """Whether it is shown too to who asks of a time before it was known."""
        return utc(self.known_from) == utc(self.known_at)


@dataclass(frozen=True)
class Subject:
    """Rows of one source, which partitions and versions may have been computed from."""

    source: str
    named: str
    """What was asked about, in words."""
    spans: Mapping[Window, SourceSpan]
    """By window, in order of time; only what was ingested."""
    where: str
    """SQL predicate that holds for these rows of the source's table."""
    known_from: datetime | None
    """When the first of them was known; None where that is not stored any more."""
    landed: int = 0
    """Rows that landed of a file."""
    quarantined: int = 0
    """Rows of a file that broke the contract, or that later rows correct."""
    waiting: tuple[Window, ...] = ()
    """Windows that a file has rows of which are not ingested yet."""
    versions: tuple[RowVersion, ...] = ()
    """Of a row, in order."""
    chosen: int | None = None
    """Position of the version that was asked about; None where all were."""
    is_correction: bool = False
    """Whether they only correct what was known before."""

    @property
    def corrected(self) -> RowVersion | None:
        """The version that the chosen one replaced; None where it is the first, or none is."""
        return self.versions[self.chosen - 1] if self.chosen else None

    @property
    def rows(self) -> int:
        """Rows that were ingested and kept the contract."""
        return sum(span.rows for span in self.spans.values())


def arrivals(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    source: str,
    file: str,
    starts: Iterable[datetime],
) -> dict[datetime, list[int]]:
    """The snapshots at which windows, by start, took in rows of a file, in order."""
    if "ingestions" not in lake.tables(cursor, use_case.name):
        return {}
    rows = cursor.execute(
        f"""SELECT window_start, list(DISTINCT snapshot ORDER BY snapshot)
        FROM lake.{quote(use_case.name)}.ingestions
        WHERE source = ? AND file = ? AND {Range.of(starts).holds("window_start")} GROUP BY 1""",
        [source, file],
    ).fetchall()
    return dict(rows)

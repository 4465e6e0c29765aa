"""What somebody wants to have brought up to date, in the words of a use case."""

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from ml_platform.backfill.workers import Share
from ml_platform.errors import EmptyPartition, LandingError, PlatformError
from ml_platform.sources import arrivals
from ml_platform.spec.ranges import named_partition
from ml_platform.spec.tables import computed_tables, downstream_of, tables_of
from ml_platform.spec.use_case import Engine, UseCase
from ml_platform.spec.values import unknown
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from ml_platform.storage.tables import WINDOW_START


@dataclass(frozen=True)
class BackfillRequest:
    """Tables and a range of partitions, both as far as they were named."""

    tables: tuple[str, ...] = ()
    first: str | None = None
    last: str | None = None
    only: bool = False
    with_sources: bool = False
    every: bool = False
    chunk: int | None = None
    run_per_table: bool = False
    workers: int = 1
    """Processes that compute side by side, without Dagster."""
    share: Share | None = None
    """The part of the range that is computed here; others compute the rest."""
    engine: Engine | None = None
    """Of features and predictions, where it is not the one that the use case declares."""

    def tables_in(self, use_case: UseCase) -> tuple[str, ...]:
        """The tables that are meant, each after those that it reads."""
        known = tables_of(use_case)
        for table in self.tables:
            if table not in known:
                raise PlatformError(f"{use_case.name}: {unknown('table', table, known)}")
        if self.tables and self.only:
            found: Collection[str] = self.tables
        elif self.tables:
            found = downstream_of(use_case, self.tables)
        else:
            found = computed_tables(use_case)
        sources = use_case.sources if self.with_sources else ()
        return tuple(table for table in known if table in found or table in sources)

    def range_in(self, lake: Lake, use_case: UseCase) -> Window:
        """From the first window on, to the last one that has examples, unless bounds are given."""
        calendar = use_case.calendar
        start = named_partition(use_case, self.first).start if self.first else calendar.start
        named = named_partition(use_case, self.last) if self.last else None
        end = (named or with_examples(lake, use_case)).end
        if end.astimezone(UTC) <= start.astimezone(UTC):
            raise PlatformError(f"--from {self.first}: nothing lies between it and the end, {end}")
        return Window(start, end)


def with_examples(lake: Lake, use_case: UseCase) -> Window:
    """All windows from the first one on to the last that has examples."""
    source = use_case.examples.source
    with lake.cursor() as cursor:
        table = lake.relation(cursor, use_case.name, source)
        row = cursor.execute(f"SELECT max({WINDOW_START}) FROM {table}").fetchone()
    if row is None or row[0] is None:
        raise EmptyPartition(f"{use_case.name}/{source} has no rows; ingest some first")
    calendar = use_case.calendar
    return Window(calendar.start, calendar.window_stored(row[0]).end)


def look_at_landing(
    lake: Lake, use_case: UseCase, tables: Collection[str], commit: Callable[[str], Commit]
) -> None:
    """Note what has landed for those of the tables that are sources; commit: by source."""
    for source in use_case.sources:
        if source in tables:
            # Where nothing has ever landed there is nothing to ingest.
            with suppress(LandingError):
                arrivals(lake, use_case, source, commit(source), datetime.now(UTC))

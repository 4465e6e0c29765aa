"""Rows that are there to be asked for: of each use case one whose features are online."""

import asyncio
import time
from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import duckdb
from structlog.typing import FilteringBoundLogger

from ml_platform.errors import PlatformError
from ml_platform.features import needed_columns
from ml_platform.serving.lookup import FeatureLookup, Row
from ml_platform.serving.service import Service
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake

FRESH_SECONDS = 60.0
WINDOWS, MOST_TRIED = 3, 50
"""Among so many windows one is looked for, the newest first, and so many rows of each: features of
the newest may still be missing."""


class KnownRows:
    """Chooses a row among the newest examples in the lake, at most each minute."""

    def __init__(self, lake: Lake, service: Service, log: FilteringBoundLogger) -> None:
        self._lake, self._service, self._log = lake, service, log
        self._rows: dict[str, tuple[float, Row | None]] = {}

    async def of(self, names: Iterable[str]) -> dict[str, Row]:
        """A row of each use case that is served, as a request by key has it.

        Use cases without examples in the lake have none, nor those of which none could be read.
        """
        served = [name for name in names if self._service.version_of(name) is not None]
        return await asyncio.to_thread(self._read, served)

    def _read(self, names: Iterable[str]) -> dict[str, Row]:
        found = {}
        for name in names:
            read_at, row = self._rows.get(name, (-FRESH_SECONDS, None))
            if time.monotonic() >= read_at + FRESH_SECONDS:
                row = self._chosen(name) or row
                self._rows[name] = (time.monotonic(), row)
            if row is not None:
                found[name] = row
        return found

    def _chosen(self, name: str) -> Row | None:
        try:
            rows = newest_rows(self._lake, self._service.live.of(name).use_case)
            return self._best(self._service.lookup(name), name, rows)
        except (PlatformError, duckdb.Error) as error:
            # Made-up values do for an example.
            self._log.warning("known_rows_not_read", use_case=name, problem=str(error))
            return None

    def _best(self, lookup: FeatureLookup, name: str, rows: list[Row]) -> Row | None:
        if not rows:
            return None
        model = self._service.live.model(name)
        found = lookup.complete(lookup.check(rows), model, known_categories=False)
        lacking = [len(each) for each in found.not_found]
        return rows[lacking.index(min(lacking))]


def newest_rows(lake: Lake, use_case: UseCase) -> list[Row]:
    """The newest examples of the newest windows, of the columns that a request by key brings.

    Raises PlatformError where the lake cannot be read; TableNotFound without examples.
    """
    source = use_case.examples.source
    columns = list(needed_columns(use_case))
    event_time = use_case.sources[source].event_time
    order = ", ".join(quote(name) for name in use_case.examples.entity)
    with lake.cursor(use_case.timezone) as cursor:
        table = lake.relation(cursor, use_case.name, source)
        rows, before = list[tuple[Any, ...]](), "infinity"
        for _ in range(WINDOWS):
            # Of one window only the files of its month are opened.
            older = f"FROM {table} WHERE window_start < TIMESTAMP {literal(before)}"
            newest = cursor.execute(f"SELECT max(window_start) {older}").fetchone()
            if newest is None or newest[0] is None:
                break
            before = str(newest[0])
            rows += cursor.execute(
                f"""SELECT {", ".join(quote(name) for name in columns)} FROM {table}
                WHERE window_start = TIMESTAMP {literal(before)}
                ORDER BY {quote(event_time)} DESC, {order} LIMIT {MOST_TRIED}"""
            ).fetchall()
    return [dict(zip(columns, map(_plain, row), strict=True)) for row in rows]


def _plain(value: Any) -> Any:
    match value:
        case datetime() | date():
            return value.isoformat()
        case Decimal():
            return float(value)
        case None | bool() | int() | float() | str():
            return value
        case _:
            return str(value)
